"""Splits of a batch: which there are, where they lie, and what draws of S say about them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fit_fixture import ALPHA, SCALES, make_fit, make_one_axis_fit
from fitted import SETTINGS, quick_sampling
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cbsbayes.allocation import (
    SPLIT_COLUMNS,
    candidate_splits,
    check_batch,
    default_batch,
    judge,
    log_steps_at,
    place,
    split_status,
    split_table,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.fitting import fit_sweep
from cbsbayes.laws import get_law
from cbsbayes.quantities import TriedBatches, tried_batches
from cbsbayes.simulate import simulate_sweep

GROUP_LAW, PLAIN = get_law("two_axis_free"), get_law("two_axis_free_plain")
CELLS = ((32, 8), (64, 8), (128, 2), (128, 8), (128, 16))
TRIED = TriedBatches({8: (32, 64, 128)}, {128: (2, 8, 16)}, (256.0, 512.0, 1024.0, 2048.0), False,
                     CELLS)


@pytest.fixture(scope="module")
def stand_in():
    return make_fit()


def runs(cells):
    prompts, rollouts = (np.array(axis) for axis in zip(*cells, strict=True))
    coords = {"n_prompts": prompts, "n_rollouts": rollouts, "total_batch": prompts * rollouts * 1.0}
    return xr.Dataset(coords={name: ("run", values) for name, values in coords.items()})


class TestWhere:
    @pytest.mark.parametrize(("batch", "where"), [
        ((64, 8), "tried"), ((64, 4), "inside"), ((128, 4), "inside"), ((32, 16), "inside"),
        ((16, 8), "extrapolated"), ((128, 32), "extrapolated"), ((256, 1), "extrapolated")])
    def test_each_axis_has_its_own_range(self, batch, where):
        assert place(*batch, TRIED) == where

    @pytest.mark.parametrize(("total", "where"), [
        (64, "tried"), (100, "inside"), (32, "extrapolated"), (300, "extrapolated")])
    def test_one_axis_has_one(self, total, where):
        assert place(total, 1, TriedBatches({}, {}, (64.0, 256.0), one_axis=True)) == where


class TestTheBatch:
    def test_the_line_of_most_splits_is_taken(self):
        cells = [(64, 2), (32, 4), (16, 8), *[(64, 8)] * 9]
        choice = default_batch(runs(cells))
        assert choice.total == 128
        assert "split in most ways (3)" in choice.reason

    def test_two_splits_are_no_line(self):
        choice = default_batch(runs([(64, 2), (16, 8), (64, 8), (64, 8), (256, 2), (32, 8)]))
        assert choice.total == 512
        assert "(3 of 6)" in choice.reason

    def test_of_equals_the_larger(self):
        assert default_batch(runs([(64, 2), (64, 4), (64, 8)])).total == 512

    def test_one_axis(self):
        assert default_batch(make_one_axis_fit().crossings).total == 2**13


class TestCandidates:
    def test_a_power_of_two_is_split_in_all_ways_from_two_rollouts(self):
        splits = candidate_splits(256, TRIED, GROUP_LAW)
        assert [(s.n_prompts, s.n_rollouts) for s in splits] == [
            (128, 2), (64, 4), (32, 8), (16, 16), (8, 32), (4, 64), (2, 128), (1, 256)]
        assert [s.range for s in splits[:4]] == ["tried", "inside", "tried", "extrapolated"]

    def test_a_plain_law_has_single_rollouts_too(self):
        assert candidate_splits(8, TRIED, PLAIN)[0].n_rollouts == 1

    def test_odd_sizes_are_left_out_unless_they_were_run(self):
        plain = [s.n_rollouts for s in candidate_splits(7 * 64, TRIED, GROUP_LAW)]
        assert plain == [2, 4, 8, 16, 32, 64]
        tried = TriedBatches({}, {}, (448.0,), False, ((64, 7), (448, 1)))
        assert [s.n_rollouts for s in candidate_splits(448, tried, GROUP_LAW)] == [
            2, 4, 7, 8, 16, 32, 64]

    def test_where_people_have_no_choice_all_divisors_are(self):
        assert [s.n_rollouts for s in candidate_splits(7 * 11, TRIED, GROUP_LAW)] == [7, 11, 77]

    @given(st.integers(4, 5000))
    def test_every_split_is_the_batch(self, total):
        try:
            splits = candidate_splits(total, TRIED, GROUP_LAW)
        except CBSDataError:
            assert all(total % d for d in range(2, total))
            return
        assert all(s.n_prompts * s.n_rollouts == total and s.n_rollouts >= 2 for s in splits)
        assert len({s.n_rollouts for s in splits}) == len(splits) >= 2

    @pytest.mark.parametrize("total", [0, -4, 10**12])
    def test_a_batch_of_no_size_is_refused(self, total):
        with pytest.raises(CBSDataError, match=r"--batch is .*valid: from 2"):
            check_batch(total, GROUP_LAW)

    @pytest.mark.parametrize("total", [2, 3, 127])
    def test_a_batch_without_two_splits_is_refused(self, total):
        with pytest.raises(CBSDataError, match=rf"--batch {total} cannot be split .*2 and more"):
            check_batch(total, GROUP_LAW)

    def test_a_law_without_splits_is_refused(self):
        with pytest.raises(CBSDataError, match="total depends on the total batch alone"):
            check_batch(128, get_law("total"))


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
        there = fit.steps([64, 128], 8, threshold=fit.thresholds[1])
        np.testing.assert_allclose(np.exp(here), there.transpose("sample", "batch").values)

    def test_only_prompts_varied_knows_no_split(self, prompts_sweep):
        with quick_sampling():
            alone = fit_sweep(prompts_sweep, sampler=SETTINGS, beside=False)
        with pytest.raises(CBSDataError, match="total batch alone"):
            split_table(alone, 2048, alone.thresholds)

    def test_only_rollouts_varied_gives_no_probability(self):
        with quick_sampling():
            alone = fit_sweep(simulate_sweep("p2b", 1), sampler=SETTINGS, beside=False)
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
            plain = fit_sweep(sweep, law="two_axis_free_plain", sampler=SETTINGS, beside=False)
        table = split_table(plain, 256, [float(plain.thresholds[0])])
        first = table.iloc[0]
        assert (first["n_rollouts"], first["p_best"]) == (1, 1.0)
        assert tried_batches(plain.crossings).cells[0][1] >= 1

    def test_a_bound_is_marked(self, stand_in):
        table = stand_in.cbs
        at = (table["quantity"] == "best_n_rollouts") & (table["threshold"] == 0.7)
        marked = make_fit()
        marked.cbs = pd.concat([table[~at], table[at].assign(status="upper_bound")])
        found = split_table(marked, 256, [0.7])
        assert (found["status"] == "upper_bound").all()
        assert found["p_best"].notna().all()
