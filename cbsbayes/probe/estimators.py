r"""Noise statistics from inner products of gradients (pure numerics).

Let x_pr be what rollout r of prompt p adds to the batch gradient, scaled so that the batch
gradient is their mean: under verl's ``token-mean`` x_pr = (n / T) ∇ Σ_t loss_prt with n rollouts
and T tokens in the batch. The two-level model is

    E x_pr = G,   Var(E[x_pr | p]) = Σ_between,   E Var(x_pr | p) = Σ_within,

so a prompt group of R rollouts has Var(x̄_p) = V = Σ_between + Σ_within / R. Every statistic here
is an unbiased sum over distinct prompts or distinct rollouts (U-statistic):

    |G|² = mean of x̄_p · x̄_q over p ≠ q
    V = mean of |x̄_p|² − |G|²
    tr Σ_within = mean of |x̄_p0 − x̄_p1|² / (1/r0 + 1/r1), x̄_p0 and x̄_p1 the means of two halves
    tr Σ_between = V − tr Σ_within / R = mean of x̄_p0 · x̄_p1 − |G|² for equal halves

The last line is the 2 × 2 prompt/rollout split (products of gradients that share the prompt less
products that share nothing), averaged over all pairs of prompts instead of one pair of halves.
Gradients of several prompts together ("units") give the same expectations with more scatter.

The whole group's advantages are used in both halves, as verl trains with them, so the rollouts of
a group are not independent and the split is biased; |G|² and V are not. With rewards of 0 and 1
over their standard deviation tr Σ_between + |G|² comes out as f times its value: f = 2 exactly for
R = 2; for R ≥ 4 and a prompt solved with probability p, f falls from about 1 at p = 1/2 (at most
1.09 for R = 4, 1.01 from 6 on) to (R + 2) / (2 (R − 1)) as p → 0 or 1, where most groups carry no
signal: 1, 0.71, 0.6, 0.5 for R = 4, 8, 16, ∞. What is too much or missing there is missing or too
much in tr Σ_within, R times as large.

|ḡ|² itself, the denominator of the usual formula, estimates |G|² + V/P. Where the numbers of
tokens differ, using T instead of a group's own tokens adds a relative var(T_p)/mean(T_p)² · |G|²/V.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["HalfSums", "pair_estimates", "split_estimates"]


@dataclass(frozen=True)
class HalfSums:
    """Inner products of the summed contributions of every unit's two rollout halves.

    Attributes
    ----------
    prompts : np.ndarray
        dims (unit): prompt groups in the unit.
    squares : np.ndarray
        dims (unit, half): |X_0|², |X_1|² with X_h the sum of x over the half's rollouts.
    products : np.ndarray
        dims (unit): X_0 · X_1.
    total_square : float
        |Σ X|² over all units and halves.
    half_rollouts : tuple of int
        Rollouts per prompt in either half; the second is 0 where a prompt has one rollout.
    """

    prompts: np.ndarray
    squares: np.ndarray
    products: np.ndarray
    total_square: float
    half_rollouts: tuple[int, int]


def pair_estimates(total_square: float, squares: np.ndarray,
                   prompts: np.ndarray) -> tuple[float, float]:
    """Estimate |G|² and the covariance trace V of one prompt's mean gradient.

    Parameters
    ----------
    total_square : float
        Squared norm of the sum of all prompts' mean gradients.
    squares : np.ndarray
        dims (set): squared norm of the sum over a set's prompts.
    prompts : np.ndarray
        dims (set): prompts in the set.

    Returns
    -------
    tuple of float
        |G|² (may be negative, it is unbiased) and V, squared gradient units; NaN from one set.
    """
    count, same = float(prompts.sum()), float(np.square(prompts).sum())
    if len(prompts) < 2:
        return np.nan, np.nan
    signal = (total_square - squares.sum()) / (count**2 - same)
    return float(signal), float((squares.sum() - same * signal) / count)


def split_estimates(sums: HalfSums) -> dict[str, float]:
    """Estimate signal and noise, the noise split into prompts and rollouts.

    Parameters
    ----------
    sums : HalfSums
        Inner products over the batch.

    Returns
    -------
    dict
        ``gbar_sq`` |ḡ|²; ``g_sq`` unbiased |G|²; ``tr_sigma`` tr Σ per sample (R · V), so that
        B_simple = tr_sigma / g_sq in samples; ``tr_between`` per prompt and ``tr_within`` per
        rollout. NaN where a batch cannot tell: one unit, or one rollout per prompt.
    """
    r0, r1 = sums.half_rollouts
    rollouts, count = r0 + r1, float(sums.prompts.sum())
    squares = (sums.squares.sum(axis=1) + 2 * sums.products) / rollouts**2
    total = sums.total_square / rollouts**2
    signal, variance = pair_estimates(total, squares, sums.prompts)
    within = np.nan
    if r1:
        differences = (sums.squares[:, 0] / r0**2 + sums.squares[:, 1] / r1**2
                       - 2 * sums.products / (r0 * r1))
        within = float(differences.sum() / (count * (1 / r0 + 1 / r1)))
    return {"gbar_sq": total / count**2, "g_sq": signal, "tr_sigma": rollouts * variance,
            "tr_between": variance - within / rollouts, "tr_within": within}
