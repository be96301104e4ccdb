"""The splits of a batch: which there are, and where they lie."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from fit_fixture import make_one_axis_fit
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.decisions.splits import candidate_splits, check_batch, default_batch, place
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.quantities import Design

GROUP_LAW, PLAIN = get_law("two_axis_free"), get_law("two_axis_free_plain")
CELLS = ((32, 8), (64, 8), (128, 2), (128, 8), (128, 16))
TRIED = Design({8: (32, 64, 128)}, {128: (2, 8, 16)}, (256.0, 512.0, 1024.0, 2048.0), False,
                     CELLS)


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
        assert place(total, 1, Design({}, {}, (64.0, 256.0), one_axis=True)) == where


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
        tried = Design({}, {}, (448.0,), False, ((64, 7), (448, 1)))
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
