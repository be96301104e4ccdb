"""The step-time model: recovery, slow runs, form, coverage, and rows that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from timed_tables import CELLS, NAMES, TRUTH, table, terms

from cbsbayes.errors import CBSDataError
from cbsbayes.models import step_time as model
from cbsbayes.models.step_time import fit_times


def interval(draws, prob=0.9):
    return np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2], axis=0)


@pytest.fixture(scope="module")
def clock():
    return fit_times(*table(np.random.default_rng(0), sigma=0.05), NAMES)


def test_known_coefficients_are_recovered(clock):
    low, high = interval(clock.coefficients, 0.98)
    assert clock.trusted
    assert ((low < TRUTH) & (high > TRUTH)).all()
    assert high[2] / low[2] < 1.6  # the cost of a sample, which dominates
    np.testing.assert_allclose(np.median(clock.sigma), 0.05, rtol=0.35)
    predicted = np.median(clock.typical(terms(CELLS)), axis=0)
    np.testing.assert_allclose(predicted, terms(CELLS) @ TRUTH, rtol=0.06)


def test_times_have_no_unit(clock):
    seconds, rows = table(np.random.default_rng(0), sigma=0.05)
    in_hours = fit_times(seconds / 3600, rows * [1, 10, 10], NAMES)
    again = 3600 * in_hours.coefficients * [1, 10, 10]
    np.testing.assert_allclose(interval(again)[:, [0, 2]], interval(clock.coefficients)[:, [0, 2]],
                               rtol=0.06)
    np.testing.assert_allclose(np.median(in_hours.sigma), np.median(clock.sigma), rtol=0.05)


def test_slow_runs_pull_the_terms_less_than_they_pull_their_mean():
    rng = np.random.default_rng(2)
    seconds, rows = table(rng, sigma=0.03)
    slow = seconds * np.where(rng.random(len(seconds)) < 0.12, 3.0, 1.0)
    assert 2 <= (slow > seconds).sum() <= 5
    clean, robust = (np.median(fit_times(y, rows, NAMES).typical(terms(CELLS)), axis=0)
                     for y in (seconds, slow))
    off = np.abs(np.log(robust / clean)).max()
    mean = np.log(slow.mean() / seconds.mean())
    assert off < 0.06 < mean


def test_a_cost_of_nothing_is_near_nothing_and_open_below():
    seconds, rows = table(np.random.default_rng(3), truth=np.array([20.0, 0.0, 0.2]))
    clock = fit_times(seconds, rows, NAMES)
    assert clock.coefficients.min() > 0
    low, high = interval(clock.coefficients[:, 1])
    assert low < 0.15 * high < 0.3


def test_floor_and_work_that_overlap_are_told_from_their_sum():
    cells = np.array([(2.0**k, 8.0) for k in range(2, 13)])
    truth = np.maximum(20.0, 0.02 * cells.prod(axis=1))
    noise = np.exp(0.02 * np.random.default_rng(4).normal(size=len(cells) * 3))
    clock = fit_times(np.repeat(truth, 3) * noise, np.repeat(terms(cells)[:, [0, 2]], 3, axis=0),
                      ("t_0", "c_b"))
    assert interval(clock.kappa)[1] < 0.4
    assert np.median(clock.coefficients[:, 0]) == pytest.approx(20, rel=0.03)


def test_the_plain_sum_can_be_asked_for():
    seconds, rows = table(np.random.default_rng(5))
    clock = fit_times(seconds, rows, NAMES, overlap=False)
    assert (clock.kappa == 1).all()
    np.testing.assert_allclose(clock.typical(rows), clock.coefficients @ rows.T)


def test_a_weight_counts_rows():
    seconds, rows = table(np.random.default_rng(6), seeds=1)
    weights = np.arange(len(seconds)) % 3 + 1.0
    counts = weights.astype(int)
    scale = rows / 10.0
    weighted = model._Posterior(np.log(seconds), scale, weights, 1, True)
    again, rows_again = (np.repeat(v, counts, axis=0) for v in (np.log(seconds), scale))
    repeated = model._Posterior(again, rows_again, np.ones(counts.sum()), 1, True)
    at = weighted.start(np.random.default_rng(0))
    np.testing.assert_allclose(weighted(at), repeated(at))


def test_one_new_run_is_wider_than_a_typical_one(clock):
    typical = interval(clock.typical(terms(CELLS)))
    new = interval(clock.new(terms(CELLS), np.random.default_rng(0)))
    assert (np.log(new[1] / new[0]) > 1.5 * np.log(typical[1] / typical[0])).all()


def test_rows_without_any_spread_are_fitted():
    _, rows = table(np.random.default_rng(7))
    clock = fit_times(rows @ TRUTH, rows, NAMES)
    np.testing.assert_allclose(np.median(clock.typical(rows), axis=0), rows @ TRUTH, rtol=0.01)
    assert np.median(clock.sigma) < 0.01


def test_one_axis_leaves_its_split_open_and_its_line_known():
    cells = np.array([(p, 8.0) for p in (16, 32, 64, 128)])
    seconds, rows = table(np.random.default_rng(8), cells=cells, sigma=0.03)
    clock = fit_times(seconds, rows, NAMES)
    on, off = (interval(clock.typical(terms(np.array([[64.0, g]])))) for g in (8, 32))
    assert on[1] / on[0] < 1.15
    assert off[1] / off[0] > 2
    for k, (rate, low, high) in enumerate([(0.5 + 8 * 0.1, *interval(clock.coefficients[:, 1])),
                                           (0.1 + 0.5 / 8, *interval(clock.coefficients[:, 2]))]):
        assert low < 0.2 * rate, k
        assert 0.8 * rate < high < 1.4 * rate, k


@pytest.mark.parametrize(("change", "message"), [
    ({"seconds": [1.0, 2.0]}, "2 step times are too few"),
    ({"seconds": [1.0, -2.0, 3.0]}, "a step time is -2; valid: finite and positive"),
    ({"seconds": [1.0, np.nan, 3.0]}, "a step time is nan"),
    ({"terms": [[1, -1], [1, 2], [1, 3]]}, "a term is -1; valid: finite and not negative"),
    ({"terms": [[1, 0], [1, 0], [1, 0]]}, "the term of c_b is 0 in every row; leave it out"),
    ({"weights": [1.0, 0.0, 1.0]}, "a weight is 0"),
    ({"weights": [1.0]}, "weights"),
])
def test_rows_that_cannot_be_are_refused(change, message):
    given = {"seconds": [1.0, 2.0, 3.0], "terms": [[1, 1], [1, 2], [1, 3]], "weights": None}
    given |= change
    rows = given["terms"][:len(given["seconds"])]
    with pytest.raises(CBSDataError, match=message):
        fit_times(np.array(given["seconds"]), np.array(rows, dtype=float), ("t_0", "c_b"),
                  weights=given["weights"])


@pytest.mark.mcmc
def test_intervals_hold_the_truth_as_often_as_they_say(monkeypatch):
    """100 tables of 27 runs: shares within four Monte Carlo errors (.03 by table) of .9, and .02
    for intervals read off fewer draws."""
    for name, value in (("_TUNE", 400), ("_KEEP", 50), ("_THIN", 10), ("_LONGER", 1)):
        monkeypatch.setattr(model, name, value)
    held = {"coefficients": [], "typical": [], "new": []}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        seconds, rows = table(rng)
        clock = fit_times(seconds, rows, NAMES, random_seed=seed)
        true = terms(CELLS) @ TRUTH
        for name, draws, value in (
                ("coefficients", clock.coefficients, TRUTH),
                ("typical", clock.typical(terms(CELLS)), true),
                ("new", clock.new(terms(CELLS), rng),
                 true * np.exp(0.1 * rng.normal(size=len(true))))):
            low, high = interval(draws)
            held[name].append(((low <= value) & (value <= high)).mean())
    for name, shares in held.items():
        error = np.std(shares, ddof=1) / np.sqrt(len(shares))
        assert error < 0.03, name
        assert abs(np.mean(shares) - 0.9) < 4 * error + 0.02, (name, np.mean(shares), error)
