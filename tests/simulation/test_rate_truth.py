"""The law of learning rates holds for simulated training whose noise grows along the way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from cbsbayes.models.laws import Tuning, get_law
from cbsbayes.simulation.truth import Truth, best_rate, true_steps

PROMPTS, ROLLOUTS, RATES = (x.ravel() for x in np.meshgrid(
    2.0 ** np.arange(5, 10), [4.0, 16.0], [3e-7, 1e-6, 2e-6]))  # the family rates_groups


def log_steps(z, prompts, rollouts, rates):
    log_s_min, log_prompt, log_rollout, log_best, alpha, gamma, log_m, log_k = z
    scales = {"B_prompt": np.exp(log_prompt), "B_rollout": np.exp(log_rollout)}
    return log_s_min + get_law("learning_rate").log_ratio(
        prompts, rollouts, scales, alpha,
        None if rates is None else Tuning(np.log(rates), log_best, gamma, np.exp(log_m),
                                          np.exp(log_k)))


@pytest.mark.parametrize("threshold", [0.60, 0.65, 0.70, 0.72])
def test_the_law_takes_noise_that_triples_along_training(threshold):
    """Fitted to the exact S of a whole grid, read at a group size that is not on it."""
    truth = Truth()
    exact = np.log(true_steps(truth, PROMPTS, ROLLOUTS, threshold, RATES))
    found = least_squares(lambda z: log_steps(z, PROMPTS, ROLLOUTS, RATES) - exact,
                          [4.0, 4.5, 6.0, np.log(1e-6), 1.0, 0.5, 0.0, 0.0]).x
    at_rate = log_steps(found, 128.0, 8.0, 1e-6)
    assert at_rate == pytest.approx(np.log(true_steps(truth, 128, 8, threshold, 1e-6)), abs=2e-3)
    best = np.log(best_rate(truth, 128, 8, threshold)[1])
    assert log_steps(found, 128.0, 8.0, None) == pytest.approx(best, abs=2e-3)
