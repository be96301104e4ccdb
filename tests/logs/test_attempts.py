"""Copies counted once, attempts of one run joined, replicates and orphans told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cbsbayes.logs.attempts import Run, drop_copies, join_attempts
from cbsbayes.logs.run_log import Origin, RunLog, history_from_rows

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
                 created=created,
                 settings=(Origin("configuration", config or {"trainer": {"n": 1}}),))
    return Run(log, COORDS | {"seed": seed})


# copies


def test_the_same_log_twice_is_counted_once():
    kept, notes = drop_copies([make_run(1, 60), make_run(1, 60, ident="b")])
    assert len(kept) == 1
    assert notes == ["run cbs_p1_np128_nr8: the log b (wandb) is a copy of a (wandb); "
                     "it is counted once"]


def test_a_resubmitted_curve_is_counted_once_and_the_fuller_log_kept():
    first, second = make_run(1, 200, name="x", source="tensorboard"), make_run(1, 200, name="y")
    rounded = first.log.history.astype(np.float32).astype(np.float64)
    bare = replace(first, log=replace(first.log, history=rounded[[VAL]].dropna(), settings=()))
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


def test_crossings_given_twice_are_counted_once():
    table = pd.DataFrame({"threshold": [0.5], "steps_lower": [10.0], "steps_upper": [20.0]})
    log = RunLog("a", "a", "crossings", history_from_rows([])[0], crossings=table)
    again = replace(log, id="b")
    other = replace(log, name="c")
    kept, _ = drop_copies([Run(log, COORDS), Run(again, COORDS), Run(other, COORDS)])
    assert [run.log.name for run in kept] == ["a", "c"]


def test_a_shorter_copy_of_another_kind_lends_what_only_it_knows():
    whole = make_run(1, 200, source="verl_console")
    whole = replace(whole, coords={}, log=replace(whole.log, settings=()))
    cut = make_run(1, 100, ident="b", source="verl_jsonl", config={"data": {"seed": 1}})
    (kept,), notes = drop_copies([whole, cut])
    assert kept.log.id == "a"
    assert (kept.coords, kept.log.settings) == (
        COORDS, (Origin("configuration", {"data": {"seed": 1}}),))
    assert "the log b (verl_jsonl) is a copy of a (verl_console)" in notes[0]


def test_a_prefix_of_the_same_name_is_a_copy():
    """Every checkpoint of the Hugging Face trainer holds the history so far."""
    kept, _ = drop_copies([make_run(1, 100, source="history"),
                           make_run(1, 200, ident="b", source="history")])
    assert [run.log.id for run in kept] == ["b"]
    assert len(drop_copies([make_run(1, 100), make_run(1, 200, ident="b", name="y")])[0]) == 2


# attempts


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


def test_a_run_killed_between_saving_and_logging_is_joined():
    (joined,), _ = join_attempts([make_run(1, 399), make_run(401, 700, ident="b")])
    assert (joined.attempts, joined.usable) == (2, True)


@pytest.mark.parametrize("runs", [
    [make_run(401, 700)],
    [make_run(1, 398), make_run(401, 700, ident="b")],
    [make_run(1, 437), make_run(401, 700, ident="b", name="another")],
    [make_run(1, 437), make_run(401, 700, ident="b", seed=2)],
])
def test_orphans_are_kept_and_not_usable(runs):
    joined, notes = join_attempts(runs)
    orphan = next(run for run in joined if run.log.history.index.min() == 400)
    assert not orphan.usable
    assert orphan.remark == ("begins at trainer step 401 and no earlier attempt was found; "
                             "it is not fitted")
    assert any(orphan.remark in note for note in notes)
    assert len(joined) == len(runs)


@pytest.mark.parametrize("every", [10, 25])
def test_what_is_known_from_validation_only(every):
    run = make_run(1, 200, every=every)
    whole, tail = (replace(run, log=replace(run.log, history=run.log.history[[VAL]].dropna().loc[
        first:])) for first in (1, 100))
    assert join_attempts([whole])[0][0].usable
    assert not join_attempts([tail])[0][0].usable


def test_tables_hold_whole_runs():
    late = make_run(401, 700, source="table")
    joined, notes = join_attempts([late, replace(late, log=replace(late.log, id="b"))])
    assert [run.usable for run in joined] == [True, True]
    assert notes == []


def test_holes_in_logged_steps_are_said():
    run = make_run(1, 200)
    kept = run.log.history.drop([float(s) for s in (41, 42, 43, 90)])
    ((holed,), notes) = join_attempts([replace(run, log=replace(run.log, history=kept))])
    assert holed.remark == "steps missing: 4, places: 2, the first after trainer step 40"
    assert notes == [f"run {run.log.name}: {holed.remark}"]
    irregular = run.log.history.loc[[0.0, 1, 2, 4, 8, 16, 32, 64]]
    assert join_attempts([replace(run, log=replace(run.log, history=irregular))])[1] == []
