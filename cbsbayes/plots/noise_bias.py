"""Why tr Σ / |ḡ|² cannot be trusted: both estimators against a known truth, by simulation."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from cbsbayes.errors import CBSDataError
from cbsbayes.noise.scale import Ratio, naive_expectation, ratio_of_means
from cbsbayes.plots.scales import log2_axis, plain_number
from cbsbayes.plots.style import BLACK, GREY, OKABE_ITO, legend_outside, new_axes, styled

__all__ = ["plot_noise_bias", "simulate_probes"]

_SAMPLES = tuple(2**i for i in range(6, 17))  # 64 … 65,536


def simulate_probes(
    b_simple: float,
    n_samples: int,
    n_probes: int,
    *,
    n_micro: int = 8,
    n_dims: int = 200,
    random_seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw what probes would log where the noise scale is known and |G|² = 1.

    K micro-batches of equally sized, independent Gaussian noise in all directions: their scatter
    is then exactly χ² and |ḡ|² exactly non-central χ².

    Parameters
    ----------
    b_simple : float
        True noise scale tr Σ / |G|², samples.
    n_samples : int
        Samples of all micro-batches together.
    n_probes : int
        Probes.
    n_micro : int
        Micro-batches K.
    n_dims : int
        Directions that carry noise.
    random_seed : int or Generator

    Returns
    -------
    tr_sigma, g_sq, gbar_sq : ndarray
        Dims (probe,): unbiased tr Σ, unbiased |G|², and |ḡ|².
    """
    rng = np.random.default_rng(random_seed)
    variance = b_simple / n_dims / n_samples  # of the mean gradient, per direction
    scatter = rng.chisquare(n_dims * (n_micro - 1), n_probes) / (n_micro - 1)
    tr_sigma = variance * scatter * n_samples
    gbar_sq = variance * rng.noncentral_chisquare(n_dims, 1 / variance, n_probes)
    return tr_sigma, gbar_sq - tr_sigma / n_samples, gbar_sq


@styled
def plot_noise_bias(*, ax: Axes | None = None, b_simple: float = 4096.0, n_probes: int = 50,
                    ci_prob: float = 0.9, random_seed: int = 0) -> Axes:
    """Plot the naive and the unbiased estimate of one known noise scale over the probe's batch.

    Everything in this figure is simulated, and says so. Below the noise scale the naive ratio
    follows the batch instead of the truth; the ratio of separate averages is right on average, and
    where it is not resolved an open triangle marks its lower bound.

    Parameters
    ----------
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    b_simple : float
        True noise scale, samples.
    n_probes : int
        Probes averaged in each point.
    ci_prob : float
        Probability of the intervals.
    random_seed : int

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the noise scale is not positive.
    """
    if not b_simple > 0:
        raise CBSDataError(f"b_simple is {b_simple:g}; a positive noise scale is needed")
    ax = new_axes(ax, (6.4, 4.0))
    batches = np.array(_SAMPLES, dtype=float)
    rng = np.random.default_rng(random_seed)
    naive, ours = np.empty(batches.size), []
    for i, n_samples in enumerate(_SAMPLES):
        above, below, biased = simulate_probes(b_simple, n_samples, n_probes, random_seed=rng)
        naive[i] = above.mean() / biased.mean()
        ours.append(ratio_of_means(above, below, ci_prob))
    ax.axhline(b_simple, color=BLACK, lw=1.0, label=f"Truth: {plain_number(b_simple)} samples",
               gid="truth")
    ax.plot(batches, naive_expectation(b_simple, batches), color=OKABE_ITO[1], lw=1.2, ls="--",
            label="B / (1 + B/bK), its expectation", gid="expectation")
    ax.plot(batches, naive, "s", ms=5, color=OKABE_ITO[1], label="tr Σ / |ḡ|², the naive ratio",
            gid="naive")
    _draw_ours(ax, batches, ours, ci_prob)
    _finish(ax, n_probes)
    return ax


def _draw_ours(ax: Axes, batches: np.ndarray, ours: list[Ratio], ci_prob: float) -> None:
    resolved = np.array([ratio.status == "resolved" for ratio in ours])
    estimate, lower, upper = (np.array([ratio[i] for ratio in ours]) for i in range(3))
    at = batches[resolved]
    bars = np.stack([estimate - lower, upper - estimate])[:, resolved]
    ax.errorbar(at, estimate[resolved], bars, fmt="o", ms=5, lw=1.2, color=OKABE_ITO[0],
                label=f"Average tr Σ / average |G|², {ci_prob:.0%}").lines[0].set_gid("ours")
    bounded = ~resolved & (lower > 0)
    if bounded.any():
        ax.plot(batches[bounded], lower[bounded], "^", ms=6, mfc="white", color=OKABE_ITO[0],
                label="Not resolved: at least this", gid="bound")


def _finish(ax: Axes, n_probes: int) -> None:
    log2_axis(ax, "xy")
    ax.set_xlabel("Samples in one probe (bK)")
    ax.set_ylabel("Noise scale (samples)")
    ax.set_title("Simulated: what two formulas make of one known noise scale")
    ax.text(0.99, 0.01, f"simulated gradients, {n_probes} probes per point", ha="right",
            va="bottom", transform=ax.transAxes, fontsize=7, color=GREY, gid="simulated")
    legend_outside(ax)
