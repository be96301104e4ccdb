"""What the user names is given to the right reader; a run logged twice is counted once."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from verl_loggers import (
    metric_rows,
    write_console,
    write_jsonl,
    write_tensorboard,
    write_wandb,
)

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.detect import Reading, read_source
from cbsbayes.logs.together import gather

CURVES = "run,step,accuracy,n_prompts,n_rollouts\nt,0,0.1,8,4\nt,5,0.2,8,4\n"
CROSSINGS = "run,threshold,steps,n_prompts,n_rollouts\nx,0.5,40,8,4\n"


@pytest.fixture
def recorded(root):
    return root / "tests" / "data" / "verl"


def ids(reading):
    return [log.id for log in reading.logs]


def test_every_kind_in_one_folder(tmp_path):
    folder = tmp_path / "all"
    (folder / "deep" / "er").mkdir(parents=True)
    write_jsonl(folder / "deep", "a", metric_rows(4))
    write_console(folder / "deep" / "er", "b", metric_rows(8))
    write_tensorboard(folder / "deep", "c", metric_rows(16))
    write_wandb(folder, iter([("d", metric_rows(32))]))
    (folder / "t.csv").write_text(CURVES)
    (folder / "x.csv").write_text(CROSSINGS)
    (folder / "deep" / "a.config.yaml").write_text("seed: 3\n")
    (folder / "notes.md").write_text("what I did")
    (folder / "other.csv").write_text("gpu,hours\n1,2\n")
    (folder / ".hidden.csv").write_text("gpu,hours\n1,2\n")
    reading = read_source(str(folder))
    found = sorted((log.source, log.name, log.id) for log in reading.logs)
    assert found.pop()[:2] == ("wandb_file", "d")
    assert found == [
        ("crossings", "x", "x"),
        ("table", "t", "t"),
        ("tensorboard", "c", "deep/c"),
        ("verl_console", "b", "deep/er/b.log"),
        ("verl_jsonl", "a", "deep/a.jsonl"),
    ]
    assert reading.notes[0] == f"{folder}: files without runs, left out: notes.md, other.csv"
    assert "other.csv has no column 'run'" in reading.notes[1]
    assert len(reading.notes) == 2


@pytest.mark.parametrize("name", ["kl.jsonl", "kl.console.log", "long.jsonl"])
def test_one_file(recorded, name):
    reading = read_source(str(recorded / name))
    assert ids(reading) == [name]
    assert reading.notes == []


def test_one_event_file_stands_for_its_folder(tmp_path):
    write_tensorboard(tmp_path, "c", metric_rows(4))
    (path,) = (tmp_path / "c").iterdir()
    assert read_source(str(path)).logs[0].name == "c"


def test_console_output_may_have_any_name(recorded, tmp_path):
    shutil.copy(recorded / "kl.console.log", tmp_path / "slurm-1234")
    assert read_source(str(tmp_path / "slurm-1234")).logs[0].source == "verl_console"


def test_wandbs_copy_of_the_console_is_not_a_second_run(tmp_path):
    write_wandb(tmp_path, iter([("d", metric_rows(4))]))
    (log,) = tmp_path.rglob("*.wandb")
    write_console(log.parent / "files", "output", metric_rows(4))
    reading = read_source(str(tmp_path))
    assert [run.source for run in reading.logs] == ["wandb_file"]
    assert reading.notes == []


def test_progress_counts_files(recorded):
    seen = []
    read_source(str(recorded), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 5) for i in range(5)]


def fill_empty(folder):
    pass


def fill_foreign(folder):
    (folder / "README.md").touch()
    (folder / "run.nc").write_bytes(os.urandom(64))


def fill_damaged(folder):
    (folder / "a.jsonl").write_bytes(os.urandom(64))
    (folder / "b.log").write_text("Traceback (most recent call last):\n")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (fill_empty, r"no run in .* \(the folder is empty\); valid sources: wandb:ENTITY/PROJECT"),
        (fill_foreign, r"no run in .* \(files not recognised: README.md, run.nc\)"),
        (fill_damaged, r"a\.jsonl, b\.log\); .* holds no row of verl's file logger"),
    ],
)
def test_folder_without_runs(tmp_path, fill, message):
    fill(tmp_path)
    with pytest.raises(CBSDataError, match=message) as caught:
        read_source(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["missing", "missing/file.jsonl", "https://wandb.ai/a/b"])
def test_no_such_source(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CBSDataError, match=r"there is no file or folder .*; valid: wandb:"):
        read_source(source)


@pytest.mark.parametrize("content", ["gpu,hours\n1,2\n", "run,step,acc\n"])
def test_a_table_given_by_name_must_be_one(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(CBSDataError, match=r"has no (column|rows)"):
        read_source(str(path))


def test_a_bad_cell_is_an_error_in_a_folder_too(tmp_path, recorded):
    shutil.copy(recorded / "kl.jsonl", tmp_path)
    (tmp_path / "t.csv").write_text(CURVES + "t,9,oops,8,4\n")
    with pytest.raises(CBSDataError, match="data row 3: accuracy is 'oops'"):
        read_source(str(tmp_path))


def test_the_same_run_on_the_console_and_in_a_file(recorded):
    logs, notes = gather([read_source(str(recorded))])
    assert [log.id for log in logs] == ["kl.jsonl", "long.jsonl", "rpp.jsonl"]
    assert "kl.console.log logs the run of kl.jsonl and was left out" in notes


@pytest.mark.parametrize("n_lines", [8, 11])
def test_a_shorter_copy_is_left_out_and_lends_its_configuration(tmp_path, n_lines):
    write_jsonl(tmp_path, "run", metric_rows(8))
    write_console(tmp_path, "other", metric_rows(8))
    rows = (tmp_path / "run.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run.jsonl").write_text("".join(rows[:n_lines]))
    (tmp_path / "run.jsonl").rename(tmp_path / "other.jsonl")
    reading = read_source(str(tmp_path))
    lent = [
        replace(log, config={"seed": 3}) if log.source == "verl_jsonl" else log
        for log in reading.logs
    ]
    (log,), _ = gather([Reading("x", lent)])
    assert (log.source, log.config) == ("verl_console", {"seed": 3})


def test_different_runs_are_no_copies(tmp_path):
    """Two runs of one sweep share the validation before training, and little else."""
    write_jsonl(tmp_path, "a", metric_rows(8))
    write_console(tmp_path, "b", metric_rows(16))
    logs, notes = gather([read_source(str(tmp_path))])
    assert len(logs) == 2
    assert notes == []


def test_short_logs_of_different_names_are_no_copies(tmp_path):
    """Two evaluations may agree by chance on a small validation set."""
    write_jsonl(tmp_path, "a", metric_rows(8, n_steps=4))
    write_console(tmp_path, "b", metric_rows(8, n_steps=4))
    assert len(gather([read_source(str(tmp_path))])[0]) == 2
    (tmp_path / "b.log").rename(tmp_path / "a.log")
    assert len(gather([read_source(str(tmp_path))])[0]) == 1


def test_files_of_one_name_from_two_sources_stay_apart(tmp_path):
    for n in (4, 8):
        (tmp_path / str(n)).mkdir()
        write_jsonl(tmp_path / str(n), "run", metric_rows(n))
    sources = [str(tmp_path / "4"), str(tmp_path / "8")]
    logs, _ = gather([read_source(source) for source in sources])
    assert [log.id for log in logs] == [f"{source}/run.jsonl (verl_jsonl)" for source in sources]


def test_one_run_in_several_tables(tmp_path):
    (tmp_path / "a.csv").write_text(CURVES)
    (tmp_path / "b.csv").write_text(CURVES.replace("0.2", "0.3"))
    with pytest.raises(CBSDataError, match=r"run 't' of .* comes in several tables; put all rows"):
        gather([read_source(str(tmp_path))])


def test_readings_of_parquet_and_csv(tmp_path):
    (tmp_path / "a.csv").write_text(CURVES)
    pd.read_csv(tmp_path / "a.csv").assign(run="u").to_parquet(tmp_path / "b.parquet")
    assert ids(read_source(str(tmp_path))) == ["t", "u"]
