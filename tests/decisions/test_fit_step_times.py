"""The step-time model sampled: recovery, slow runs, form, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from timed_tables import CELLS, NAMES, TRUTH, table, terms

from cbsbayes.decisions.step_times import fit_step_times


def interval(draws, prob=0.9):
    return np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2], axis=0)


def coefficient(found, name):
    return found.draws[name].values.ravel()


@pytest.fixture(scope="module")
def found():
    return fit_step_times(*table(np.random.default_rng(0), sigma=0.05), NAMES)


def test_known_coefficients_are_recovered(found):
    for name, true in zip(NAMES, TRUTH, strict=True):
        low, high = interval(coefficient(found, name), 0.98)
        assert low < true < high
    assert (found.table(0.9)["r_hat"] < 1.01).all()
    assert float(found.draws["sigma_time"].median()) == pytest.approx(0.05, rel=0.35)
    predicted = np.median(found.population(terms(CELLS)), axis=0)
    np.testing.assert_allclose(predicted, terms(CELLS) @ TRUTH, rtol=0.06)


def test_slow_runs_pull_the_terms_less_than_they_pull_their_mean():
    rng = np.random.default_rng(2)
    seconds, rows = table(rng, sigma=0.03)
    slow = seconds * np.where(rng.random(len(seconds)) < 0.12, 3.0, 1.0)
    assert 2 <= (slow > seconds).sum() <= 5
    clean, robust = (np.median(fit_step_times(y, rows, NAMES).population(terms(CELLS)), axis=0)
                     for y in (seconds, slow))
    assert np.abs(np.log(robust / clean)).max() < 0.06 < np.log(slow.mean() / seconds.mean())


def test_a_cost_of_nothing_is_near_nothing_and_open_below():
    seconds, rows = table(np.random.default_rng(3), truth=np.array([20.0, 0.0, 0.2]))
    low, high = interval(coefficient(fit_step_times(seconds, rows, NAMES), "c_p"))
    assert 0 < low < 0.15 * high < 0.3


def test_floor_and_work_that_overlap_are_told_from_their_sum():
    cells = np.array([(2.0**k, 8.0) for k in range(2, 13)])
    truth = np.maximum(20.0, 0.02 * cells.prod(axis=1))
    noise = np.exp(0.02 * np.random.default_rng(4).normal(size=len(cells) * 3))
    found = fit_step_times(np.repeat(truth, 3) * noise,
                           np.repeat(terms(cells)[:, [0, 2]], 3, axis=0), ("t_0", "c_b"))
    assert interval(coefficient(found, "kappa"))[1] < 0.4
    assert np.median(coefficient(found, "t_0")) == pytest.approx(20, rel=0.03)


@pytest.mark.mcmc
def test_intervals_hold_the_truth_as_often_as_they_say():
    """40 tables of 27 runs: shares within four Monte Carlo errors of .9."""
    held = {"coefficients": [], "population": [], "new": []}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = fit_step_times(*table(rng), NAMES, random_seed=seed)
        population, true = found.population(terms(CELLS)), terms(CELLS) @ TRUTH
        coefficients = np.stack([coefficient(found, name) for name in NAMES], axis=1)
        new = population * np.exp(found.deviation(len(CELLS), rng))
        for name, draws, value in (
                ("coefficients", coefficients, TRUTH), ("population", population, true),
                ("new", new, true * np.exp(0.1 * rng.normal(size=len(true))))):
            low, high = interval(draws)
            held[name].append(((low <= value) & (value <= high)).mean())
    for name, shares in held.items():
        error = np.std(shares, ddof=1) / np.sqrt(len(shares))
        assert error < 0.05, name
        assert abs(np.mean(shares) - 0.9) < 4 * error, (name, np.mean(shares), error)
