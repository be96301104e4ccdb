"""Every figure of a fit in reading order, each with a title and how to read it.

The dozen of the page come first: the map, what doubling buys, curves, splits, and whether all this
is to be trusted; the others are for those who ask. Titles and captions stand in ``figures.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.errors import CBSDataError
from cbsbayes.plots import allocation, checks, curves, diagnostics, estimates, map, noise, timing
from cbsbayes.plots.cuts import axes_of
from cbsbayes.plots.files import draw_figure
from cbsbayes.plots.reading import run_table
from cbsbayes.plots.style import new_grid, styled
from cbsbayes.plots.training import plot_training_curves

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["GalleryItem", "all_figures", "page_figures"]

_PANELS = 6  # of one figure at most
_TEXTS = Path(__file__).with_name("figures.toml")


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
    names = noise.logged_noise(fit.sweep)[:_PANELS]
    return _stacked([partial(noise.plot_gradient_noise, fit, variable=name) for name in names], 2.0)


def page_figures(fit: Fit, *, threshold: float | None = None,
                 advice: tuple[float, float] | None = None) -> Iterator[GalleryItem]:
    """Yield the figures of the page, a dozen at most, in reading order.

    Parameters
    ----------
    fit : Fit
    threshold : float, optional
        The target of figures of one target; by default the middle one.
    advice : (n_prompts, n_rollouts), optional
        Marked on the map.
    """
    axes = axes_of(fit)
    phases = sorted(set(run_table(fit.sweep)["phase"].astype(str)) - {""})[:_PANELS]

    def along(plot: Callable[..., Axes]) -> Callable[..., Axes]:
        return partial(_stacked, [partial(plot, fit, axis=axis) for axis in axes])

    def at_target(plot: Callable[..., Axes | Figure], **options: Any) -> Callable[..., Any]:
        return partial(plot, fit, threshold=threshold, **options)

    yield _item("map", at_target(map.plot_map, advice=advice))
    yield _item("gains", along(curves.plot_gains))
    for axis in axes:
        pair = [partial(plot, fit, axis=axis) for plot in (curves.plot_steps, curves.plot_samples)]
        yield _item(f"steps_{axis}", partial(_stacked, pair), "steps", axis=axis)
    yield _item("split_choice", at_target(allocation.plot_split_choice))
    yield _item("front", at_target(allocation.plot_front))
    yield _item("training", partial(_stacked, [partial(plot_training_curves, fit, phase=phase)
                                               for phase in phases or [""]], 2.4))
    yield _item("crossing_check", at_target(checks.plot_crossing_check))
    yield _item("comparison", along(estimates.plot_comparison))
    yield _item("cbs", along(estimates.plot_cbs_against_threshold))
    yield _item("clock_map", at_target(map.plot_clock_map))
    yield _item("noise_against_fit", partial(noise.plot_noise_against_fit, fit))


def all_figures(fit: Fit, *, threshold: float | None = None,
                advice: tuple[float, float] | None = None) -> Iterator[GalleryItem]:
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
    yield from page_figures(fit, threshold=threshold, advice=advice)
    yield _item("run_effects", partial(diagnostics.plot_run_effects, fit))
    yield _item("laws", partial(diagnostics.plot_law_comparison, fit))
    yield _item("prior_posterior", partial(diagnostics.plot_prior_posterior, fit,
                                           threshold=threshold))
    yield _item("time_cost", partial(allocation.plot_time_cost, fit, threshold=threshold))
    yield _item("step_time", partial(timing.plot_step_time, fit))
    yield _item("gradient_noise", partial(_gradient_noise, fit))
    yield _item("convergence", partial(diagnostics.plot_convergence, fit))
    yield _item("ranks", partial(diagnostics.plot_ranks, fit, threshold=threshold))
    yield _item("trace", partial(diagnostics.plot_trace, fit, threshold=threshold))
    yield _item("energy", partial(diagnostics.plot_energy, fit))


def _item(slug: str, plot: Callable[[], Axes | Figure], text: str = "", **names: str,
          ) -> GalleryItem:
    """Return a figure with its texts, by default those of its slug."""
    texts = tomllib.loads(_TEXTS.read_text(encoding="utf-8"))[text or slug]
    return GalleryItem(slug, texts["title"].format(**names), texts["caption"],
                       partial(draw_figure, plot))
