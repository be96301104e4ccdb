from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbsbayes.crossings.intervals import (
    INTERVAL,
    LEFT,
    RIGHT,
    RULES,
    UNUSABLE,
    find_crossings,
    monotone_rows,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import new_sweep


def sweep_of(rows, step, direction="increasing", **table):
    count = len(rows)
    return new_sweep({"run": [f"r{i}" for i in range(count)], "n_prompts": [64] * count,
                      "n_rollouts": [8] * count, **table},
                     accuracy=np.array(rows, dtype=float)[:, None, :], step=step, metric=["m"],
                     direction=direction)


def pava(values):
    """Pool adjacent violators, as the textbook has it."""
    blocks = []
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [[(a * n + b * m) / (n + m), n + m]]
    return [value for value, count in blocks for _ in range(count)]


def spread(rows):
    """Return the sd of all rows around their monotone fits."""
    square, free = 0.0, 0
    for row in rows:
        values = [v for v in row if not math.isnan(v)]
        fitted = pava(values)
        square += sum((v - f)**2 for v, f in zip(values, fitted, strict=True))
        free += len(values) - sum(b > a + 1e-9 for a, b in zip([-1, *fitted], fitted, strict=False))
    return math.sqrt(square / free) if free else 0.0


def naive(steps, values, threshold, rule, noise):
    """One run, one threshold, in plain Python: the oracle."""
    pairs = [(s, v) for s, v in zip(steps, values, strict=True) if not math.isnan(v)]
    steps, values = [s for s, _ in pairs], [v for _, v in pairs]
    fitted = pava(values) if rule == "isotonic" else values
    reached = [v >= threshold - 1e-9 for v in fitted]
    confirmed = [True] * len(values)
    if rule == "isotonic" and values:
        pool = [v >= fitted[-1] - 1e-9 for v in fitted]
        lucky = fitted[-1] < threshold - 1e-9 + 2 * noise / math.sqrt(sum(pool))
        confirmed = [not (last and lucky) for last in pool]
    for k in range(len(values)):
        here = reached[k] and confirmed[k]
        if rule == "consecutive":
            here = here and k + 1 < len(values) and reached[k + 1]
        if here:
            if steps[k] == 0:
                return math.nan, math.nan, UNUSABLE
            lower = steps[k - 1] if k else 0.0
            return lower, steps[k], INTERVAL if lower > 0 else LEFT
    below = [s for s, hit in zip(steps, reached, strict=True) if not hit and s > 0]
    if not below:
        return math.nan, math.nan, UNUSABLE
    return below[-1], math.inf, RIGHT


def test_pools_that_are_equal_but_for_rounding_are_one_pool():
    row = [0.0, 0.7, math.nan, math.nan, 0.9, 0.5, 0.7]  # .7, and (.9 + .5 + .7) / 3
    found = find_crossings(sweep_of([row], [0, 1, 2, 3, 4, 5, 6]), [0.55])
    assert int(found["status"].item()) == UNUSABLE


@settings(max_examples=80)
@given(st.data())
def test_every_rule_agrees_with_the_plain_one(data):
    count = data.draw(st.integers(1, 8))
    first = data.draw(st.sampled_from([0, 5]))
    gaps = data.draw(st.lists(st.integers(1, 30), min_size=count - 1, max_size=count - 1))
    step = np.cumsum([first, *gaps]).tolist()
    # Tenths, so that ties with the threshold happen.
    value = st.integers(0, 10).map(lambda k: k / 10) | st.just(math.nan)
    rows = data.draw(st.lists(st.lists(value, min_size=count, max_size=count), min_size=1,
                              max_size=5))
    thresholds = [0.1, 0.3, 0.55, 1.0]
    rule = data.draw(st.sampled_from(RULES))
    found = find_crossings(sweep_of(rows, step), thresholds, rule=rule)
    for i, row in enumerate(rows):
        for j, threshold in enumerate(thresholds):
            lower, upper, status = naive(step, row, threshold, rule, spread(rows))
            cell = found.isel(run=i, threshold=j)
            assert int(cell["status"]) == status
            np.testing.assert_array_equal(float(cell["lower"]), lower)
            np.testing.assert_array_equal(float(cell["upper"]), upper)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_the_monotone_fit_pools_adjacent_violators(values):
    padded = np.array([[*values, np.nan], [*values[::-1], np.nan]])
    fitted = monotone_rows(padded)
    np.testing.assert_allclose(fitted[0, :-1], pava(values), atol=1e-12)
    assert (np.diff(fitted[:, :-1], axis=1) >= 0).all()
    assert np.isnan(fitted[:, -1]).all()
    np.testing.assert_allclose(fitted[:, :-1].mean(axis=1), np.mean(values), atol=1e-9)


INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(("rows", "step", "rule", "status", "lower", "upper"), [
    # the four things that can be known
    ([[.1, .2, .6, .7], [.1, .6, .7, .8], [.1, .2, .3, .4], [.6, .7, .7, .8]], [0, 25, 50, 75],
     "isotonic", [INTERVAL, LEFT, RIGHT, UNUSABLE], [25, 0, 75, NAN], [50, 25, INF, NAN]),
    # without an evaluation before training the first one is left-censored
    ([[.6, .7]], [25, 50], "isotonic", [LEFT], [0], [25]),
    # a run without evaluations after the start says nothing
    ([[.1, NAN, NAN], [NAN] * 3, [.1, .2, .9]], [0, 10, 20], "isotonic",
     [UNUSABLE, UNUSABLE, INTERVAL], [NAN, NAN, 10], [NAN, NAN, 20]),
    # one lucky evaluation is a crossing only for the first rule
    *(([[.1, .55, .3, .4, .6, .7]], [0, 10, 20, 30, 40, 50], rule, [status], [lower], [upper])
      for rule, status, lower, upper in [("isotonic", INTERVAL, 30, 40), ("first", LEFT, 0, 10),
                                         ("consecutive", INTERVAL, 30, 40)]),
    # a lucky last evaluation is not yet known to be below
    ([[.1, .3, .6]], [0, 10, 20], "consecutive", [RIGHT], [10], [INF]),
    # a last pool just above the target is not yet a crossing where others say how noisy one is
    ([[.1, .2, .3, .55, .53], [.1, .2, .3, .9, .9], [.0, .6, .4, .8, .6], [.0, .5, .3, .7, .6]],
     [0, 10, 20, 30, 40], "isotonic", [RIGHT, INTERVAL, LEFT, INTERVAL], [20, 20, 0, 20],
     [INF, 30, 10, 30]),
    # nothing says that evaluations are noisy
    ([[.1, .2, .3, .51]], [0, 10, 20, 30], "isotonic", [INTERVAL], [20], [30]),
])
def test_what_is_known_of_a_crossing(rows, step, rule, status, lower, upper):
    found = find_crossings(sweep_of(rows, step), 0.5, rule=rule).isel(threshold=0)
    assert found["status"].values.tolist() == status
    np.testing.assert_array_equal(found["lower"], lower)
    np.testing.assert_array_equal(found["upper"], upper)


@pytest.mark.parametrize("gap", [0.02, 0.06])
def test_runs_that_end_short_of_the_target_seldom_seem_to_cross_it(gap):
    """Curves that end a little below: noise took every third there before."""
    rng = np.random.default_rng(0)
    level = 0.7 - gap * np.exp(-np.arange(25) / 12) / np.exp(-2)
    rows = level + 0.013 * rng.standard_normal((400, 25))
    target = 0.7 - 0.8 * gap
    assert (level < target).all()
    found = find_crossings(sweep_of(rows, np.arange(25) * 25 + 25), target)
    crossed = (found["status"].values == INTERVAL).mean()
    assert crossed < 0.45 * (monotone_rows(rows)[:, -1] >= target).mean()


def test_a_loss_is_reached_from_above():
    rows = np.array([[3.0, 2.0, 1.5, 1.6], [3.0, 2.9, 2.8, 2.7]])
    step = [0, 10, 20, 30]
    for rule in RULES:
        falling = find_crossings(sweep_of(rows, step, "decreasing"), [2.5, 1.8], rule=rule)
        rising = find_crossings(sweep_of(-rows, step), [-2.5, -1.8], rule=rule)
        np.testing.assert_array_equal(falling["upper"].values, rising["upper"].values[:, ::-1])
        np.testing.assert_array_equal(falling["status"].values, rising["status"].values[:, ::-1])
    assert falling["threshold"].values.tolist() == [1.8, 2.5]
    assert falling["upper"].sel(run="r0", threshold=2.5).item() == 10


def test_runs_set_apart_are_never_used():
    ds = sweep_of([[0.1, 0.3, 0.9]] * 2, [0, 10, 20], usable=[0, 1])
    assert find_crossings(ds, 0.5)["status"].values[:, 0].tolist() == [UNUSABLE, INTERVAL]


def test_round_targets_are_met_in_spite_of_rounding():
    assert 0.1 * 3 > 0.3
    found = find_crossings(sweep_of([[0.1, 0.2, 0.3]], [0, 10, 20]), 0.1 * 3)
    assert found["upper"].item() == 20


def test_settings_of_the_runs_come_along_and_flags_say_what_the_status_means():
    found = find_crossings(sweep_of([[0.1, 0.3, 0.9]], [0, 10, 20], seed=[7]), [0.5])
    assert (found["seed"].item(), found["total_batch"].item()) == (7, 512)
    assert found.attrs == {"direction": "increasing", "rule": "isotonic", "metric": "m",
                           "is_share": 1}
    flags = found["status"].attrs
    assert found["status"].dtype == np.int8
    assert flags["flag_meanings"] == "unusable left interval right"
    assert flags["flag_values"].tolist() == [UNUSABLE, LEFT, INTERVAL, RIGHT]


def test_a_table_of_crossings_gives_its_own():
    ds = new_sweep({"run": list("abcdef"), "total_batch": [1, 2, 3, 4, 5, 6],
                    "usable": [1, 1, 1, 1, 1, 0]},
                   steps_lower=[[5], [0], [9], [np.nan], [0], [5]],
                   steps_upper=[[5], [7], [np.inf], [np.nan], [np.inf], [6]], threshold=[0.75])
    found = find_crossings(ds, 0.75)
    assert found["status"].values[:, 0].tolist() == [
        INTERVAL, LEFT, RIGHT, UNUSABLE, UNUSABLE, UNUSABLE]
    np.testing.assert_array_equal(found["lower"].values[:, 0], [5, 0, 9, np.nan, np.nan, np.nan])
    with pytest.raises(CBSDataError, match=r"0\.7 is not in the table.*holds 0\.75"):
        find_crossings(ds, [0.7])


def test_odd_requests_are_refused():
    ds = sweep_of([[0.1, 0.3, 0.9]], [0, 10, 20])
    with pytest.raises(CBSDataError, match="unknown crossing rule 'last'"):
        find_crossings(ds, 0.5, rule="last")
    with pytest.raises(CBSDataError, match="no metric 'math'"):
        find_crossings(ds, 0.5, metric="math")
    for thresholds in ([], [np.nan], [np.inf]):
        with pytest.raises(CBSDataError, match="at least one finite"):
            find_crossings(ds, thresholds)
