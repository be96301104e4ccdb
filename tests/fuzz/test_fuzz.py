"""A few damaged files of every kind; more by the command in `fuzzer`."""

from __future__ import annotations

import collections

import pytest
from fuzzer import FAULTS, fuzz, table


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return fuzz(tmp_path_factory.mktemp("fuzz"), 2)


def test_no_damage_ends_in_a_traceback_a_hang_or_other_numbers_without_a_word(cases):
    faults = [f"{case.outcome}: {case.target}, {case.mutation}, seed {case.seed}\n{case.detail}"
              for case in cases if case.outcome in FAULTS]
    assert not faults, "\n".join(faults)


def test_the_fuzzer_does_damage(cases):
    count = collections.Counter(case.outcome for case in cases)
    assert count["same"] < len(cases) / 3
    of_target = collections.Counter(case.target for case in cases if case.outcome != "same")
    assert set(of_target) == {case.target for case in cases}
    assert table(cases).count("\n| sweep.nc | ") == 1
