"""Splits of a batch: what draws of S say about them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fit_fixture import ALPHA, SCALES, make_fit
from fitted import SETTINGS, quick_sampling
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cbsbayes.decisions.allocation import (
    SPLIT_COLUMNS,
    judge,
    log_steps_at,
    split_status,
    split_table,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.quantities import design_of
from cbsbayes.simulate import simulate_sweep


@pytest.fixture(scope="module")
def stand_in():
    return make_fit()


class TestVerdict:
    def test_by_hand(self):
        steps = np.array([[10.0, 11.0, 12.0], [10.0, 10.2, 20.0], [12.0, 10.0, 9.0],
                          [10.0, 12.0, 15.0]])
        found = judge(np.log(steps), np.array([True, True, False]), 0.5)
        np.testing.assert_allclose(found.p_best, [0.75, 0.0, 0.25])
        np.testing.assert_allclose(found.p_best_inside, [0.75, 0.25, np.nan])
        np.testing.assert_allclose(found.regret[0], (12 / 9 - 1) / 4)
        np.testing.assert_allclose(found.p_close, [0.75, 0.25, 0.25])
        np.testing.assert_array_equal(found.chosen, [True, False, False])
        np.testing.assert_allclose(found.p_worse, [np.nan, 0.75, 0.75])
        regret = [0.1, 0.02, 10 / 9 - 1, 0.2]
        np.testing.assert_allclose([found.regret_lower[1], found.regret_upper[1]],
                                   np.quantile(regret, [0.25, 0.75]))

    def test_without_a_split_inside_the_best_of_all_is_chosen(self):
        found = judge(np.log([[3.0, 2.0], [3.0, 2.5]]), np.array([False, False]), 0.9)
        np.testing.assert_array_equal(found.chosen, [False, True])
        assert np.isnan(found.p_best_inside).all()

    @given(arrays.arrays(float, (7, 4), elements=st.floats(-3, 3)))
    def test_probabilities_are_shares(self, log_steps):
        found = judge(log_steps, np.array([True, True, True, False]), 0.9)
        assert found.p_best.sum() == pytest.approx(1.0)
        assert np.nansum(found.p_best_inside) == pytest.approx(1.0)
        assert (found.p_best <= found.p_close + 1e-12).all()
        assert (found.regret >= 0).all()
        assert found.regret[found.chosen] == found.regret[:3].min()


class TestTable:
    def test_it_is_what_the_law_says(self, stand_in):
        table = split_table(stand_in, 256, [0.7])
        assert list(table.columns) == SPLIT_COLUMNS
        best = 1 + np.sqrt(SCALES["B_rollout"] / SCALES["B_prompt"])  # 3.2
        assert table.loc[table["chosen"], "n_rollouts"].tolist() == [4]
        assert 2 < best < 4
        row = table[table["n_rollouts"] == 8].iloc[0]
        noise = (SCALES["B_prompt"] + SCALES["B_rollout"] / 7) / 32
        least = -18.0 * np.log(1 - (0.7 - 0.1) / 0.88)
        assert row["steps"] == pytest.approx(least * (1 + noise) ** ALPHA, rel=0.03)
        assert table["p_best"].sum() == pytest.approx(1.0)
        assert (table["steps_lower"] < table["steps"]).all()
        assert (table["applies_to"] == "typical run").all()

    def test_draws_are_those_of_the_fit(self, fit):
        here = log_steps_at(fit, [64, 128], 8, fit.thresholds[1])
        there = np.exp(fit.log_steps([64, 128], 8, threshold=fit.thresholds[1]))
        np.testing.assert_allclose(np.exp(here), there.transpose("sample", "batch").values)

    def test_only_prompts_varied_knows_no_split(self, prompts_sweep):
        with quick_sampling():
            alone = fit_sweep(prompts_sweep, sampler=SETTINGS, alternatives=False)
        with pytest.raises(CBSDataError, match="total batch alone"):
            split_table(alone, 2048, alone.thresholds)

    def test_only_rollouts_varied_gives_no_probability(self):
        with quick_sampling():
            alone = fit_sweep(simulate_sweep("p2b", 1), sampler=SETTINGS, alternatives=False)
        level = float(alone.thresholds[0])
        assert split_status(alone, level) == "not_identified"
        table = split_table(alone, 2048, [level])
        said = table[["p_best", "p_best_inside", "regret", "p_close", "p_worse"]]
        assert said.isna().all(axis=None)
        assert not table["chosen"].any()
        known = table["steps"].notna()
        assert table.loc[known, "n_rollouts"].tolist() == [16]
        assert (table["range"] == "tried").tolist() == known.tolist()

    def test_under_a_plain_law_the_smallest_group_is_best(self, sweep):
        with quick_sampling():
            plain = fit_sweep(sweep, law="two_axis_free_plain", sampler=SETTINGS,
                              alternatives=False)
        table = split_table(plain, 256, [float(plain.thresholds[0])])
        first = table.iloc[0]
        assert (first["n_rollouts"], first["p_best"]) == (1, 1.0)
        assert design_of(plain.crossings).cells[0][1] >= 1

    def test_a_bound_is_marked(self, stand_in):
        table = stand_in.cbs
        at = (table["quantity"] == "best_n_rollouts") & (table["threshold"] == 0.7)
        marked = make_fit()
        marked.cbs = pd.concat([table[~at], table[at].assign(status="upper_bound")])
        found = split_table(marked, 256, [0.7])
        assert (found["status"] == "upper_bound").all()
        assert found["p_best"].notna().all()
