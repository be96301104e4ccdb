"""Targets: chosen round and crossed by three batch sizes; those nobody reached give no numbers."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.crossings.intervals import RULES, find_crossings
from cbsbayes.crossings.thresholds import (
    batch_labels,
    choose_thresholds,
    keep_reached,
    reached_by,
    uninformative_runs,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.sweep.dataset import new_sweep

STEP = np.arange(0, 201, 10)


def sweep_of(speeds=(1.0, 2.0, 4.0), *, start=0.2, gain=0.5, direction="increasing", **table):
    """Return one run of each of several batch sizes, from `start` to about `start + gain`."""
    curves = start + gain * (1 - np.exp(-np.outer(speeds, STEP) / 50))
    count = len(speeds)
    settings = {"run": [f"r{i}" for i in range(count)],
                "n_prompts": [2 ** (3 + i) for i in range(count)], "n_rollouts": [8] * count}
    return new_sweep({**settings, **table}, accuracy=curves[:, None], step=STEP, metric=["m"],
                     direction=direction)


def sizes_crossing(ds, threshold):
    return int((find_crossings(ds, threshold)["status"] == 1).sum())


def test_targets_are_round_and_crossed_by_three_batch_sizes():
    ds = sweep_of([0.5, 0.8, 1.0, 1.5, 2.0])
    chosen = choose_thresholds(ds)
    assert 1 < chosen.size <= 6
    np.testing.assert_allclose(chosen * 100, np.round(chosen * 100), atol=1e-9)
    assert (chosen > 0.2).all()
    assert all(sizes_crossing(ds, t) >= 3 for t in chosen)


@pytest.mark.parametrize("rule", RULES)
def test_simulated_sweeps_get_six_targets(rule):
    ds = simulate_sweep("all", 3, random_seed=1)
    chosen = choose_thresholds(ds, rule=rule)
    assert chosen.size == 6
    assert 0.55 < chosen[0] < chosen[-1] < 0.75
    assert (np.diff(chosen) > 0).all()


def test_the_hardest_target_that_can_be_fitted_stays():
    ds = sweep_of([0.5, 0.8, 1.0, 1.5, 2.0])
    few, many = choose_thresholds(ds, max_thresholds=2), choose_thresholds(ds, max_thresholds=50)
    fine = np.round(np.arange(0.51, 0.8, 0.01), 2)
    hardest = max(t for t in fine if sizes_crossing(ds, t) >= 3)
    assert many[-1] == hardest
    assert few.size == 2
    assert choose_thresholds(ds, max_thresholds=1).size == 1
    # Coarse grids end on their own last round number, at most one of their steps below.
    assert 0 <= hardest - few[-1] <= 0.1 + 1e-9


def test_a_loss_gets_targets_on_its_own_scale():
    ds = sweep_of([0.5, 0.8, 1.0, 1.5, 2.0], start=9.0, gain=-6.0, direction="decreasing")
    chosen = choose_thresholds(ds)
    assert ((chosen < 9.0) & (chosen > 3.0)).all()
    np.testing.assert_allclose(chosen * 10, np.round(chosen * 10), atol=1e-9)
    assert all(sizes_crossing(ds, t) >= 3 for t in chosen)


def test_one_axis_sweeps_count_total_batches():
    ds = sweep_of([0.5, 1.0, 2.0], n_prompts=[-1] * 3, n_rollouts=[-1] * 3,
                  total_batch=[32, 64, 128])
    assert choose_thresholds(ds).size > 1


def test_a_table_of_crossings_offers_its_own_targets():
    lower = np.array([[10.0, 20, 30], [8, 16, 24], [0, 12, 18]])
    upper = np.array([[11.0, 21, np.inf], [9, 17, 25], [5, 13, 19]])
    ds = new_sweep({"run": list("abc"), "total_batch": [1, 2, 3]}, steps_lower=lower,
                   steps_upper=upper, threshold=[0.5, 0.6, 0.7])
    assert choose_thresholds(ds).tolist() == [0.6]


def test_groups_of_one_do_not_count_beside_larger_ones():
    ds = sweep_of([0.5, 0.8, 1.0, 1.5], n_rollouts=[1, 2, 4, 8], usable=[1, 1, 0, 1])
    assert (batch_labels(ds) >= 0).tolist() == [False, True, False, True]
    assert (batch_labels(sweep_of(n_rollouts=[1, 1, 1])) >= 0).all()
    cells = sweep_of(n_prompts=[32, 16, 16], n_rollouts=[8, 8, 4])
    assert batch_labels(cells).tolist() == [2, 1, 0]


@pytest.mark.parametrize(("ds", "options", "message"), [
    (sweep_of([0.5, 0.8, 1.0, 1.5], n_rollouts=[1, 2, 4, 8], usable=[1, 1, 0, 1]), {},
     r"may be fitted, 2; .*at least 3: add runs"),
    (sweep_of([0.5, 0.8, 1.0, 1.2], n_prompts=[8, 8, 8, 16]), {}, "may be fitted, 2;"),
    (sweep_of([0.0] * 3), {}, r"before training is 0\.2, the best reached 0\.2"),
    (sweep_of([500.0, 600.0, 700.0]), {}, "no run is seen to cross any threshold between"),
    (sweep_of([0.0, 0.0, 0.5, 1.0]), {}, "crossed by 3 batch sizes; the most is 2"),
    (sweep_of(), {"max_thresholds": 0}, "max_thresholds is 0"),
], ids=["groups of one", "replicates", "flat", "crossed at once", "too few cross", "none wanted"])
def test_sweeps_without_targets_say_how_far_they_got(ds, options, message):
    with pytest.raises(CBSDataError, match=message):
        choose_thresholds(ds, **options)


# who reached them ---------------------------------------------------------------------

def kept(ds, *thresholds):
    found, left_out = keep_reached(find_crossings(ds, thresholds), ds)
    return found["threshold"].values.tolist(), left_out


def test_reached_thresholds_stay():
    assert kept(sweep_of(), 0.3, 0.6) == ([0.3, 0.6], {})


@pytest.mark.parametrize(("threshold", "why"), [
    (0.9, "no run reached it"), (60, "no run reached it (did you mean 0.6?)"),
    (0.1, "every run had passed it before training"),
])
def test_others_are_named_and_left_out(threshold, why):
    thresholds, left_out = kept(sweep_of(), threshold, 0.5)
    assert thresholds == [0.5]
    assert list(left_out) == [threshold]
    assert left_out[threshold].startswith(why)


def test_a_target_passed_at_the_first_evaluation_is_left_out():
    ds = sweep_of(speeds=(30.0, 40.0, 50.0))
    assert "by its first evaluation" in kept(ds, 0.3, 0.699999)[1][0.3]


@pytest.mark.parametrize(("ds", "thresholds", "parts"), [
    (sweep_of(), [65.0], ["no run reached it (did you mean 0.65?)", "0.2 at the start to 0.7"]),
    (sweep_of(start=20.0, gain=50.0), [0.65], ["did you mean 65?", "from 20 at the start to 70"]),
    (sweep_of(), [0.1], ["every run had passed it before training", "valid thresholds lie"]),
    (sweep_of(), [0.1, 0.9], ["threshold 0.1: every run", "threshold 0.9: no run reached it"]),
    (sweep_of(start=5.0, gain=-3.0, direction="decreasing"), [1.0],
     ["no run reached it", "from 5 at the start to 2 at"]),
])
def test_without_any_left_it_is_refused_in_one_line(ds, thresholds, parts):
    with pytest.raises(CBSDataError) as refused:
        kept(ds, *thresholds)
    text = str(refused.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_a_metric_of_runs_set_apart_is_refused():
    accuracy = np.array([[[0.1, 0.5], [np.nan] * 2]] * 3 + [[[np.nan] * 2, [0.1, 0.5]]])
    ds = new_sweep({"run": list("abcd"), "total_batch": [8, 16, 32, 64], "usable": [1, 1, 1, 0]},
                   accuracy=accuracy, step=[0, 10], metric=["m", "other"], default_metric="m")
    said = "no run that may be fitted has an evaluation of other; choose another metric"
    with pytest.raises(CBSDataError, match=said):
        choose_thresholds(ds, metric="other")
    with pytest.raises(CBSDataError, match=said):
        keep_reached(find_crossings(ds, [0.3], metric="other"), ds, "other")


def test_a_table_of_crossings_names_its_thresholds():
    runs = {"run": ["a", "b", "c"], "n_prompts": [8, 16, 32], "n_rollouts": [8] * 3}
    ds = new_sweep(runs, threshold=[0.5, 0.8], steps_lower=[[10, 100], [6, 90], [4, 80]],
                   steps_upper=[[12, np.inf], [8, np.inf], [6, np.inf]])
    assert kept(ds, 0.5, 0.8) == ([0.5], {0.8: "no run reached it"})
    with pytest.raises(CBSDataError, match=r"0\.8: no run reached it.*holds the thresholds 0\.5"):
        kept(ds, 0.8)


def test_runs_and_batches_that_reached_are_counted():
    first, second = reached_by(find_crossings(sweep_of(speeds=(1.0, 2.0, 0.1, 0.1)), [0.25, 0.5]))
    assert (first.n_reached, first.n_runs) == (4, 4)
    assert (second.n_reached, second.n_runs, second.n_batches_reached, second.n_batches) == (
        2, 4, 2, 4)


def test_runs_without_information_are_named():
    found = find_crossings(sweep_of(), [0.3, 0.6])
    assert uninformative_runs(found) == []
    status = found["status"].copy()
    status[1], status[2, 0] = -1, -1
    assert uninformative_runs(found.assign(status=status)) == ["r1"]
