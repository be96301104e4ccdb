"""verl's file logger: genuine logs, logs cut short and logs damaged on the way."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pandas as pd
import pytest
from verl_loggers import CORE, metric_rows, write_jsonl

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.verl_console import read_verl_console
from cbsbayes.logs.verl_jsonl import is_verl_jsonl, read_verl_jsonl


@pytest.fixture
def recorded(root):
    return root / "tests" / "data" / "verl"


@pytest.fixture
def log(tmp_path):
    write_jsonl(tmp_path, "run", metric_rows(8))
    return tmp_path / "run.jsonl"


def read(path):
    return read_verl_jsonl(path, path.parent)


def test_genuine_log(log):
    run = read(log)
    assert (run.id, run.name, run.source) == ("run.jsonl", "run", "verl_jsonl")
    assert run.notes == ()
    assert run.config == {}
    assert list(run.history.index) == list(range(14))
    for step, row in metric_rows(8):
        for key, value in row.items():
            kept = run.history.loc[step, key.removeprefix("actor/grad_noise/")]
            if isinstance(value, np.float32):  # the logger writes the shortest float32
                assert np.float32(kept) == value
            else:
                np.testing.assert_equal(kept, float(value))
    assert math.isnan(run.history.loc[0, "training/global_step"])


def test_recorded_run_by_both_loggers(recorded):
    by_file = read(recorded / "kl.jsonl")
    on_screen = read_verl_console(recorded / "kl.console.log", recorded)
    pd.testing.assert_frame_equal(by_file.history, on_screen.history)
    assert by_file.history.shape == (5, 102)
    assert by_file.name == on_screen.name == "kl"
    assert by_file.config == on_screen.config
    assert by_file.config["data"]["train_batch_size"] == 16
    assert by_file.history["val-core/tiny/add2/acc/mean@1"].first_valid_index() == 0


def test_recorded_gradient_noise_has_no_worker_prefix(recorded):
    history = read(recorded / "rpp.jsonl").history
    assert "grad_noise/prompt/tr_sigma" in history
    assert not any(key.startswith("actor/grad_noise") for key in history)


@pytest.mark.parametrize("share", [0.1, 0.33, 0.5, 0.77, 0.999])
def test_cut_anywhere_only_the_last_row_is_lost(log, share):
    whole = read(log).history
    content = log.read_bytes()
    log.write_bytes(content[: int(len(content) * share)])
    n_complete = log.read_bytes().count(b"\n")
    run = read(log)
    pd.testing.assert_frame_equal(
        run.history, whole.iloc[:n_complete][run.history.columns], check_exact=True
    )
    assert [f"(line {n_complete + 1})" in note for note in run.notes] == [True]


def test_line_feed_alone_missing_loses_nothing(log):
    whole = read(log)
    log.write_bytes(log.read_bytes().removesuffix(b"\n"))
    pd.testing.assert_frame_equal(read(log).history, whole.history)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: ("\n" + text.replace("\n", "\n\n")).encode(),
    ],
    ids=["windows line ends", "byte order mark", "utf-16", "blank lines"],
)
def test_what_shells_and_editors_do(log, change):
    whole = read(log)
    log.write_bytes(change(log.read_text()))
    run = read(log)
    pd.testing.assert_frame_equal(run.history, whole.history)
    assert run.notes == ()


def test_damage_in_the_middle_is_named(log):
    lines = log.read_bytes().splitlines(keepends=True)
    lines[3] = b"\x00" * 40 + b"\n"
    lines[5] = lines[5].replace(b"grad_norm", b"\xff\xfe\xff")
    lines[7] = b"[1, 2]\n"
    log.write_bytes(b"".join(lines))
    run = read(log)
    assert list(run.history.index) == [0, 1, 2, 4, 6, 8, 9, 10, 11, 12, 13]
    assert run.notes == ("run.jsonl: 3 line(s) cut or damaged, left out (line 4, 6, 8)",)


@pytest.mark.parametrize("step", ["true", "null", '"3"', "-1", "1e999", "NaN", "[]"])
def test_row_without_a_step_is_left_out(log, step):
    row = f'{{"step": {step}, "data": {{"{CORE}": 9}}}}\n'
    log.write_text(row + log.read_text())
    run = read(log)
    assert (run.history[CORE].dropna() < 1).all()
    assert len(run.notes) == 1


def test_restart_that_went_on_in_the_same_file(log):
    again = {"step": 12, "data": {CORE: 0.25, "actor/lr": None}}
    log.write_text(log.read_text() + json.dumps(again) + "\n")
    run = read(log)
    assert run.history.loc[12, CORE] == 0.25
    assert run.history.loc[12, "actor/lr"] == 1e-6  # a null does not erase
    assert run.notes == ("1 step(s) were logged twice; the later values were kept",)


def test_numbers_json_has_no_word_for(log):
    row = f'{{"step": 20, "data": {{"a": NaN, "b": "Infinity", "c": null, "{CORE}": 1}}}}\n'
    log.write_text(log.read_text() + row)
    last = read(log).history.loc[20]
    assert last["b"] == math.inf
    assert last[["a", "c"]].isna().all()


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", os.urandom(3000), b'{"prompt": "2+2", "score": 1}\n', b"[" * 5000],
    ids=["empty", "blank", "binary", "rollouts", "nested"],
)
def test_file_without_rows(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    assert not is_verl_jsonl(path)
    with pytest.raises(CBSDataError, match="holds no row of verl's file logger"):
        read(path)
