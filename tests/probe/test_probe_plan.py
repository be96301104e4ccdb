"""Which rollouts make up which gradient: everything once, and alike on any number of ranks."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from cbsbayes.probe.plan import ProbeSettings, Row, make_plan


def rows_of(prompts, rollouts, silent=()):
    """Return rows named p.r whose weight names them too."""
    return [Row(f"u{p}", f"{p}.{r}", 1 + 100 * p + r, 0.0 if p in silent else 1.0 + r)
            for p in range(prompts) for r in range(rollouts)]


def contents(plan, rows):
    """Return the plan's halves as sets of digests, in no order of units."""
    return {tuple(frozenset(rows[rank][i].digest for rank, local in enumerate(half.rows)
                            for i in local) for half in unit.halves) for unit in plan.units}


def deal(rows, ranks, order):
    shuffled = [rows[i] for i in order]
    return [shuffled[rank::ranks] for rank in range(ranks)]


@given(prompts=st.integers(1, 6), rollouts=st.integers(1, 5), ranks=st.integers(1, 4),
       update=st.integers(0, 3), data=st.data())
def test_every_rollout_is_used_once_wherever_it_lies(prompts, rollouts, ranks, update, data):
    rows = rows_of(prompts, rollouts)
    order = data.draw(st.permutations(range(len(rows))))
    dealt = deal(rows, ranks, order)
    plan, alone = make_plan(dealt, update=update, unit=1), make_plan([rows], update=update, unit=1)
    assert contents(plan, dealt) == contents(alone, [rows])
    used = [digest for halves in contents(plan, dealt) for half in halves for digest in half]
    assert sorted(used) == sorted(row.digest for row in rows)
    assert (plan.prompts, plan.samples, plan.left_out) == (prompts, len(rows), 0)
    assert plan.weight == sum(row.weight for row in rows)
    assert plan.half_rollouts == (max(rollouts // 2, 1), rollouts - max(rollouts // 2, 1))
    for unit in plan.units:
        assert tuple(half.count for half in unit.halves) == plan.half_rollouts[:len(unit.halves)]


def test_units_take_one_group_of_every_rank_so_that_no_rank_waits():
    rows = rows_of(8, 4)
    by_rank = [rows[:16], rows[16:]]
    plan = make_plan(by_rank, update=0)
    assert [unit.prompts for unit in plan.units] == [2, 2, 2, 2]
    for unit in plan.units:
        assert [[len(local) for local in half.rows] for half in unit.halves] == [[2, 2], [2, 2]]


def test_another_update_splits_rollouts_otherwise():
    rows = [rows_of(4, 8)]
    assert contents(make_plan(rows, update=0), rows) != contents(make_plan(rows, update=1), rows)
    assert contents(make_plan(rows, update=1), rows) == contents(make_plan(rows, update=1), rows)


def test_the_number_of_prompts_can_be_capped_and_the_draw_changes():
    rows = [rows_of(12, 2)]
    drawn = [make_plan(rows, update=u, prompts=3) for u in range(6)]
    assert {plan.prompts for plan in drawn} == {3}
    assert {plan.groups for plan in drawn} == {12}
    assert len({frozenset(contents(plan, rows)) for plan in drawn}) > 1


def test_groups_cut_by_a_mini_batch_are_left_out_and_counted():
    rows = [*rows_of(5, 4)[:-1], Row("x", "x.0", 1, 1.0)]
    plan = make_plan([rows], update=0)
    assert (plan.groups, plan.left_out, plan.prompts) == (6, 2, 4)


def test_groups_without_signal_are_counted_whatever_the_rounding():
    rows = rows_of(5, 4, silent=(1, 3))
    rows[4] = Row("u1", "1.0", 1, 7e-3)  # the rest of a rounded mean over a rounded deviation
    assert make_plan([rows], update=0).without_signal == 2
    assert make_plan([rows_of(3, 2, silent=(0, 1, 2))], update=0).without_signal == 3


def test_settings_come_from_the_environment():
    assert ProbeSettings.from_environment({}) == ProbeSettings(0, 0, 0, 0)
    given = {"CBS_GRAD_NOISE_EVERY": "10", "CBS_GRAD_NOISE_MICRO_BATCHES": "4",
             "CBS_GRAD_NOISE_PROMPTS": "64", "CBS_GRAD_NOISE_UNIT": "2"}
    assert ProbeSettings.from_environment(given) == ProbeSettings(10, 4, 64, 2)
    for text in ("", "-1", "1.5", "٣"):
        with pytest.raises(CBSDataError, match=r"CBS_GRAD_NOISE_EVERY is .* whole number"):
            ProbeSettings.from_environment({"CBS_GRAD_NOISE_EVERY": text})


def test_verl_finds_the_plug_in_which_does_nothing_unless_asked_and_refuses_other_releases(
        root, monkeypatch):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    (module,) = project["entry-points"]["verl.plugins"].values()
    code = f"import sys, {module}\nassert not {{'torch', 'verl'}} & set(sys.modules)"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CBS_")}
    for every in ({}, {"CBS_GRAD_NOISE_EVERY": "0"}):
        subprocess.run([sys.executable, "-c", code], env=environment | every, check=True)
    register = importlib.import_module(module).register
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.10.0")
    for every, message in (("20", r"knows verl 0\.9\.x and this is 0\.10\.0"), ("x", "whole")):
        monkeypatch.setenv("CBS_GRAD_NOISE_EVERY", every)
        with pytest.raises(SystemExit, match=message):
            register()
