"""How every figure looks: colours, fonts, new figures, legends, text shown as text.

Nothing here changes matplotlib's settings for the caller: `styled` wraps a plot function in a
context that is left again when it returns. Colours are colour-blind-safe, Okabe-Ito [1]_ for kinds
(methods, phases) and viridis for ordered batches and thresholds, and dark and light enough for
white and for black pages; `INK`, `GREY`, `GRID` and `PAPER` are exchanged on a dark page
(`cbsbayes.plots.gallery`).

References
----------
.. [1] Okabe & Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, Locator, NullLocator

from cbsbayes.errors import one_line

__all__ = ["BLUE", "GREY", "GRID", "INK", "OKABE_ITO", "ORANGE", "PAPER", "SETTINGS", "LogTicks",
           "colour_of", "detached", "entry", "is_detached", "kind_colours", "legend_below",
           "legend_outside", "log_axis", "new_axes", "new_grid", "ordered_colours", "plain_number",
           "plain_text", "short_text", "styled", "time_unit"]

INK, GREY, GRID, PAPER = "#1a1a1a", "#6e6e6e", "#e3e3e3", "#ffffff"
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f")
BLUE, ORANGE = OKABE_ITO[:2]

SETTINGS: Any = {
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8,
    "legend.title_fontsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "axes.titlelocation": "left", "axes.titley": 1.0,  # a title without y looks for ticks above
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": GREY, "ytick.color": GREY,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.edgecolor": GREY,
    "axes.linewidth": 0.8, "lines.linewidth": 1.6, "hatch.color": GREY, "legend.frameon": False,
    "axes.prop_cycle": cycler(color=OKABE_ITO),
    "figure.dpi": 110, "text.usetex": False,
}

_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"))
_STRIDES = (4, 3, 2)
_PARTS: dict[int, tuple[tuple[float, ...], ...]] = {
    2: ((1,), (1, 1.5), (1, 1.25, 1.5, 1.75)),
    10: ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(np.arange(1, 10, 0.5)),
         tuple(np.arange(1, 10, 0.1)))}
_DETACHED: ContextVar[bool] = ContextVar("cbsbayes_detached_figures", default=False)


def styled[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Run a plot function inside the house style and leave the caller's settings alone."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(SETTINGS):
            return function(*args, **kwargs)

    return wrapper


@contextmanager
def detached() -> Iterator[None]:
    """Make new figures that pyplot does not know: nothing to close, nothing kept alive."""
    token = _DETACHED.set(True)
    try:
        yield
    finally:
        _DETACHED.reset(token)


def is_detached() -> bool:
    """Return whether new figures are unknown to pyplot."""
    return _DETACHED.get()


def _new_figure(figsize: tuple[float, float]) -> Figure:
    if _DETACHED.get():
        return Figure(figsize=figsize, layout="constrained")
    from matplotlib import pyplot

    return pyplot.figure(figsize=figsize, layout="constrained")


def new_axes(ax: Axes | None, figsize: tuple[float, float] = (5.6, 3.6)) -> Axes:
    """Return `ax`, or the axes of a new figure where there is none."""
    return _new_figure(figsize).subplots() if ax is None else ax


def new_grid(n_panels: int, n_columns: int, panel: tuple[float, float] = (3.2, 2.4),
             **kwargs: Any) -> tuple[Figure, list[Axes]]:
    """Return a new figure and `n_panels` axes in rows of `n_columns`; spare places are empty."""
    n_columns = min(n_columns, n_panels)
    n_rows = -(-n_panels // n_columns)
    figure = _new_figure((panel[0] * n_columns, panel[1] * n_rows))
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False, **kwargs).ravel())
    for spare in axes[n_panels:]:
        spare.remove()
    return figure, axes[:n_panels]


def ordered_colours(n: int) -> list[str]:
    """Return `n` colours, dark to light, for ordered things (batches, thresholds)."""
    positions = np.linspace(0.16, 0.76, n) if n > 1 else np.array([0.3])
    viridis = matplotlib.colormaps["viridis"]
    return [matplotlib.colors.to_hex(viridis(position)) for position in positions]


def kind_colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour per name, in the order given; more than seven names start again."""
    return {name: OKABE_ITO[i % len(OKABE_ITO)] for i, name in enumerate(names)}


def colour_of(values: Iterable[Any]) -> dict[Any, str]:
    """Return an ordered colour for each distinct value."""
    distinct = sorted(set(values))
    return dict(zip(distinct, ordered_colours(len(distinct)), strict=True))


def plain_text(text: object) -> str:
    r"""Return text that matplotlib shows as it is: no mathtext, newlines as ``\n``."""
    return one_line(text).replace("$", r"\$")


def short_text(text: object, width: int = 36) -> str:
    """Return `plain_text` of `text` with the middle left out where it is too long."""
    whole = str(text)
    if len(whole) > width:
        head = (width - 1) // 2
        whole = f"{whole[:head]}…{whole[-(width - 1 - head):]}"
    return plain_text(whole)


def entry(label: str, colour: str = GREY, **style: Any) -> Line2D:
    """Return a legend entry; with a marker and no `ls`, the marker alone."""
    alone: dict[str, Any] = {"ls": "none", "ms": 5} if "marker" in style else {}
    return Line2D([], [], color=colour, label=label, **(alone | style))


def legend_below(ax: Axes, handles: Iterable[Line2D], n_columns: int = 2) -> None:
    """Put a legend below a figure of this package, one for all its axes; inside other axes."""
    figure: Any = ax.figure
    if figure.get_layout_engine() is None:
        ax.legend(handles=list(handles))
        return
    before = list(figure.legends)
    known = [handle for legend in before for handle in legend.legend_handles]
    unique = {str(handle.get_label()): handle for handle in [*known, *handles]}
    for legend in before:
        legend.remove()
    figure.legend(handles=list(unique.values()), loc="outside lower center", handlelength=1.6,
                  ncols=n_columns, columnspacing=1.4)


def legend_outside(ax: Axes, title: str, handles: Sequence[Line2D] | None = None) -> None:
    """Put a compact legend to the right of the axes, if anything is labelled."""
    shown: Sequence[Any] = handles or ax.get_legend_handles_labels()[0]
    if shown:
        ax.legend(handles=shown, title=title, loc="upper left", bbox_to_anchor=(1.01, 1.0),
                  borderaxespad=0.0, alignment="left", handlelength=1.6, labelspacing=0.35,
                  ncols=1 if len(shown) <= 13 else 2)


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
