"""The command: sources in, one dataset out, and one line where something is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import xarray as xr
from verl_loggers import metric_rows, write_jsonl
from wandb_server import StoredRun

from cbsbayes.ingest import ingest, main
from cbsbayes.sweep.files import read_sweep

PROMPTS = {f"cbs_p1_tiny_add_np{n}_nr8_s0": n for n in (4, 8, 16)}
NAMES = list(PROMPTS)


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    for name, n_prompts in PROMPTS.items():
        write_jsonl(folder, name, metric_rows(n_prompts))
    return folder


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "sweep.nc"


def test_summary_and_file(logs, out, capsys):
    (logs / "README.md").touch()
    assert main([str(logs), "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines() == [
        f"{out}: 3 runs, 3 to be fitted, 30 evaluations",
        "  phases   p1 (3)",
        "  batches  3: n_prompts 4…16, n_rollouts 8, total_batch 32…128",
        "  metric   openai/gsm8k (also there: math)",
        "notes:",
        "  the default metric is openai/gsm8k, of 2 kept: math, openai/gsm8k",
        f"  {logs}: files without runs, left out: README.md",
        f"next: python -m cbsbayes.fit {out} -o {out.parent / 'fit'}",
    ]
    ds = xr.load_dataset(out)
    assert list(ds["name"].values) == NAMES
    assert "python -m cbsbayes.ingest" in ds.attrs["history"]
    assert [path.name for path in out.parent.iterdir()] == ["sweep.nc"]


def test_a_dry_run_shows_and_writes_nothing(logs, out, tmp_path, capsys):
    runs = tmp_path / "runs.csv"
    runs.write_text(f"run,n_rollouts\n{NAMES[0]},4\n")
    assert main([str(logs), "--dry-run", "--runs", str(runs), "--skip", NAMES[2]]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["run", "prompts", "rollouts", "batch"]
    assert [row.split()[:4] for row in rows[:2]] == [[NAMES[0], "4", "4", "16"],
                                                     [NAMES[1], "8", "8", "64"]]
    assert "name says n_rollouts 8, --runs 4" in rows[0]
    assert not out.exists()


@pytest.mark.parametrize("kind", ["zip", "xztar"])
def test_an_archive_of_logs(logs, out, tmp_path, capsys, kind):
    packed = shutil.make_archive(str(tmp_path / "packed"), kind, logs)
    assert main([packed, "-o", str(out), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert read_sweep(out)["name"].values.tolist() == NAMES
    Path(packed).write_bytes(Path(packed).read_bytes()[:300])
    assert main([packed, "-o", str(out), "--quiet"]) == 1


def test_append(logs, out, tmp_path, capsys):
    rest = tmp_path / "rest"
    rest.mkdir()
    (logs / f"{NAMES[0]}.jsonl").rename(rest / f"{NAMES[0]}.jsonl")
    assert main([str(logs), "-o", str(out), "--append", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 2
    assert main([str(rest), "-o", str(out), "--append", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 3
    assert set(read_sweep(out)["run"].values) == set(NAMES)


@pytest.mark.parametrize(("arguments", "message"), [
    (["missing"], "there is no file or folder 'missing'; valid: wandb:ENTITY/PROJECT"),
    (["empty"], r"no run in empty \(the folder is empty\)"),
    (["logs", "--metric", "mmlu"], "mmlu"),
    (["logs", "--config", "missing.yaml"], "No such file or directory: missing.yaml"),
    (["logs", "crossings.csv"], "crossings"),
    (["link.jsonl"], "link.jsonl"),
    (["evil.tar"], "cannot be unpacked"),
    (["crossings.csv", "-o", "crossings.csv"], "one of the sources"),
    *((["logs", "-o", name], f"{name} is there and is no sweep")
      for name in ("mine.csv", "fifo", "empty", "old.nc")),
    (["logs", "-o", "old.nc", "--append"], "old.nc"),
])
def test_input_at_fault_is_one_line_and_nothing_is_replaced(
        logs, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.jsonl").symlink_to("link.jsonl")  # even root cannot read a link to itself
    (tmp_path / "crossings.csv").write_text(
        "run,threshold,steps,n_prompts,n_rollouts\nx,0.5,40,8,4\n")
    (tmp_path / "mine.csv").write_text("mine")
    (tmp_path / "old.nc").write_bytes(b"\x89HDF\r\n\x1a\nwhat was there")
    os.mkfifo(tmp_path / "fifo")
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(tmp_path / "mine.csv", "../../evil.log")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    assert main(["-o", "new.nc", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("cbsbayes.ingest: ")
    assert re.search(message, err)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_bar_on_a_terminal_only(logs, out, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main([str(logs), "-o", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["runs"] == 3
    assert "reading" in printed.err


def test_recorded_logs(root, out, capsys):
    assert main([str(root / "tests" / "data" / "verl"), "-o", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["metric"] == "tiny/add2"
    assert summary["left_out"]["rpp"].startswith("no evaluation of tiny/add2")
    assert any("kl.console.log (verl_console) is a copy of kl.jsonl" in note
               for note in summary["notes"])
    assert any("long" in note for note in summary["notes"])  # no batch size to be found


def test_project_on_a_wandb_server(server, logs, out, tmp_path):
    """The same runs from a server and from files are the same sweep."""
    for i, (name, n_prompts) in enumerate(PROMPTS.items()):
        rows = metric_rows(n_prompts)
        plain = [{"_step": step} | {k: float(v) for k, v in row.items()} for step, row in rows]
        server.add(StoredRun(f"id{i}", name, plain, exported=5))
    cache = str(tmp_path / "cache")
    assert main(["wandb:ent/proj", "-o", str(out), "--cache", cache, "--quiet"]) == 0
    downloaded, local = (ds["accuracy"].drop_vars(["source", "state"])
                         for ds in (read_sweep(out), ingest([str(logs)])))
    xr.testing.assert_identical(downloaded, local)
    assert main(["wandb:ent/proj", str(logs), "-o", str(out), "--cache", cache, "--quiet"]) == 0
    assert set(read_sweep(out)["source"].values) == {"wandb"}
    assert read_sweep(out).sizes["run"] == 3


def test_watching_takes_up_new_logs(logs, out, tmp_path, monkeypatch):
    (logs / f"{NAMES[0]}.jsonl").rename(tmp_path / "later")
    waits = []

    def wait(seconds):
        waits.append((seconds, read_sweep(out).sizes["run"]))
        if len(waits) == 2:
            raise KeyboardInterrupt
        (tmp_path / "later").rename(logs / f"{NAMES[0]}.jsonl")

    monkeypatch.setattr("time.sleep", wait)
    assert main([str(logs), "-o", str(out), "--quiet", "--watch", "30"]) == 130
    assert waits == [(30, 2), (30, 3)]


def test_the_folder_of_a_fit_is_passed_over(logs, out):
    (logs / "fit" / "tables").mkdir(parents=True)
    (logs / "fit" / "fit.nc").touch()
    (logs / "fit" / "tables" / "x.csv").write_text("run,threshold,steps,total_batch\na,0.5,3,8\n")
    assert main([str(logs), "-o", str(out), "--quiet"]) == 0
    assert read_sweep(out).sizes["run"] == 3
