"""Every figure of a fit in reading order, each with a title and how to read it.

What leans least on the form of the law comes first: what doubling buys, then S(B), then the
critical batch size, then whether sampling worked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.cbs import plot_cbs_against_threshold
from cbsbayes.plots.clock_map import plot_clock_map
from cbsbayes.plots.comparison import plot_comparison
from cbsbayes.plots.diagnostics import (
    plot_convergence,
    plot_energy,
    plot_ranks,
    plot_trace,
)
from cbsbayes.plots.files import figure_files
from cbsbayes.plots.front import plot_front
from cbsbayes.plots.gains import plot_gains
from cbsbayes.plots.gradient_noise import plot_gradient_noise_grid
from cbsbayes.plots.iso_batch import plot_iso_batch, plot_iso_batch_steps
from cbsbayes.plots.laws import plot_law_comparison
from cbsbayes.plots.noise_against_fit import plot_noise_against_fit
from cbsbayes.plots.noise_joint import plot_noise_joint
from cbsbayes.plots.predictive import plot_crossing_check
from cbsbayes.plots.prior_posterior import plot_prior_posterior
from cbsbayes.plots.reading import run_table
from cbsbayes.plots.run_effects import plot_run_effects
from cbsbayes.plots.samples import plot_samples
from cbsbayes.plots.split_choice import plot_split_choice
from cbsbayes.plots.steps import plot_steps
from cbsbayes.plots.style import detached, visible_text
from cbsbayes.plots.time_cost import plot_time_cost
from cbsbayes.plots.training import plot_training_phase
from cbsbayes.plots.wall_clock import plot_step_time, plot_wall_clock
from cbsbayes.sweep.files import write_whole

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["FORMATS", "GalleryItem", "all_figures", "write_figures"]

FORMATS = ("png", "pdf")

_ALONG = {"prompts": "prompts", "rollouts": "rollouts", "total": "the total batch"}


class GalleryItem(NamedTuple):
    """One figure: a name for its file, a title, how to read it, and how to draw it.

    `draw` returns the figure, or raises `CBSDataError` whose one line says why this fit has
    no such figure (nothing logged, an axis not varied); that line is the reason to show.
    """

    slug: str
    title: str
    caption: str
    draw: Callable[[], Figure]


def write_figures(
    fit: Fit, folder: Path, formats: Sequence[str] = FORMATS
) -> list[tuple[GalleryItem, str]]:
    """Draw every figure into a folder and return each with the reason why it is not there, or ''.

    Parameters
    ----------
    fit : Fit
    folder : Path
        Made where it does not exist.
    formats : sequence of {"png", "svg", "pdf"}
        Files of each figure.
    """
    folder.mkdir(exist_ok=True)
    return [(item, _write(item, folder, formats)) for item in all_figures(fit)]


def _write(item: GalleryItem, folder: Path, formats: Sequence[str]) -> str:
    try:
        figure = item.draw()
    except CBSDataError as error:
        return str(error)
    for fmt, content in figure_files(figure, formats).items():
        write_whole(folder / f"{item.slug}.{fmt}", content)
    return ""


def _draw(plot: Callable[..., Axes | Figure], *args: Any, **kwargs: Any) -> Figure:
    with detached():
        drawn = plot(*args, **kwargs)
    figure = drawn if isinstance(drawn, Figure) else drawn.figure
    assert isinstance(figure, Figure)  # a new one, never a part of another
    return figure


def _item(slug: str, title: str, caption: str, plot: Callable[..., Axes | Figure], *args: Any,
          **kwargs: Any) -> GalleryItem:
    return GalleryItem(slug, title, caption, partial(_draw, plot, *args, **kwargs))


def _axes_of(fit: Fit) -> tuple[str, ...]:
    one_axis = (run_table(fit.crossings)["n_prompts"] <= 0).all()
    return ("total",) if one_axis else ("prompts", "rollouts", "total")


def _per_axis(fit: Fit, slug: str, title: str, caption: str,
              plot: Callable[..., Axes | Figure]) -> Iterator[GalleryItem]:
    for axis in _axes_of(fit):
        yield _item(f"{slug}_{axis}", title.format(_ALONG[axis]), caption, plot, fit, axis=axis)


def _scaling(fit: Fit) -> Iterator[GalleryItem]:
    yield from _per_axis(
        fit, "gains", "What doubling {} buys",
        "Updates to the target after doubling, over updates before: at 1 doubling buys nothing, "
        "at 0.5 it halves the updates. Points are batches that were tried; bars and bands are "
        "posterior intervals. Of all results this leans least on the form of the law.",
        plot_gains)
    yield from _per_axis(
        fit, "steps", "Updates to target along {}",
        "Points are observed crossings, with a bar where evaluations left a gap; open triangles "
        "point up where a run ended before the target and down where its first evaluation was "
        "already past it. Lines and bands are the posterior, dashed is least squares, dotted "
        "S_min; bars at the bottom are intervals of the critical batch size, pale where only a "
        "bound is known.", plot_steps)
    yield from _per_axis(
        fit, "samples", "Samples to target along {}",
        "The same in samples, E = B · S. Where the curve is flat a larger batch costs no extra "
        "samples; where it rises, extra samples buy fewer updates saved.", plot_samples)


def _critical(fit: Fit) -> Iterator[GalleryItem]:
    yield from _per_axis(
        fit, "cbs", "Critical batch size along {}",
        "The batch at which the target takes twice the least number of updates, at every "
        "threshold. Filled points are the main law, open ones the laws fitted beside it. An "
        "arrow is a bound: the data say only that the value lies beyond it; a dotted bar is not "
        "identified.", plot_cbs_against_threshold)
    yield from _per_axis(
        fit, "comparison", "Least squares and posterior along {}",
        "B_noise by method. Plain least squares drops runs that never cross and has no "
        "interval; an arrowhead at the edge goes on to zero or to infinity.", plot_comparison)
    yield _item(
        "laws", "Which law predicts runs it has not seen",
        "Difference in expected log predictive density of left-out runs to the best law, with "
        "its standard error; further left is worse, and a few standard errors are needed to "
        "tell laws apart.", plot_law_comparison, fit)


def _splits(fit: Fit) -> Iterator[GalleryItem]:
    yield _item(
        "iso_batch", "One batch, split differently: training curves",
        "Runs with the same number of samples per update, split between prompts and rollouts. "
        "One rollout per prompt is dotted: it is another estimator.", plot_iso_batch, fit)
    yield _item(
        "iso_batch_steps", "One batch, split differently: updates to target",
        "Posterior of the updates each split takes, with what was observed; the bar at the "
        "bottom is the interval of the best split.", plot_iso_batch_steps, fit)
    yield _item(
        "split_choice", "Which split is the best, and what another costs",
        "Above: the probability that a split takes the fewest updates, and that it loses at most "
        "5 %. Below: its updates over those of the best split, mean and interval. Hatched bars "
        "and open points lie outside the range tried.", plot_split_choice, fit)
    yield _item(
        "front", "Updates against samples",
        "Batches tried, filled where they are on the front of updates and samples with a "
        "probability of one half and more; the number is that probability. The band is the front "
        "that one group size gives over prompts.", plot_front, fit)


def _phases(fit: Fit) -> list[str | None]:
    """Return the phases that are named; None stands for all runs where none is."""
    names = sorted(set(run_table(fit.sweep)["phase"].astype(str)) - {""})
    return list(names) or [None]


def _training(fit: Fit) -> Iterator[GalleryItem]:
    for i, phase in enumerate(_phases(fit)):
        word = re.sub(r"[^a-z0-9]+", "_", (phase or "all").lower()).strip("_")
        title = "Training curves" + (f", phase {visible_text(phase)}" if phase else "")
        yield _item(
            f"training_{i + 1}_{word}".rstrip("_"), title,
            "Validation accuracy against updates and against samples. Thin lines are seeds, "
            "thick ones their mean, dotted ones have one rollout per prompt; grey lines are the "
            "thresholds.", plot_training_phase, fit, phase)
    yield _item(
        "noise_against_fit", "Gradient noise, measured and fitted",
        "Black is measured, colours are fitted under each law, all averaged over progress from the "
        "start up to the target. An arrow is a bound: the measurement's denominator is not told "
        "from zero, or the batches tried do not settle the scale.", plot_noise_against_fit, fit)
    if getattr(fit, "noise_joint", None) is not None:
        yield _item(
            "noise_against_fit_joint", "Updates to target with and without measured noise as data",
            "Intervals of one new run at batches around those tried, at the hardest target; open "
            "marks are batches that were not run.", plot_noise_joint, fit)
    yield _item(
        "gradient_noise", "Gradient noise over training",
        "What the runs logged about gradient noise, coloured by total batch. A measured noise "
        "scale equals the fitted one in order of magnitude only.", plot_gradient_noise_grid, fit)
    yield _item(
        "wall_clock", "Time to target",
        "Posterior updates to the target times the seconds per update, at every batch tried; "
        "black marks are observed. The lowest batch is the fastest on this machine.",
        plot_wall_clock, fit)
    yield _item(
        "clock_map", "Time to target over prompts and rollouts",
        "Median for a typical run, from the fitted updates and the fitted step time. Dots mark "
        "batches tried, hatching those outside their range; lines join equal samples.",
        plot_clock_map, fit)
    yield _item(
        "time_cost", "Time against samples to target",
        "Open points are extrapolated. The band is the least time that so many samples allow, "
        "over batches inside the range tried.", plot_time_cost, fit)
    yield _item(
        "step_time", "Time per step",
        "Seconds per trainer step of every run; lines and bands are the step-time model, a "
        "typical run.", plot_step_time, fit)


def _checks(fit: Fit) -> Iterator[GalleryItem]:
    yield _item(
        "crossing_check", "Does the fit cover what was observed",
        "Bars are crossings replicated from the posterior, black marks the observed ones. The "
        "title says what share of the observations lies inside; much less than the nominal "
        "share means that the model does not fit.", plot_crossing_check, fit)
    yield _item(
        "run_effects", "Which runs were slower or faster than the law",
        "Every run's effect on log S; the stripes are one and two sigma_run. A run far outside "
        "is named and worth a look; one phase all on one side means that the law does not fit.",
        plot_run_effects, fit)
    yield _item(
        "prior_posterior", "What the data taught",
        "Prior and posterior density of each quantity. A posterior as wide as its prior was not "
        "taught by the data.", plot_prior_posterior, fit)
    yield _item(
        "convergence", "Did the chains converge",
        "Every quantity in the table by r_hat and effective draws; points above the upper line "
        "or left of the upright one are past a limit.", plot_convergence, fit)
    yield _item("ranks", "Ranks of the draws by chain",
                "One histogram per chain; all flat, inside the grey band, is good.",
                plot_ranks, fit)
    yield _item("trace", "Draws in order",
                "The chains lie over each other and do not drift.", plot_trace, fit)
    yield _item("energy", "Energy of the sampler",
                "The two histograms have about the same width; an E-BFMI below .3 means that "
                "the tails were not reached.", plot_energy, fit)


def all_figures(fit: Fit) -> Iterator[GalleryItem]:
    """Yield every figure of a fit, in reading order, drawn only when asked.

    Figures this fit cannot have are yielded too: calling their `draw` raises `CBSDataError`
    with the reason. Figures are detached from pyplot, so none has to be closed.

    Parameters
    ----------
    fit : Fit

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
    for part in (_scaling, _critical, _splits, _training, _checks):
        yield from part(fit)
