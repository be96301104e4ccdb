"""Time to the target over prompts and rollouts, with what it costs as contours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from cbsbayes.decisions.time_to_target import TYPICAL, Times, quantiles, times_of
from cbsbayes.errors import CBSDataError
from cbsbayes.plots.reading import default_threshold, threshold_label
from cbsbayes.plots.scales import plain_number, time_unit
from cbsbayes.plots.style import BLACK, OKABE_ITO, new_axes, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_clock_map"]

_CONTOURS = 5
_LINE = OKABE_ITO[1]
_DARK = 0.45  # of the colour scale, from which text is dark


@styled
def plot_clock_map(
    fit: Fit, *, ax: Axes | None = None, threshold: float | None = None,
    times: Times | None = None,
) -> Axes:
    """Plot the median time to the target of a typical run over prompts and rollouts.

    Each cell is a batch, with its time; a dot marks batches tried, hatching batches outside their
    range. Lines join equal GPU-hours, on the GPUs of the runs, or equal samples to the target
    where the number of GPUs is not known.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    threshold : float, optional
        By default the one with most observed crossings.
    times : Times, optional
        Of the whole grid; by default made here, without GPUs.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If runs have no step times, or give total batches only.
    """
    if (fit.crossings["n_prompts"].values < 0).any():
        raise CBSDataError("the runs give total batches only, so there is no map over prompts and "
                           "rollouts; the times are in the step-time figure and in times.csv")
    times = times_of(fit) if times is None else times
    level = default_threshold(fit) if threshold is None else threshold
    k = times.at(level)
    prompts, rollouts = (np.unique(times.batches[:, axis]) for axis in (0, 1))
    shape = (len(prompts), len(rollouts))
    hours = quantiles(times.hours[TYPICAL][:, k, :, 0], 0.5)[0].reshape(shape).T
    hours = np.where(np.isinf(hours), np.nan, hours)  # batches that never arrive
    per, unit = time_unit(3600 * float(np.nanmedian(hours)))
    ax = new_axes(ax, (1.6 + 0.8 * shape[0], 1.3 + 0.52 * shape[1]))
    mesh = ax.imshow(3600 * hours / per, origin="lower", aspect="auto", cmap="viridis_r",
                     norm=LogNorm())
    _cells(ax, times, mesh, 3600 * hours / per)
    _contours(ax, times, k, hours)
    for which, values in (("x", prompts), ("y", rollouts)):
        getattr(ax, f"set_{which}ticks")(range(len(values)), [plain_number(v) for v in values])
    ax.grid(False)
    ax.set_xlabel("Prompts per update")
    ax.set_ylabel("Rollouts per prompt")
    ax.set_title(f"Time to {threshold_label(fit.sweep, level)}, typical run ({unit})")
    bar = ax.figure.colorbar(mesh, ax=ax, label=unit, format=lambda v, _: plain_number(v))
    bar.ax.minorticks_off()
    return ax


def _cells(ax: Axes, times: Times, mesh: Any, values: np.ndarray) -> None:
    """Write every cell's time; hatch what is extrapolated, mark what was tried."""
    n_rollouts = values.shape[0]
    for b, where in enumerate(times.range):
        x, y = divmod(b, n_rollouts)
        arrives = np.isfinite(values[y, x])
        dark = arrives and float(mesh.norm(values[y, x])) >= _DARK
        colour = "white" if dark else BLACK
        if where == "extrapolated":
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="////", lw=0,
                                   edgecolor=colour, alpha=0.45, gid="extrapolated"))
        ax.text(x, y - 0.12, _short(values[y, x]) if arrives else "never", ha="center",
                va="center", color=colour, fontsize=7.5, zorder=4)
        if where == "tried":
            ax.plot(x, y + 0.27, "o", ms=4, color=colour, mec="none", zorder=4, gid="tried")


def _short(value: float) -> str:
    return plain_number(float(f"{value:.2g}"))


def _contours(ax: Axes, times: Times, k: int, hours: np.ndarray) -> None:
    """Draw lines of equal GPU-hours, or of equal samples, between the cells' centres."""
    if times.machine.gpus:
        cost, name = hours * times.machine.counts[0], "GPU-hours"
    else:
        samples = quantiles(times.samples(TYPICAL)[:, k], 0.5)[0]
        samples = np.where(np.isinf(samples), np.nan, samples)
        cost, name = samples.reshape(hours.shape[::-1]).T, "samples"
    lines = ax.contour(np.ma.masked_invalid(np.log(cost)), _CONTOURS, colors=_LINE, linewidths=1.0,
                       linestyles="solid", zorder=3)
    for level, parts in zip(lines.levels, lines.allsegs, strict=True):
        points = np.concatenate([(part[1:] + part[:-1]) / 2 for part in parts if len(part) > 1]
                                or [np.empty((0, 2))])
        if len(points):
            x, y = points[np.abs(points % 1 - 0.5).sum(axis=1).argmin()]  # near a cell's corner
            ax.text(x, y, f"{_short(float(np.exp(level)))} {name}", color=_LINE, fontsize=6.5,
                    ha="center", va="center", zorder=5,
                    bbox={"facecolor": "white", "alpha": 0.85, "lw": 0, "pad": 1.0})
