"""Thresholds that nobody reached, or that everybody had passed, give no numbers."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.crossings.reached import keep_reached, reached_by, uninformative_runs
from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import new_sweep

STEP = np.arange(0, 101, 10)


def sweep(*, start=0.2, gain=0.5, speeds=(1.0, 2.0, 4.0), direction="increasing"):
    """Return one run of each of several batch sizes, from `start` to about `start + gain`."""
    curves = start + gain * (1 - np.exp(-np.outer(speeds, STEP) / 50))
    n = len(speeds)
    return new_sweep({"run": [f"r{k}" for k in range(n)], "n_prompts": [8 * 2**k for k in range(n)],
                      "n_rollouts": [8] * n}, accuracy=curves[:, None], step=STEP, metric=["m"],
                     direction=direction)


def kept(ds, *thresholds):
    found, left_out = keep_reached(find_crossings(ds, thresholds), ds)
    return found["threshold"].values.tolist(), left_out


def test_reached_thresholds_stay():
    assert kept(sweep(), 0.3, 0.6) == ([0.3, 0.6], {})


@pytest.mark.parametrize(("threshold", "why"), [
    (0.9, "no run reached it"), (60, "no run reached it (did you mean 0.6?)"),
    (0.1, "every run had passed it before training"),
])
def test_others_are_named_and_left_out(threshold, why):
    thresholds, left_out = kept(sweep(), threshold, 0.5)
    assert thresholds == [0.5]
    assert list(left_out) == [threshold]
    assert left_out[threshold].startswith(why)


def test_a_target_passed_at_the_first_evaluation_is_left_out():
    ds = sweep(speeds=(30.0, 40.0, 50.0))
    assert "by its first evaluation" in kept(ds, 0.3, 0.699999)[1][0.3]


@pytest.mark.parametrize(("ds", "thresholds", "parts"), [
    (sweep(), [65.0], ["no run reached it (did you mean 0.65?)", "from 0.2 at the start to 0.6"]),
    (sweep(start=20.0, gain=50.0), [0.65], ["did you mean 65?", "from 20 at the start to 69"]),
    (sweep(), [0.1], ["every run had passed it before training", "valid thresholds lie between"]),
    (sweep(), [0.1, 0.9], ["threshold 0.1: every run", "threshold 0.9: no run reached it"]),
    (sweep(start=5.0, gain=-3.0, direction="decreasing"), [1.0],
     ["no run reached it", "from 5 at the start to 2."]),
])
def test_without_any_left_it_is_refused_in_one_line(ds, thresholds, parts):
    with pytest.raises(CBSDataError) as refused:
        kept(ds, *thresholds)
    text = str(refused.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_a_table_of_crossings_names_its_thresholds():
    runs = {"run": ["a", "b", "c"], "n_prompts": [8, 16, 32], "n_rollouts": [8] * 3}
    ds = new_sweep(runs, threshold=[0.5, 0.8], steps_lower=[[10, 100], [6, 90], [4, 80]],
                   steps_upper=[[12, np.inf], [8, np.inf], [6, np.inf]])
    assert kept(ds, 0.5, 0.8) == ([0.5], {0.8: "no run reached it"})
    with pytest.raises(CBSDataError, match=r"0\.8: no run reached it.*holds the thresholds 0\.5"):
        kept(ds, 0.8)


def test_runs_and_batches_that_reached_are_counted():
    first, second = reached_by(find_crossings(sweep(speeds=(1.0, 2.0, 0.1, 0.1)), [0.25, 0.5]))
    assert (first.n_reached, first.n_runs) == (4, 4)
    assert (second.n_reached, second.n_runs, second.n_batches_reached, second.n_batches) == (
        2, 4, 2, 4)


def test_runs_without_information_are_named():
    found = find_crossings(sweep(), [0.3, 0.6])
    assert uninformative_runs(found) == []
    status = found["status"].copy()
    status[1], status[2, 0] = -1, -1
    assert uninformative_runs(found.assign(status=status)) == ["r1"]
