"""How every figure looks: colours, plain-number log axes, legends, text shown as text.

Nothing here changes matplotlib's settings for the caller: `styled` wraps a plot function in a
context that is left again when it returns. Colours are colour-blind-safe: Okabe-Ito [1]_ for
kinds (methods, phases), viridis for ordered batches and thresholds.

References
----------
.. [1] Okabe & Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

__all__ = ["BLACK", "GREY", "OKABE_ITO", "PAPER", "colour_of", "detached", "kind_colours",
           "legend_outside", "new_axes", "new_grid", "ordered_colours", "plain_text", "short_text",
           "styled", "visible_text"]

BLACK = "#1a1a1a"
GREY = "#6e6e6e"
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f")

PAPER: Any = {
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8,
    "legend.title_fontsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "axes.titlelocation": "left", "axes.titley": 1.0,  # a title without y looks for ticks above
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e3e3e3", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "axes.edgecolor": "#444444", "axes.linewidth": 0.8, "lines.linewidth": 1.6,
    "legend.frameon": False, "figure.dpi": 110, "text.usetex": False,
    "xtick.minor.visible": False, "ytick.minor.visible": False,
}

_DETACHED: ContextVar[bool] = ContextVar("cbsbayes_detached_figures", default=False)


def styled[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Run a plot function inside the house style and leave the caller's settings alone."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(PAPER):
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


def _new_figure(figsize: tuple[float, float]) -> Figure:
    if _DETACHED.get():
        return Figure(figsize=figsize, layout="constrained")
    from matplotlib import pyplot

    return pyplot.figure(figsize=figsize, layout="constrained")


def new_axes(ax: Axes | None, figsize: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """Return `ax`, or the axes of a new figure where there is none."""
    return _new_figure(figsize).subplots() if ax is None else ax


def new_grid(n_panels: int, n_columns: int, panel: tuple[float, float] = (3.2, 2.4),
             **kwargs: Any) -> tuple[Figure, list[Axes]]:
    """Return a new figure and `n_panels` axes in rows of `n_columns`; spare cells are empty."""
    n_columns = min(n_columns, n_panels)
    n_rows = -(-n_panels // n_columns)
    figure = _new_figure((panel[0] * n_columns, panel[1] * n_rows))
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False, **kwargs).ravel())
    for spare in axes[n_panels:]:
        spare.remove()
    return figure, axes[:n_panels]


def ordered_colours(n: int) -> list[str]:
    """Return `n` colours, dark to light, for ordered things (batches, thresholds)."""
    positions = np.linspace(0.0, 0.86, n) if n > 1 else np.array([0.3])
    viridis = matplotlib.colormaps["viridis"]
    return [matplotlib.colors.to_hex(viridis(position)) for position in positions]


def kind_colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour per name, in the order given; more than seven names start again."""
    return {name: OKABE_ITO[i % len(OKABE_ITO)] for i, name in enumerate(names)}


def colour_of(values: Iterable[Any]) -> dict[Any, str]:
    """Return an ordered colour for each distinct value."""
    distinct = sorted(set(values))
    return dict(zip(distinct, ordered_colours(len(distinct)), strict=True))


def visible_text(text: object) -> str:
    r"""Return text on one line: newlines and other control characters as ``\n``, ``\x07``."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode()
                   for char in str(text))


def plain_text(text: object) -> str:
    r"""Return text that matplotlib shows as it is: no mathtext, newlines as ``\n``."""
    return visible_text(text).replace("$", r"\$")


def short_text(text: object, width: int = 36) -> str:
    """Return `plain_text` of `text` with the middle left out where it is too long."""
    whole = str(text)
    if len(whole) > width:
        head = (width - 1) // 2
        whole = f"{whole[:head]}…{whole[-(width - 1 - head):]}"
    return plain_text(whole)


def legend_outside(ax: Axes, *, title: str | None = None, **kwargs: Any) -> Legend | None:
    """Put a compact legend to the right of the axes; None where nothing is labelled."""
    handles, labels = ax.get_legend_handles_labels()
    handles, labels = kwargs.pop("handles", handles), kwargs.pop("labels", labels)
    if not handles:
        return None
    columns = 1 if len(handles) <= 18 else 2
    return ax.legend(handles, labels, title=title, loc="upper left", bbox_to_anchor=(1.01, 1.0),
                     borderaxespad=0.0, alignment="left", handlelength=1.6, labelspacing=0.35,
                     ncols=columns, **kwargs)
