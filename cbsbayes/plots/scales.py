"""Logarithmic axes with plain-number ticks: powers of two for batches, decimal for the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, Locator, NullLocator

__all__ = ["LogTicks", "log_axis", "plain_number", "time_unit"]

_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"))
_STRIDES = (4, 3, 2)
_PARTS: dict[int, tuple[tuple[float, ...], ...]] = {
    2: ((1,), (1, 1.5), (1, 1.25, 1.5, 1.75)),
    10: ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(np.arange(1, 10, 0.5)),
         tuple(np.arange(1, 10, 0.1)))}


def plain_number(value: float) -> str:
    """Return a number as a reader would write it: 0.25, 32, 1,024, 2.1M."""
    if not math.isfinite(value):
        return ""
    for size, letter in _LARGE:
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    if abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


class LogTicks(Locator):
    """Ticks of a logarithmic axis: as many as fit, all of one kind.

    Parameters
    ----------
    base : {2, 10}
        Powers of two with halves and quarters between, or 1, 2, 5, 10 …
    most : int
        The largest number of ticks wanted.
    """

    def __init__(self, base: int, most: int = 8) -> None:
        self.base, self.most = base, most

    def __call__(self) -> Sequence[float]:
        """Return the ticks of the axis' present limits."""
        low, high = sorted(self.axis.get_view_interval()) if self.axis else (0.0, 0.0)
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return tick positions between `vmin` and `vmax`."""
        if not 0 < vmin < vmax < math.inf:
            return []
        low, high = (math.floor(math.log(end, self.base)) for end in (vmin, vmax))
        powers = np.arange(low - 1, high + 2)
        coarse = [float(self.base) ** powers[powers % stride == 0] for stride in _STRIDES]
        fine = [np.outer(float(self.base) ** powers, parts).ravel() for parts in _PARTS[self.base]]
        shown: list[float] = []
        for ticks in coarse + fine:
            inside = ticks[(ticks >= vmin * (1 - 1e-9)) & (ticks <= vmax * (1 + 1e-9))]
            if len(inside) <= self.most or not shown:
                shown = inside.tolist()
        return shown


def log_axis(ax: Axes, which: str, base: int = 2, *, most: int = 8) -> None:
    """Make axes logarithmic with plain-number ticks.

    Parameters
    ----------
    ax : Axes
    which : {"x", "y", "xy"}
    base : {2, 10}
        2 for batches; 10 for updates, samples and time.
    most : int
        The largest number of ticks wanted.
    """
    for letter in which:
        getattr(ax, f"set_{letter}scale")("log", base=base)
        axis = getattr(ax, f"{letter}axis")
        axis.set_major_locator(LogTicks(base, most))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))


def time_unit(seconds: float) -> tuple[float, str]:
    """Return (seconds per unit, unit) that suits a duration: seconds, minutes or hours."""
    if seconds >= 2 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if seconds >= 120 else (1.0, "seconds")
