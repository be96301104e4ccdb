"""Log axes in powers of two whose ticks are plain numbers ("32", "1,024")."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, Locator, NullLocator

__all__ = ["Log2Locator", "log2_axis", "plain_number", "time_unit"]

_STEPS = {1: (1.0,), 2: (1.0, 1.5), 4: (1.0, 1.25, 1.5, 1.75)}
_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


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


class Log2Locator(Locator):
    """Ticks at powers of two, thinned on long axes and filled in on short ones.

    Parameters
    ----------
    most : int
        The largest number of ticks wanted.
    """

    def __init__(self, most: int = 8) -> None:
        self.most = most

    def __call__(self) -> Sequence[float]:
        """Return the ticks of the axis' present limits."""
        low, high = sorted(self.axis.get_view_interval()) if self.axis else (0.0, 0.0)
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return tick positions between `vmin` and `vmax`."""
        if not 0 < vmin < vmax < math.inf:
            return []
        low, high = math.log2(vmin), math.log2(vmax)
        exponents = np.arange(math.floor(low), math.floor(high) + 1)
        inside = exponents[exponents >= low - 1e-9]
        if len(inside) > self.most:
            stride = -(-len(inside) // self.most)
            return list(2.0 ** inside[::stride])
        per_octave = max((n for n in _STEPS if n * (high - low) <= self.most), default=1)
        if len(inside) >= 4:
            per_octave = 1
        ticks = np.outer(2.0 ** exponents, _STEPS[per_octave]).ravel()
        return list(ticks[(ticks >= vmin * (1 - 1e-9)) & (ticks <= vmax * (1 + 1e-9))])


def log2_axis(ax: Axes, which: str, *, most: int = 8) -> None:
    """Make an axis logarithmic in powers of two with plain-number ticks.

    Parameters
    ----------
    ax : Axes
    which : {"x", "y", "xy"}
    most : int
        The largest number of ticks wanted.
    """
    for letter in which:
        getattr(ax, f"set_{letter}scale")("log", base=2)
        axis = getattr(ax, f"{letter}axis")
        axis.set_major_locator(Log2Locator(most))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))


def time_unit(seconds: float) -> tuple[float, str]:
    """Return (seconds per unit, unit) that suits a duration: seconds, minutes or hours."""
    if seconds >= 2 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if seconds >= 120 else (1.0, "seconds")
