"""Probes of gradient noise whose scale is known."""

from __future__ import annotations

import numpy as np


def simulate_probes(
    b_simple: float,
    n_samples: int,
    n_probes: int,
    *,
    n_micro: int = 8,
    n_dims: int = 200,
    random_seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw tr Σ, |G|² and |ḡ|², shape (probe,), where |G|² = 1 and the noise scale is known."""
    rng = np.random.default_rng(random_seed)
    variance = b_simple / n_dims / n_samples  # of the mean gradient, per direction
    scatter = rng.chisquare(n_dims * (n_micro - 1), n_probes) / (n_micro - 1)
    tr_sigma = variance * scatter * n_samples
    gbar_sq = variance * rng.noncentral_chisquare(n_dims, 1 / variance, n_probes)
    return tr_sigma, gbar_sq - tr_sigma / n_samples, gbar_sq
