"""Genuine TensorBoard folders: resumed, cut and damaged."""

from __future__ import annotations

import os

import numpy as np
import pytest
from verl_loggers import CORE, metric_rows, write_tensorboard

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.tensorboard import EVENT_FILES, read_tensorboard


def read_events(folder):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    return read_tensorboard(folder, folder.parent)


@pytest.fixture
def folder(tmp_path):
    write_tensorboard(tmp_path, "cbs_p1_lr1e-6_cr0.2", metric_rows(8))
    return tmp_path / "cbs_p1_lr1e-6_cr0.2"


def test_genuine_events(folder):
    run = read_events(folder)
    assert (run.id, run.name, run.source) == (folder.name, folder.name, "tensorboard")
    assert run.notes == ()
    assert run.created[:4].isdigit()
    assert list(run.history.index) == list(range(14))
    logged = {step: row[CORE] for step, row in metric_rows(8) if CORE in row}
    kept = run.history[CORE].dropna()
    assert list(kept.index) == list(logged)
    np.testing.assert_array_equal(kept, np.float32(list(logged.values())))


def test_more_scalars_than_tensorboard_keeps_by_default(tmp_path):
    rows = [(step, {CORE: step / 20_000}) for step in range(10_100)]
    write_tensorboard(tmp_path, "run", rows)
    assert len(read_events(tmp_path / "run").history) == 10_100


def test_resumed_run_takes_the_later_values(folder, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 4e9)  # the second file's name sorts behind the first
    again = [(step, {CORE: 0.5, "actor/lr": 2e-6}) for step in range(11, 16)]
    write_tensorboard(folder.parent, folder.name, again)
    assert len(list(folder.glob(EVENT_FILES))) == 2
    run = read_events(folder)
    assert list(run.history.index) == list(range(16))
    assert (run.history.loc[11:, CORE] == 0.5).all()
    assert run.history.loc[13, "perf/time_per_step"] == 2.5  # only the first file has it
    assert run.notes == ("steps logged twice: 3; the later values were kept",)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_cut_file_gives_its_whole_records_and_a_note(folder, share):
    whole = read_events(folder).history
    (path,) = folder.glob(EVENT_FILES)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    run = read_events(folder)
    known = run.history.notna()
    expected = whole.loc[run.history.index, run.history.columns]
    assert known.to_numpy().sum() >= 0.8 * share * whole.notna().to_numpy().sum()
    assert (run.history == expected).where(known, True).all(axis=None)
    assert len(run.notes) == 1
    assert run.notes[0].endswith("are cut or damaged, left out")


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, os.urandom(4000)])
def test_file_without_scalars(tmp_path, content):
    (tmp_path / "events.out.tfevents.1.x").write_bytes(content)
    with pytest.raises(CBSDataError, match="holds no scalar in its TensorBoard files"):
        read_events(tmp_path)
