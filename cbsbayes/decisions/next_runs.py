"""Candidates ranked by information per price, and sets of runs chosen one after the other.

A second run is worth what it tells beyond the first: the simulated data of the runs chosen weight
the draws before a candidate is judged. Every chosen run gets random numbers of its own, so that two
runs of one batch are two runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cbsbayes.decisions.candidates import Candidate
from cbsbayes.decisions.information import (
    Information,
    expected_information,
    posterior_moments,
)
from cbsbayes.decisions.run_density import log_likelihood_matrix
from cbsbayes.decisions.simulated_runs import ModelDraws, cell_parameters, evaluations, run_data
from cbsbayes.posterior.predictive import Parameters

__all__ = ["Chosen", "Judge", "choose_set"]


@dataclass(frozen=True)
class Chosen:
    """One run of a set.

    Attributes
    ----------
    index : int
        Of the candidate.
    added : Information
        What it is expected to tell beyond those before it.
    together : Information
        What all up to it are expected to tell.
    """

    index: int
    added: Information
    together: Information


class Judge:
    """Simulates candidates' data once and weighs draws by them.

    Parameters
    ----------
    truths : ModelDraws
        Draws that data are simulated from, one data set each.
    draws : ModelDraws
        Other draws, which are weighted, in the sampler's order.
    scores : numpy.ndarray
        Normal scores of the quantity in `draws`, shape (draw,).
    every : float
        Updates between evaluations.
    seed : int
        Of all random numbers; candidates share them, which makes their differences less noisy.
    """

    def __init__(
        self, truths: ModelDraws, draws: ModelDraws, scores: np.ndarray, every: float, seed: int
    ) -> None:
        self.truths, self.draws, self.scores = truths, draws, scores
        self.every, self.seed = every, seed

    def weights(self, candidate: Candidate, replicate: int = 0) -> np.ndarray:
        """Return log p of simulated data of a run under every draw, shape (data, draw)."""
        at = evaluations(self.every, candidate.updates)
        if not at.size:
            return self.nothing().astype(np.float32)
        batch = (candidate.n_prompts, candidate.n_rollouts)
        data = run_data(self.truths, *batch, at, np.random.default_rng([self.seed, replicate]))
        cell = cell_parameters(self.draws, *batch)
        scaled = Parameters(cell.log_steps - data.log_steps_scale, cell.sigma_run, cell.sd,
                            cell.length)
        return log_likelihood_matrix(scaled, data).astype(np.float32)

    def all_weights(self, candidates: Sequence[Candidate]) -> list[np.ndarray]:
        """Return `weights` of every candidate; the kernel runs on all cores."""
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            return list(pool.map(self.weights, candidates))

    def nothing(self) -> np.ndarray:
        """Return the weights of no data."""
        return np.zeros((self.truths.size, len(self.scores)))

    def added(self, known: np.ndarray, weights: np.ndarray) -> Information:
        """Return what data tell beyond what is known, both log weights of shape (data, draw)."""
        return expected_information(posterior_moments(known, self.scores),
                                    posterior_moments(known + weights, self.scores))

    def judged(self, known: np.ndarray, all_weights: Sequence[np.ndarray]) -> list[Information]:
        """Return `added` of every candidate."""
        before = posterior_moments(known, self.scores)

        def one(weights: np.ndarray) -> Information:
            return expected_information(before, posterior_moments(known + weights, self.scores))

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            return list(pool.map(one, all_weights))


def choose_set(
    judge: Judge, candidates: Sequence[Candidate], all_weights: Sequence[np.ndarray], *,
    runs: int, budget: float, first: Sequence[Information] | None = None,
) -> list[Chosen]:
    """Return runs within a budget, each the best beyond those before it.

    Two greedy sets are made, one by information per price and one by information alone; the one
    that tells more together is returned. The first alone may leave most of the budget unspent, the
    second may spend it on one dear run. Without a budget only the first is. A candidate whose
    information is lost in its Monte Carlo error is taken only where all are.

    Parameters
    ----------
    judge : Judge
        What weighs.
    candidates, all_weights : sequence
        The runs to choose from and their weights.
    runs : int
        At most so many.
    budget : float
        At most so much in all; may be infinite.
    first : sequence of Information, optional
        Of the candidates, where they were judged already.
    """
    first = first or judge.judged(judge.nothing(), all_weights)
    rules = (True, False) if runs > 1 and np.isfinite(budget) else (True,)
    sets = [_greedy(judge, candidates, all_weights, first, runs, budget, per_price)
            for per_price in rules]
    return max(sets, key=lambda chosen: chosen[-1].together.nats if chosen else -np.inf)


def _greedy(
    judge: Judge, candidates: Sequence[Candidate], all_weights: Sequence[np.ndarray],
    first: Sequence[Information], runs: int, budget: float, per_price: bool,
) -> list[Chosen]:
    prices = np.array([candidate.cost for candidate in candidates])
    known, left, gains = judge.nothing(), budget, first
    chosen: list[Chosen] = []
    while len(chosen) < runs:
        affordable = prices <= left * (1 + 1e-9)
        if not affordable.any():
            break
        values = np.array([gain.nats for gain in gains]) / (prices if per_price else 1.0)
        clear = affordable & np.array([gain.resolved for gain in gains])
        best = int(np.where(clear if clear.any() else affordable, values, -np.inf).argmax())
        # its own data, independent of those all candidates were judged by
        known = known + judge.weights(candidates[best], replicate=len(chosen) + 1)
        chosen.append(Chosen(best, gains[best], judge.added(judge.nothing(), known)))
        left -= prices[best]
        if len(chosen) < runs:
            gains = judge.judged(known, all_weights)
    return chosen
