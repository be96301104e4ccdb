"""The splits of a batch, what draws of S say about them, and the cheapest group size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fitted import changed
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cbsbayes.decisions.batches import COLUMNS
from cbsbayes.decisions.splits import (
    candidate_splits,
    default_batch,
    group_size_table,
    judge,
    split_status,
    split_table,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.tidy import CBS_COLUMNS

GROUP_LAW = get_law("two_axis_free")
TRIED = np.array([(32, 8), (64, 8), (128, 2), (128, 8), (128, 16)], dtype=float)


@pytest.fixture(scope="module")
def plain(fit):
    """A fit without a group baseline."""
    return changed(fit, law="two_axis_free_plain")


class TestTheBatch:
    @pytest.mark.parametrize(("cells", "total", "reason"), [
        ([(64, 2), (32, 4), (16, 8), *[(64, 8)] * 9], 128, "split in most ways (3)"),
        ([(64, 2), (16, 8), (64, 8), (64, 8), (256, 2), (32, 8)], 512, "(3 of 6)"),
        ([(64, 2), (64, 4), (64, 8)], 512, "(1 of 3)")])  # of equals the larger
    def test_the_line_of_most_splits_else_that_of_most_runs(self, cells, total, reason):
        rollouts = np.array(cells)[:, 1]
        choice = default_batch(xr.Dataset(coords={
            "total_batch": ("run", np.prod(cells, axis=1) * 1.0), "n_rollouts": ("run", rollouts)}))
        assert choice.total == total
        assert reason in choice.reason

    @pytest.mark.parametrize(("total", "law", "message"), [
        (0, GROUP_LAW, r"--batch is 0; valid: from 2"),
        (10**12, GROUP_LAW, r"--batch is .*valid: from 2"),
        (2, GROUP_LAW, r"--batch 2 cannot be split .*2 and more"),
        (127, GROUP_LAW, r"--batch 127 cannot be split .*2 and more"),
        (128, get_law("total"), "total depends on the total batch alone")])
    def test_what_leaves_nothing_to_choose_is_refused(self, total, law, message):
        with pytest.raises(CBSDataError, match=message):
            candidate_splits(total, TRIED, law)

    @pytest.mark.parametrize(("total", "tried", "sizes"), [
        (256, TRIED, [2, 4, 8, 16, 32, 64, 128, 256]),
        (7 * 64, TRIED, [2, 4, 8, 16, 32, 64]),  # odd sizes are left out unless they were run
        (448, np.array([(64.0, 7), (448, 1)]), [2, 4, 7, 8, 16, 32, 64]),
        (7 * 11, TRIED, [7, 11, 77])])  # where people have no choice all divisors are
    def test_sizes_that_people_use_and_those_run(self, total, tried, sizes):
        assert candidate_splits(total, tried, GROUP_LAW)[:, 1].tolist() == sizes

    @given(st.integers(4, 5000))
    def test_every_split_is_the_batch(self, total):
        try:
            splits = candidate_splits(total, TRIED, GROUP_LAW)
        except CBSDataError:
            assert all(total % d for d in range(2, total))
            return
        assert (splits.prod(axis=1) == total).all()
        assert splits[:, 1].min() >= 2
        assert len(np.unique(splits[:, 1])) == len(splits) >= 2


class TestJudge:
    def test_by_hand(self):
        steps = np.array([[10.0, 11.0, 12.0], [10.0, 10.2, 20.0], [12.0, 10.0, 9.0],
                          [10.0, 12.0, 15.0]])
        found = judge(np.log(steps), np.array([True, True, False]), 0.5)
        np.testing.assert_allclose(found["p_best"], [0.75, 0.0, 0.25])
        np.testing.assert_allclose(found["p_best_inside"], [0.75, 0.25, np.nan])
        np.testing.assert_allclose(found["regret"][0], (12 / 9 - 1) / 4)
        np.testing.assert_allclose(found["p_close"], [0.75, 0.25, 0.25])
        assert found["chosen"].tolist() == [True, False, False]
        np.testing.assert_allclose(found["p_worse"], [np.nan, 0.75, 0.75])
        regret = [0.1, 0.02, 10 / 9 - 1, 0.2]
        np.testing.assert_allclose(found.loc[1, ["regret_lower", "regret_upper"]].astype(float),
                                   np.quantile(regret, [0.25, 0.75]))

    @given(arrays.arrays(float, (7, 4), elements=st.floats(-3, 3)))
    def test_probabilities_are_shares(self, log_steps):
        found = judge(log_steps, np.array([True, True, True, False]), 0.9)
        assert found["p_best"].sum() == pytest.approx(1.0)
        assert found["p_best_inside"].sum() == pytest.approx(1.0)
        assert (found["p_best"] <= found["p_close"] + 1e-12).all()
        assert (found["regret"] >= 0).all()
        assert found.loc[found["chosen"], "regret"].item() == found["regret"][:3].min()


class TestTable:
    def test_it_is_what_the_law_says(self, fit):
        level = float(fit.thresholds[1])
        table = split_table(fit, 2048, [level])
        assert list(table.columns) == COLUMNS["splits"]
        draws = fit.posterior.sel(threshold=level)
        best = float(1 + (draws["B_rollout"] / draws["B_prompt"]).median() ** 0.5)
        chosen = table.loc[table["chosen"], "n_rollouts"].item()
        assert best / 2 < chosen < 2 * best
        noise = (draws["B_prompt"] + draws["B_rollout"] / 7) / 256
        expected = float((draws["S_min"] * (1 + noise) ** draws["alpha"]).median())
        assert table[table["n_rollouts"] == 8]["steps"].item() == pytest.approx(expected)
        assert table["p_best"].sum() == pytest.approx(1.0)
        assert (table["steps_lower"] < table["steps"]).all()

    def test_only_rollouts_varied_gives_no_probability(self, rollouts_alone):
        level = float(rollouts_alone.thresholds[0])
        assert split_status(rollouts_alone, level) == "not_identified"
        table = split_table(rollouts_alone, 2048, [level])
        judged = table[["p_best", "p_best_inside", "regret", "p_close", "p_worse"]]
        assert judged.isna().all(axis=None)
        assert not table["chosen"].any()
        known = table["steps"].notna()
        assert table.loc[known, "n_rollouts"].tolist() == [16]
        assert (table["range"] == "tried").tolist() == known.tolist()

    def test_without_a_group_baseline_the_smallest_group_is_best(self, plain):
        table = split_table(plain, 256, [float(plain.thresholds[0])])
        assert table.loc[0, ["n_rollouts", "p_best"]].tolist() == [1, 1.0]


class TestGroupSizes:
    def test_without_costs_it_is_the_table_of_the_fit(self, fit):
        table = group_size_table(fit)
        assert list(table.columns) == CBS_COLUMNS
        same = fit.cbs[fit.cbs["quantity"] == "best_n_rollouts"].reset_index(drop=True)
        pd.testing.assert_frame_equal(table, same)

    def test_costs_are_met_at_the_least_cost(self, fit):
        """The formula is where N(G)/P is least at a fixed P (c_p + c_r G)."""
        table = group_size_table(fit, 3.0)
        rows = table[table["quantity"] == "best_n_rollouts_at_cost"]
        assert (rows["at"] == "prompt_over_rollout=3").all()
        draws = fit.posterior.isel(threshold=0)
        ratio = float((draws["B_rollout"] / draws["B_prompt"]).median())  # all that it depends on
        grid = np.linspace(1.01, 60, 200_000)
        noise = get_law("two_axis").noise_in_prompts(grid, 1.0, ratio)
        best = grid[np.argmin(noise * (6.0 + 2.0 * grid))]
        assert rows["median"].iloc[0] == pytest.approx(best, rel=1e-3)
        assert rows["median"].iloc[0] > table["median"].iloc[0]

    def test_a_plain_law_has_a_size_only_with_costs(self, plain):
        assert group_size_table(plain).empty
        table = group_size_table(plain, 4.0)
        assert set(table["quantity"]) == {"best_n_rollouts_at_cost"}
        draws = (plain.posterior["B_rollout"] / plain.posterior["B_prompt"]).isel(threshold=0)
        assert table["median"].iloc[0] == pytest.approx(float(np.sqrt(4.0 * draws.median())),
                                                        rel=1e-6)

    def test_one_axis_settles_none(self, one_axis, rollouts_alone):
        assert group_size_table(one_axis, 1.0).empty
        table = group_size_table(rollouts_alone, 1.0)
        assert (table["status"] == "not_identified").all()
        assert table[["median", "ci_lower", "ci_upper"]].isna().all(axis=None)
