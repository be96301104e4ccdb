"""A run that was logged several times is counted once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from run_logs import COORDS, VAL, make_run

from cbsbayes.logs.attempts import Run
from cbsbayes.logs.copies import drop_copies
from cbsbayes.logs.history import empty_history
from cbsbayes.logs.run_log import RunLog


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


def test_crossings_given_twice_are_counted_once():
    table = pd.DataFrame({"threshold": [0.5], "steps_lower": [10.0], "steps_upper": [20.0]})
    log = RunLog(id="a", name="a", source="crossings", history=empty_history(), crossings=table)
    again = replace(log, id="b")
    other = replace(log, name="c")
    kept, _ = drop_copies([Run(log, COORDS), Run(again, COORDS), Run(other, COORDS)])
    assert [run.log.name for run in kept] == ["a", "c"]


def test_a_shorter_copy_of_another_kind_lends_what_only_it_knows():
    whole = make_run(1, 200, source="verl_console")
    whole = replace(whole, coords={}, log=replace(whole.log, config={}))
    cut = make_run(1, 100, ident="b", source="verl_jsonl", config={"data": {"seed": 1}})
    (kept,), notes = drop_copies([whole, cut])
    assert kept.log.id == "a"
    assert (kept.coords, kept.log.config) == (COORDS, {"data": {"seed": 1}})
    assert "the log b (verl_jsonl) is a copy of a (verl_console)" in notes[0]


def test_a_prefix_of_the_same_name_is_a_copy():
    """Every checkpoint of the Hugging Face trainer holds the history so far."""
    kept, _ = drop_copies([make_run(1, 100, source="history"),
                           make_run(1, 200, ident="b", source="history")])
    assert [run.log.id for run in kept] == ["b"]
    assert len(drop_copies([make_run(1, 100), make_run(1, 200, ident="b", name="y")])[0]) == 2
