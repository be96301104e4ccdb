"""Batches that meet a target: the edges are edges, and what cannot be met says so."""

from __future__ import annotations

import numpy as np
import pytest
from fit_fixture import make_fit, make_one_axis_fit
from fitted import SETTINGS, quick_sampling

from cbsbayes.decisions.batches import NEW_RUN, POPULATION
from cbsbayes.decisions.targets import TARGET_COLUMNS, Target, check_target, target_table
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.simulation.sweep import simulate_sweep


@pytest.fixture(scope="module")
def level(fit):
    return float(fit.thresholds[len(fit.thresholds) // 2])


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
        assert list(table.columns) == TARGET_COLUMNS
        cells = set(zip(fit.crossings["n_prompts"].values.tolist(),
                        fit.crossings["n_rollouts"].values.tolist(), strict=True))
        lines = {f"n_rollouts={g}" for _, g in cells} | {f"n_prompts={p}" for p, _ in cells}
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

    def test_a_new_run_needs_more_than_the_population(self, table):
        wide = table[table["met"]].pivot_table(index="at", columns="applies_to",
                                               values="total_batch")
        both = wide.dropna()
        assert len(both) > 3
        assert (both[NEW_RUN] >= both[POPULATION]).all()
        assert (both[NEW_RUN] > 1.2 * both[POPULATION]).sum() > 3

    def test_a_new_runs_probability_by_hand(self, fit, level, updates, table):
        row = table[(table["applies_to"] == NEW_RUN) & (table["at"] == "n_rollouts=8")].iloc[0]
        n = fit.crossings.sizes["run"]
        new = fit.new_run(np.full(n, row["n_prompts"]), np.full(n, 8), level)
        assert row["p_met"] == pytest.approx(float((new <= np.log(updates)).mean()), abs=1e-9)

    def test_below_the_limit_it_cannot_be_met(self, fit, level):
        least = float(np.quantile(fit.posterior["S_min"].sel(threshold=level).values, 0.01))
        table = target_table(fit, Target("updates", least, 0.9), [level])
        assert not table["met"].any()
        assert table[["n_prompts", "total_batch", "p_met"]].isna().all(axis=None)
        typical = table[(table["applies_to"] == POPULATION) & (table["along"] == "n_prompts")]
        assert typical["p_most"].max() <= 0.02


class TestSamples:
    def test_both_ends(self, fit, level, updates):
        most = 64 * 8 * updates
        table = target_table(fit, Target("samples", most, 0.9), [level])
        rows = table[(table["at"] == "n_rollouts=8") & (table["applies_to"] == POPULATION)]
        assert rows["end"].tolist() == ["smallest", "largest"]
        assert rows["n_prompts"].iloc[0] == 1
        largest = rows["n_prompts"].iloc[1]
        assert share(fit, level, largest, 8, most, samples=True) >= 0.9
        assert share(fit, level, largest + 1, 8, most, samples=True) < 0.9
        assert largest < 64  # at 64 the probability is one half

    def test_too_few_samples(self, fit, level):
        table = target_table(fit, Target("samples", 1.0, 0.9), [level])
        assert not table["met"].any()
        assert table["p_most"].max() < 0.01


def test_a_new_run_is_spread_as_the_model_says():
    fit = make_fit()
    n = fit.crossings.sizes["run"]
    added = (fit.new_run(np.full(n, 16), np.full(n, 8), 0.7).values
             - fit.log_steps(16, 8, 0.7).values)
    assert added.shape == (600, n)
    assert added.mean() == pytest.approx(0.0, abs=0.01)
    assert added.std() == pytest.approx(0.09, rel=0.05)


def test_one_axis_has_one_line():
    stand_in = make_one_axis_fit()
    stand_in.predictive = _replicates(stand_in)
    table = target_table(stand_in, Target("updates", 5000.0), [3.0])
    row = table.iloc[0]
    assert table["along"].tolist() == ["total_batch"] * 2
    assert row["total_batch"] == pytest.approx(900 / (5000 / 4000 - 1), rel=0.4)  # 3,600
    assert np.isnan(row["n_prompts"])


def _replicates(stand_in):
    rng = np.random.default_rng(1)
    total = stand_in.crossings["total_batch"].values
    log_steps = stand_in.log_steps(total, 1).transpose("sample", "batch", "threshold")
    noisy = np.exp(log_steps + rng.normal(0, 0.05, log_steps.shape))
    return noisy.rename(batch="run").to_dataset(name="steps")


def test_only_lines_that_were_run_where_the_scales_are_not_told_apart():
    with quick_sampling():
        alone = fit_sweep(simulate_sweep("p2b", 1), sampler=SETTINGS, alternatives=False)
    table = target_table(alone, Target("updates", 200.0), [float(alone.thresholds[0])])
    assert set(table["at"]) == {"n_prompts=128"}


@pytest.mark.parametrize(("arguments", "said"), [
    ((300.0, None, 1.0), "--probability is 1; valid: from 0.5"),
    ((300.0, None, 0.1), "--probability is 0.1"),
    ((300.0, 5.0, 0.9), "both given"),
    ((-1.0, None, 0.9), "--target-updates is -1; valid: positive"),
    ((float("inf"), None, 0.9), "--target-updates is inf"),
    ((None, 0.0, 0.9), "--target-samples is 0;"),
    ((None, float("nan"), 0.9), "--target-samples is nan")])
def test_targets_that_are_none(arguments, said):
    with pytest.raises(CBSDataError, match=said):
        check_target(*arguments)


def test_targets_that_are():
    assert check_target(None, None, 0.9) is None
    assert check_target(3.0, None, 0.8) == Target("updates", 3.0, 0.8)
    assert check_target(None, 9.0, 0.9) == Target("samples", 9.0, 0.9)
