"""Attempts of one run, replicates and orphans."""

from __future__ import annotations

from dataclasses import replace

import pytest
from run_logs import VAL, make_run

from cbsbayes.logs.attempts import join_attempts


def spans(runs):
    return sorted((r.log.history.index.min(), r.log.history.index.max(), r.attempts, r.usable)
                  for r in runs)


def test_attempts_are_joined_and_a_replicate_stays_apart():
    runs = [make_run(1, 437, ident="A", created="2026-01-01"),
            make_run(401, 700, ident="B", created="2026-01-02", offset=0.01),
            make_run(701, 800, ident="C", created="2026-01-03"),
            make_run(1, 800, ident="D", created="2026-01-01T12", state="finished")]
    joined, notes = join_attempts(runs)
    assert spans(joined) == [(0, 800, 1, True), (0, 800, 3, True)]
    whole = next(run for run in joined if run.attempts == 3)
    assert whole.log.id == "A"
    assert whole.remark == "3 attempts joined, resumed at trainer steps 401, 701"
    assert notes == ["run cbs_p1_np128_nr8: " + whole.remark]


def test_a_later_attempt_overrules_the_steps_it_did_again():
    joined, _ = join_attempts([make_run(1, 437), make_run(401, 700, ident="b", offset=0.01)])
    curve = joined[0].log.history[VAL].dropna()
    assert curve.index.is_monotonic_increasing
    assert curve.index.is_unique
    assert curve[400] == pytest.approx(0.64)
    assert curve[425] == pytest.approx(0.6525)
    assert 437 not in curve.index


@pytest.mark.parametrize("runs", [
    [make_run(401, 700)],
    [make_run(1, 300), make_run(401, 700, ident="b")],
    [make_run(1, 437), make_run(401, 700, ident="b", name="another")],
    [make_run(1, 437), make_run(401, 700, ident="b", config={"data": {"seed": 2}})],
])
def test_orphans_are_kept_and_not_usable(runs):
    joined, notes = join_attempts(runs)
    orphan = next(run for run in joined if run.log.history.index.min() == 400)
    assert not orphan.usable
    assert orphan.remark == ("begins at trainer step 401 and no earlier attempt was found; "
                             "it is not fitted")
    assert any(orphan.remark in note for note in notes)
    assert len(joined) == len(runs)


def test_what_a_restart_may_change_does_not_part_attempts():
    other = {"trainer": {"resume_mode": "resume_path", "n_gpus_per_node": 4}}
    joined, _ = join_attempts([make_run(1, 437), make_run(401, 700, ident="b", config=other)])
    assert spans(joined) == [(0, 700, 2, True)]


def test_a_tail_alone_is_known_from_validation_only():
    run = make_run(401, 700)
    bare = replace(run, log=replace(run.log, history=run.log.history[[VAL]].dropna()))
    assert not join_attempts([bare])[0][0].usable


@pytest.mark.parametrize("every", [10, 25])
def test_a_log_that_begins_at_its_own_interval_is_whole(every):
    run = make_run(1, 200, every=every)
    bare = run.log.history[[VAL]].dropna().loc[1:]
    assert join_attempts([replace(run, log=replace(run.log, history=bare))])[0][0].usable


def test_tables_hold_whole_runs():
    late = make_run(401, 700, source="table")
    joined, notes = join_attempts([late, replace(late, log=replace(late.log, id="b"))])
    assert [run.usable for run in joined] == [True, True]
    assert notes == []
