"""Every figure of a fit in reading order, each with a title and how to read it; and as files.

The dozen of the page come first: the map, what doubling buys, curves, splits, and whether all this
can be trusted; the others are for those who ask. Titles and captions stand in ``figures.toml``.

A figure is written as SVG for pages, as PDF for papers. An SVG has no background, its text is text,
and its ink follows the reader's choice of a dark or a light page, in a page and on its own.
"""

from __future__ import annotations

import io
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.errors import CBSDataError
from cbsbayes.plots import allocation, curves, diagnostics, estimates, map, training
from cbsbayes.plots.reading import axes_of, one_threshold, run_table
from cbsbayes.plots.style import GREY, GRID, INK, PAPER, SETTINGS, detached, new_grid, styled
from cbsbayes.sweep.files import write_whole

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["GalleryItem", "all_figures", "draw_figure", "figure_bytes", "item",
           "page_figures", "write_figure"]

_PANELS = 6  # of one figure at most
_MAPS = 11  # at most at other targets: the style sheet knows a dozen
_TEXTS = Path(__file__).with_name("figures.toml")
_SETTINGS: Any = SETTINGS | {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "cbsbayes"}
_UNDATED = {"pdf": {"CreationDate": None, "ModDate": None}, "svg": {"Date": None}}
_DARK = {INK: "#e1e4e6", "#000000": "#e1e4e6", GREY: "#a0a8b0", GRID: "#363c42", PAPER: "#16191c"}
_RULES = "".join(f'[style*="{part}: {light}"]{{{part}:{dark} !important}}'
                 for light, dark in _DARK.items() for part in ("fill", "stroke"))
_STYLE = f"<style>@media (prefers-color-scheme: dark){{{_RULES}}}</style>"

_PLACES = re.compile(r' (?:d|x|y)="[^"]*"')
_TOO_LONG = re.compile(r"(?<=\.\d)\d+| \n(?=[LCMz])")  # a tenth of a point is enough


class GalleryItem(NamedTuple):
    """One figure: a name for its file, a title, how to read it, and how to draw it.

    `draw` returns the figure, or raises `CBSDataError` whose one line says why this fit has
    no such figure (nothing logged, an axis not varied); that line is the reason to show.
    """

    slug: str
    title: str
    caption: str
    draw: Callable[[], Figure]


@styled
def _stacked(plots: Sequence[Callable[..., Axes]], height: float = 2.9) -> Axes:
    """Draw plots below one another; return the last axes."""
    if not plots:
        raise CBSDataError("neither prompts nor rollouts were varied in the fitted runs")
    if len(plots) == 1:
        return plots[0]()
    _, axes = new_grid(len(plots), 1, (5.6, height))
    for ax, plot in zip(axes, plots, strict=True):
        plot(ax=ax)
    return axes[-1]


def _gradient_noise(fit: Fit) -> Axes:
    names = training.logged_noise(fit.sweep)[:_PANELS]
    return _stacked([partial(training.plot_gradient_noise, fit, variable=name) for name in names],
                    2.0)


def page_figures(fit: Fit, *, threshold: float | None = None,
                 advice: tuple[float, float] | None = None,
                 total_batch: int | None = None) -> Iterator[GalleryItem]:
    """Yield the figures of the page, a dozen at most, and last the map at every target.

    Parameters
    ----------
    fit : Fit
    threshold : float, optional
        The target of figures of one target; by default the middle one.
    advice : (n_prompts, n_rollouts), optional
        Marked on the map.
    total_batch : int, optional
        Samples whose splits are shown.
    """
    axes, at = axes_of(fit), partial(partial, threshold=threshold)
    phases = sorted(set(run_table(fit.sweep)["phase"]) - {""})[:_PANELS]

    def along(plot: Callable[..., Axes]) -> Callable[..., Axes]:
        return partial(_stacked, [partial(plot, fit, axis=axis) for axis in axes])

    yield item("map", at(map.plot_map, fit, advice=advice))
    yield item("gains", along(curves.plot_gains))
    for axis in axes:
        yield item(f"steps_{axis}", partial(curves.plot_steps, fit, axis=axis), "steps", axis=axis)
    if fit.law.learning_rate:
        yield item("learning_rate", at(map.plot_learning_rates, fit))
    yield item("split_choice", at(allocation.plot_split_choice, fit,
                                     total_batch=total_batch))
    yield item("front", at(allocation.plot_front, fit))
    yield item("training", partial(_stacked, [
        partial(training.plot_training_curves, fit, phase=phase) for phase in phases or [""]], 2.4))
    yield item("crossing_check", at(diagnostics.plot_crossing_check, fit))
    yield item("comparison", along(estimates.plot_comparison))
    yield item("cbs", along(estimates.plot_cbs_against_threshold))
    yield item("clock_map", at(map.plot_clock_map, fit))
    yield item("noise_against_fit", partial(estimates.plot_noise_against_fit, fit))
    main = one_threshold(fit, threshold)
    for level in [t for t in sorted(fit.thresholds.tolist()) if t != main][:_MAPS]:
        yield item(f"map_at_{level:g}", partial(map.plot_map, fit, threshold=level), "map")


def all_figures(fit: Fit, *, threshold: float | None = None,
                **options: Any) -> Iterator[GalleryItem]:
    """Yield every figure of a fit, those of the page first; parameters as `page_figures`.

    Yields
    ------
    GalleryItem
        ``(slug, title, caption, draw)``; slugs are unique and safe as file names.

    Examples
    --------
    >>> for slug, title, caption, draw in all_figures(fit):  # doctest: +SKIP
    ...     try:
    ...         figure = draw()
    ...     except CBSDataError as reason:
    ...         print(f"{title}: {reason}")
    """
    yield from page_figures(fit, threshold=threshold, **options)
    for axis in axes_of(fit):
        yield item(f"samples_{axis}", partial(curves.plot_samples, fit, axis=axis), "samples",
                    axis=axis)
    for slug, plot in (("run_effects", diagnostics.plot_run_effects),
                       ("laws", diagnostics.plot_law_comparison),
                       ("step_time", training.plot_step_time),
                       ("gradient_noise", _gradient_noise)):
        yield item(slug, partial(plot, fit))
    for slug, plot in (("prior_posterior", diagnostics.plot_prior_posterior),
                       ("time_cost", allocation.plot_time_cost)):
        yield item(slug, partial(plot, fit, threshold=threshold))


def item(slug: str, plot: Callable[[], Axes | Figure], text: str = "", **names: str,
          ) -> GalleryItem:
    """Return a figure with its texts in ``figures.toml``, by default those of its slug."""
    texts = tomllib.loads(_TEXTS.read_text(encoding="utf-8"))[text or slug]
    return GalleryItem(slug, texts["title"].format(**names), texts["caption"],
                       partial(draw_figure, plot))


def figure_bytes(figure: Figure, fmt: str = "svg", *, dpi: float = 160) -> bytes:
    """Return a figure as the bytes of one file; the same plot gives the same bytes.

    Parameters
    ----------
    figure : Figure
    fmt : {"svg", "pdf", "png"}
        PDF text is embedded as TrueType, so it prints and stays selectable.
    dpi : float
        Dots per inch of a PNG.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(buffer, format=fmt, dpi=dpi, metadata=_UNDATED.get(fmt),
                       transparent=fmt == "svg")
    if fmt != "svg":
        return buffer.getvalue()
    text = _PLACES.sub(lambda part: _TOO_LONG.sub("", part[0]), buffer.getvalue().decode())
    head, tag, rest = text.partition("<defs>")
    return f"{head}{_STYLE}\n {tag}{rest}".encode()


def draw_figure(plot: Callable[..., Axes | Figure], *args: Any, **kwargs: Any) -> Figure:
    """Return the whole figure that a plot function draws, unknown to pyplot."""
    with detached():
        drawn = plot(*args, **kwargs)
    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    assert figure is not None  # drawn into axes of its own
    return figure


def write_figure(figure: Figure, stem: Path, formats: Sequence[str] = ("svg", "pdf")) -> None:
    """Write a figure as ``STEM.svg`` and ``STEM.pdf``, each file whole or not at all."""
    for fmt in formats:
        write_whole(stem.with_name(f"{stem.name}.{fmt}"), figure_bytes(figure, fmt))
