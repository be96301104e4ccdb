"""S(B): updates to target against the batch, observed and fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from cbsbayes.plots.law_curve import draw_law_curves
from cbsbayes.plots.reading import steps_label
from cbsbayes.plots.slices import choose_slice
from cbsbayes.plots.style import new_axes, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_steps"]


@styled
def plot_steps(fit: Fit, *, ax: Axes | None = None,
               threshold: float | Sequence[float] | None = None, axis: str | None = None,
               n_prompts: int | None = None, n_rollouts: int | None = None) -> Axes:
    """Plot updates to target S against the batch, along one axis.

    Points with bars are observed crossings (between two evaluations); an open triangle
    points up where a run ended before the target, down where its first evaluation was past
    it. Lines and bands are the posterior of the law (median; 50 % and the fit's interval for
    one threshold, the interval alone for several), dashed is the least-squares curve, dotted
    S_min, and the bars at the bottom are the intervals of the critical batch size.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    threshold : float or sequence of float, optional
        Fitted thresholds to draw; by default all (six at most).
    axis : {"prompts", "rollouts", "total"}, optional
        Default: prompts, or total for one-axis data.
    n_prompts, n_rollouts : int, optional
        What to hold fixed; by default the value with most batches along the axis.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the axis was not varied or a threshold was not fitted.
    """
    cut = choose_slice(fit, axis, n_prompts=n_prompts, n_rollouts=n_rollouts)
    ax = new_axes(ax, (7.4, 4.2))
    draw_law_curves(fit, ax, cut, threshold, in_samples=False)
    ax.set_ylabel(f"S: {steps_label(fit)} to target")
    ax.set_title(f"How many updates the target takes · law {fit.law.name}")
    return ax
