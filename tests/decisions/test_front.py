"""The front of updates and samples, and batches that meet a target: edges are edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cbsbayes.decisions.batches import COLUMNS, NEW_RUN, POPULATION, batches_run, middle_threshold
from cbsbayes.decisions.front import Target, best_tried_group, front_table, on_front, target_table
from cbsbayes.errors import CBSDataError


def test_by_hand():
    steps = np.array([[100.0, 60.0, 55.0], [100.0, 60.0, 61.0]])
    total = np.array([64.0, 128.0, 128.0])
    np.testing.assert_allclose(on_front(np.log(steps), total), [1.0, 0.5, 0.5])


@given(arrays.arrays(float, (1, 6), elements=st.floats(-2, 2)),
       arrays.arrays(float, (6,), elements=st.floats(1, 1000)))
def test_the_front_is_what_no_other_beats(log_steps, total):
    steps = log_steps[0]
    samples = steps + np.log(total)
    beaten = [any(steps[j] <= steps[i] and samples[j] <= samples[i]
                  and (steps[j] < steps[i] or samples[j] < samples[i]) for j in range(6))
              for i in range(6)]
    np.testing.assert_array_equal(on_front(log_steps, total) == 0, beaten)


@pytest.fixture(scope="module")
def level(fit):
    return middle_threshold(fit)


class TestFront:
    def test_every_batch_tried_is_there_once_without_single_rollouts(self, fit, level):
        front = front_table(fit, [level])
        assert list(front.columns) == COLUMNS["front"]
        np.testing.assert_allclose(front["samples"], front["steps"] * front["total_batch"])
        tried, batches = front[front["kind"] == "tried"], batches_run(fit.crossings)
        np.testing.assert_array_equal(tried[["n_prompts", "n_rollouts"]], batches)
        assert tried["n_rollouts"].min() == 2
        assert (tried["range"] == "tried").all()
        log_steps = fit.log_steps(*batches.T, threshold=level).values
        np.testing.assert_array_equal(tried["p_on_front"], on_front(log_steps,
                                                                    batches.prod(axis=1)))

    def test_along_the_curve_updates_are_bought_with_samples(self, fit, level):
        front = front_table(fit, [level])
        curve = front[front["kind"] == "curve"]
        assert set(curve["n_rollouts"]) == {best_tried_group(fit, level)}
        assert (np.diff(curve["steps"]) < 0).all()
        assert (np.diff(curve["samples"]) > 0).all()
        assert curve["p_on_front"].isna().all()

    def test_one_axis_is_all_front(self, one_axis):
        table = front_table(one_axis, [float(one_axis.thresholds[0])])
        assert table["n_rollouts"].isna().all()
        tried = table[table["kind"] == "tried"]
        assert set(tried["total_batch"]) == set(one_axis.crossings["total_batch"].values)
        assert (tried["p_on_front"] == 1.0).all()


@pytest.fixture(scope="module")
def updates(fit, level):
    """A number of updates that 64 prompts at 8 rollouts take in the population."""
    return float(np.exp(fit.log_steps(64, 8, level).median()))


def share(fit, level, prompts, rollouts, most, samples=False):
    steps = np.exp(fit.log_steps(prompts, rollouts, level).values)
    return np.mean(steps * (prompts * rollouts if samples else 1) <= most)


@pytest.fixture(scope="module")
def table(fit, level, updates):
    return target_table(fit, Target("updates", updates, 0.9), [level])


class TestUpdates:
    def test_columns_and_lines(self, fit, table):
        assert list(table.columns) == COLUMNS["targets"]
        prompts, rollouts = batches_run(fit.crossings).T
        lines = {f"n_rollouts={g:g}" for g in rollouts} | {f"n_prompts={p:g}" for p in prompts}
        assert set(table["at"]) == lines
        assert len(table) == 2 * len(lines)

    def test_the_smallest_batch_is_the_smallest(self, fit, level, updates, table):
        rows = table[table["met"] & (table["applies_to"] == POPULATION)]
        assert len(rows) > 5
        for row in rows.itertuples():
            assert row.p_met == share(fit, level, row.n_prompts, row.n_rollouts, updates) >= 0.9
            one_less = ((row.n_prompts - 1, row.n_rollouts) if row.along == "n_prompts"
                        else (row.n_prompts, row.n_rollouts - 1))
            if min(one_less) >= 2:
                assert share(fit, level, *one_less, updates) < 0.9

    def test_a_new_run_needs_more_than_the_population(self, fit, level, updates, table):
        both = table[table["met"]].pivot_table(index="at", columns="applies_to",
                                               values="total_batch").dropna()
        assert len(both) > 3
        assert (both[NEW_RUN] >= both[POPULATION]).all()
        assert (both[NEW_RUN] > 1.2 * both[POPULATION]).sum() > 3
        row = table[(table["applies_to"] == NEW_RUN) & (table["at"] == "n_rollouts=8")].iloc[0]
        n = fit.crossings.sizes["run"]
        new = fit.new_run(np.full(n, row["n_prompts"]), np.full(n, 8), level)
        assert row["p_met"] == pytest.approx(float((new <= np.log(updates)).mean()), abs=1e-9)

    def test_below_the_limit_it_cannot_be_met(self, fit, level):
        least = float(np.quantile(fit.posterior["S_min"].sel(threshold=level).values, 0.01))
        table = target_table(fit, Target("updates", least, 0.9), [level])
        assert not table["met"].any()
        assert table[["n_prompts", "total_batch", "p_met"]].isna().all(axis=None)
        population = table[(table["applies_to"] == POPULATION) & (table["along"] == "n_prompts")]
        assert population["p_most"].max() <= 0.02

    def test_one_axis_has_one_line(self, one_axis):
        at = float(one_axis.thresholds[0])
        most = float(np.exp(one_axis.log_steps(512, 1, at).median()))
        table = target_table(one_axis, Target("updates", most), [at])
        assert table["along"].tolist() == ["total_batch"] * 2
        total = int(table["total_batch"].iloc[0])
        assert share(one_axis, at, total, 1, most) >= 0.9 > share(one_axis, at, total - 1, 1, most)
        assert np.isnan(table["n_prompts"].iloc[0])

    def test_only_lines_that_were_run_where_the_scales_are_not_told_apart(self, rollouts_alone):
        table = target_table(rollouts_alone, Target("updates", 200.0),
                             [float(rollouts_alone.thresholds[0])])
        assert set(table["at"]) == {"n_prompts=128"}


def test_samples_are_met_between_two_ends(fit, level, updates):
    most = 64 * 8 * updates
    table = target_table(fit, Target("samples", most, 0.9), [level])
    rows = table[(table["at"] == "n_rollouts=8") & (table["applies_to"] == POPULATION)]
    assert rows["end"].tolist() == ["smallest", "largest"]
    assert rows["n_prompts"].iloc[0] == 1
    largest = rows["n_prompts"].iloc[1]
    assert share(fit, level, largest, 8, most, samples=True) >= 0.9
    assert share(fit, level, largest + 1, 8, most, samples=True) < 0.9
    assert largest < 64  # at 64 the probability is one half


@pytest.mark.parametrize(("arguments", "said"), [
    (("updates", 300.0, 1.0), "--probability is 1; valid: from 0.5"),
    (("updates", 300.0, 0.1), "--probability is 0.1"),
    (("updates", -1.0, 0.9), "--target-updates is -1; valid: above 0"),
    (("updates", float("inf"), 0.9), "--target-updates is inf"),
    (("samples", float("nan"), 0.9), "--target-samples is nan")])
def test_targets_that_are_none(arguments, said):
    with pytest.raises(CBSDataError, match=said):
        Target(*arguments)
