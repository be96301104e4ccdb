"""E(B) = B · S(B): samples to target against the batch, observed and fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from cbsbayes.plots.law_curve import draw_law_curves
from cbsbayes.plots.slices import choose_slice
from cbsbayes.plots.style import new_axes, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_samples"]


@styled
def plot_samples(fit: Fit, *, ax: Axes | None = None,
                 threshold: float | Sequence[float] | None = None, axis: str | None = None,
                 n_prompts: int | None = None, n_rollouts: int | None = None) -> Axes:
    """Plot samples to target E = B · S against the batch, along one axis.

    Marks as in :func:`plot_steps`. Where E is flat, a larger batch costs nothing in samples;
    where it rises along the batch, the extra samples buy less and less.

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
    draw_law_curves(fit, ax, cut, threshold, in_samples=True)
    ax.set_ylabel("E = B · S: samples to target")
    ax.set_title(f"How many samples the target takes · law {fit.law.name}")
    return ax
