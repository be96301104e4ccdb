"""Attempts of one run, replicates, orphans and copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cbsbayes.logs.attempts import Run, drop_copies, join_attempts
from cbsbayes.logs.history import empty_history
from cbsbayes.logs.run_log import RunLog

VAL = "val-core/openai/gsm8k/acc/mean@1"
COORDS = {"n_prompts": 128, "n_rollouts": 8, "total_batch": 1024.0, "seed": 1,
          "updates_per_step": 1}


def make_run(first, last, *, ident="a", name="cbs_p1_np128_nr8", created="", state="crashed",
             config=None, offset=0.0, every=25, source="wandb", seed=1):
    """Log like verl: validation before the first step, then every 25 steps and at the last."""
    steps = np.arange(first - 1, last + 1, dtype=float)
    values = 0.6 + steps / 10_000 + offset
    evaluated = (steps % every == 0) | (steps == last) | (steps == first - 1)
    history = pd.DataFrame(
        {VAL: np.where(evaluated, values, np.nan),
         "training/global_step": np.where(steps >= first, steps, np.nan),
         "critic/score/mean": np.where(steps >= first, values - 0.1, np.nan)},
        index=pd.Index(steps, name="step"))
    log = RunLog(id=ident, name=name, source=source, history=history, state=state,
                 created=created, config=config or {"trainer": {"resume_mode": "auto"}})
    return Run(log, COORDS | {"seed": seed})


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


def test_without_dates_the_steps_order_the_attempts():
    joined, _ = join_attempts([make_run(701, 800, ident="c"), make_run(401, 700, ident="b"),
                               make_run(1, 437, ident="a")])
    assert spans(joined) == [(0, 800, 3, True)]


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


def test_runs_without_rows_pass():
    log = RunLog(id="a", name="a", source="wandb", history=empty_history())
    assert join_attempts([Run(log, COORDS)])[0][0].usable


def test_the_same_log_twice_is_counted_once():
    kept, notes = drop_copies([make_run(1, 60), make_run(1, 60, ident="b")])
    assert len(kept) == 1
    assert notes == ["run cbs_p1_np128_nr8: the log b (wandb) is a copy of a (wandb); "
                     "it is counted once"]


def test_a_resubmitted_curve_is_counted_once_and_the_fuller_log_kept():
    first, second = make_run(1, 200, name="x", source="tensorboard"), make_run(1, 200, name="y")
    rounded = first.log.history.astype(np.float32).astype(np.float64)
    bare = replace(first, log=replace(first.log, history=rounded[[VAL]].dropna(), config={}))
    for order in ([bare, second], [second, bare]):
        kept, notes = drop_copies(order)
        assert [run.log.name for run in kept] == ["y"]
        assert len(notes) == 1


@pytest.mark.parametrize("other", [
    make_run(1, 200, ident="b", offset=0.001),
    make_run(1, 200, ident="b", name="y", seed=2),
    make_run(1, 225, ident="b", name="y"),
])
def test_other_curves_are_no_copies(other):
    assert len(drop_copies([make_run(1, 200), other])[0]) == 2


def test_short_curves_of_other_names_may_agree_by_chance():
    assert len(drop_copies([make_run(1, 30), make_run(1, 30, name="y")])[0]) == 2


def test_crossings_given_twice_are_counted_once():
    table = pd.DataFrame({"threshold": [0.5], "steps_lower": [10.0], "steps_upper": [20.0]})
    log = RunLog(id="a", name="a", source="crossings", history=empty_history(), crossings=table)
    again = replace(log, id="b")
    other = replace(log, name="c")
    kept, _ = drop_copies([Run(log, COORDS), Run(again, COORDS), Run(other, COORDS)])
    assert [run.log.name for run in kept] == ["a", "c"]
