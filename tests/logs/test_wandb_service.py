"""Runs of a wandb project by the genuine client, from a server on this machine, and its faults."""

from __future__ import annotations

import math
import os
import stat
import subprocess
import sys
import time
from functools import partial

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from signals import PATIENCE
from wandb_server import Fault, StoredRun

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.wandb_service import read_wandb_api

GSM8K = "val-core/openai/gsm8k/acc/mean@1"


def rows_of(n_steps, *, every=5, start=0):
    rows = []
    for step in range(start, n_steps):
        row = {"_step": step, "_runtime": 1.5 * step, "critic/score/mean": step / 7}
        if step % every == 0:
            row[GSM8K] = 0.5 + step / 1000
        rows.append(row)
    return rows


def assert_history(run, rows):
    """Compare with the history that pandas alone makes of the rows."""
    table = pd.DataFrame(rows).set_index("_step").drop(columns="_runtime").astype(float)
    table.index = table.index.astype(float).rename("step")
    assert_frame_equal(run.history, table[sorted(table.columns)], check_column_type=False)


@pytest.fixture
def read(server, tmp_path, monkeypatch):
    """Return the reader with a cache of its own and without pauses between attempts."""
    monkeypatch.setattr("cbsbayes.logs.wandb_service._PAUSE", 0.0)
    return partial(read_wandb_api, cache_dir=tmp_path / "cache")


def reader(code, *args):
    """Start a process that reads with `service`, the module, and has a sidecar of its own."""
    code = "import sys\nfrom cbsbayes.logs import wandb_service as service\n" + code
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, text=True,
        env={name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"})


# what is read


def test_runs_come_as_they_were_logged(server, read):
    config = {"data": {"train_batch_size": 64}, "trainer": {"logger": ["console", "wandb"]}}
    rows = rows_of(40)
    server.add(
        StoredRun("live", "cbs_p1_np64_nr8", rows, config),
        StoredRun("export", "cbs_p1_np128_nr8", rows, exported=40, state="crashed"),
        StoredRun("both", "cbs_p1_np256_nr8", rows, exported=25, state="killed"),
        StoredRun("young", "cbs_p1_np512_nr8", [], state="running"),
    )
    runs = read("ent/proj")
    assert [run.id for run in runs] == ["live", "export", "both", "young"]
    for run in runs[:3]:
        assert_history(run, rows)
        assert run.notes == ()
    assert runs[3].history.empty
    assert runs[0].name == "cbs_p1_np64_nr8"
    assert runs[0].settings == (("configuration", config),)
    assert runs[0].created == "2026-01-01T00:00:00Z"
    assert {run.source for run in runs} == {"wandb"}
    assert [run.state for run in runs] == ["finished", "crashed", "crashed", "running"]


def test_listing_goes_over_pages(server, read):
    server.add(*(StoredRun(f"r{i}", f"n{i}", rows_of(1)) for i in range(60)))
    assert [run.id for run in read("ent/proj")] == [f"r{i}" for i in range(60)]
    assert [operation for operation, _ in server.requests].count("Runs") == 2


def test_rows_on_both_sides_of_the_seam_are_one(server, read):
    rows = rows_of(30)
    server.add(StoredRun("r", "n", rows, exported=20, seam=8))
    (run,) = read("ent/proj")
    assert_history(run, rows)
    assert any("twice: 8;" in note for note in run.notes)


@pytest.mark.parametrize("exported", [0, 4, 2])
def test_numbers_that_are_not_finite(server, read, exported):
    values = [math.nan, math.inf, -math.inf, 0.25]
    rows = [{"_step": i, "x": value} for i, value in enumerate(values)]
    server.add(StoredRun("r", "n", rows, exported=exported))
    assert read("ent/proj")[0].history["x"].tolist() == pytest.approx(values, nan_ok=True)


def test_what_is_no_number_is_left_out(server, read):
    row = {
        "_step": 0, "ok": True, "nest": {"deep": {"x": 2}}, "list": [1, 2], "text": "hello",
        "hist": {"_type": "histogram", "values": [1], "bins": [0, 1]}, "none": None, "_wandb": 1,
    }  # fmt: skip
    server.add(StoredRun("r", "n", [row]))
    (run,) = read("ent/proj")
    assert run.history.loc[0.0].dropna().to_dict() == {"ok": 1.0, "nest.deep.x": 2.0}
    assert any("list" in note and "text" in note for note in run.notes)


# the cache


def test_nothing_is_fetched_twice(server, tmp_path):
    odd = [{"_step": 0, "b": math.inf, "step": 4.0}, {"_step": 2, "name/with.dots and ü": 5e-324}]
    server.add(*(StoredRun(f"r.{i}/..", "n", rows_of(9)) for i in range(3)),
               StoredRun("odd", "n", odd), StoredRun("empty", "n", []))
    folder = tmp_path / "seed=1"  # a folder name that Parquet readers like to make a column of
    first = read_wandb_api("ent/proj", cache_dir=folder)
    asked = server.history_requests()
    second = read_wandb_api("ent/proj", cache_dir=folder)
    assert server.history_requests() == asked > 0
    for before, after in zip(first, second, strict=True):
        assert_frame_equal(before.history, after.history, check_exact=True)
        assert before.notes == after.notes


def test_run_that_moved_on_is_fetched_alone(server, read):
    server.add(*(StoredRun(f"r{i}", "n", rows_of(9), state="running") for i in range(3)))
    read("ent/proj")
    asked = {run: server.history_requests(run) for run in server.runs}
    server.runs["r1"].rows += rows_of(20, start=9)
    server.runs["r1"].heartbeat = "2026-01-01T02:00:00Z"
    runs = read("ent/proj")
    assert [len(run.history) for run in runs] == [9, 20, 9]
    assert server.history_requests("r0") == asked["r0"]
    assert server.history_requests("r1") > asked["r1"]


def test_damaged_cache_file_is_fetched_again(server, read, tmp_path):
    server.add(*(StoredRun(f"r{i}", "n", rows_of(9)) for i in range(6)))
    read("ent/proj")
    cut, foreign, empty, text, flipped, _ = sorted((tmp_path / "cache").rglob("*.parquet"))
    content = cut.read_bytes()
    cut.write_bytes(content[:-20])
    pd.DataFrame({"x": [1.0]}).to_parquet(foreign)
    empty.write_bytes(b"")
    text.write_text("PAR1")
    middle = len(content) // 2
    flipped.write_bytes(content[:middle] + bytes(60) + content[middle + 60:])
    for run in read("ent/proj"):
        assert_history(run, rows_of(9))


def test_the_cache_is_the_users_alone_and_holds_no_key(server, monkeypatch, tmp_path):
    server.add(StoredRun("r", "n", rows_of(3)))
    monkeypatch.setenv("WANDB_BASE_URL", server.url.replace("//", "//user:secret@"))
    read_wandb_api("ent/proj", cache_dir=tmp_path)
    (file,) = tmp_path.rglob("*.parquet")
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert not any("secret" in str(path) for path in tmp_path.rglob("*"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://user:secret@127.0.0.1:1")
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(CBSDataError, match="no wandb API key for 127") as caught:
        read_wandb_api("ent/proj", cache_dir=tmp_path)
    assert "secret" not in str(caught.value)


def test_a_cache_that_cannot_be_made(server, tmp_path):
    server.add(StoredRun("r", "n", rows_of(3)))
    (tmp_path / "file").touch()
    with pytest.raises(CBSDataError, match=r"cache .*file.* cannot be written"):
        read_wandb_api("ent/proj", cache_dir=tmp_path / "file")


def test_killed_reading_goes_on_where_it_was(server, tmp_path):
    server.add(*(StoredRun(f"r{i}", "n", rows_of(9)) for i in range(6)))
    server.delay = 0.15
    with reader("service._WORKERS = 1\nservice.read_wandb_api('ent/proj', cache_dir=sys.argv[1])",
                tmp_path) as reading:
        while len(list(tmp_path.rglob("*.parquet"))) < 2:
            assert reading.poll() is None
            time.sleep(0.02)
        reading.kill()
    kept = {path.stem for path in tmp_path.rglob("*.parquet")}
    assert len(kept) < 6

    server.delay = 0.0
    server.requests.clear()
    runs = read_wandb_api("ent/proj", cache_dir=tmp_path)
    assert [len(run.history) for run in runs] == [9] * 6
    assert {who for _, who in server.requests} - {None} == set(server.runs) - kept
    assert list(tmp_path.rglob("*.tmp")) == []


# faults that pass


@pytest.mark.parametrize("kind", [429, 503])
@pytest.mark.parametrize("operation", ["Viewer", "Runs", "RunParquetHistory", "HistoryPage"])
def test_passing_fault_of_a_query(server, read, operation, kind):
    server.add(StoredRun("r", "n", rows_of(9)))
    server.faults.append(Fault(operation, kind, times=2))
    assert_history(read("ent/proj")[0], rows_of(9))
    assert server.faults[0].times == 0


@pytest.mark.parametrize("kind", [403, 429, 500, "drop", "half"])
def test_passing_fault_of_an_export(server, read, kind):
    server.add(StoredRun("r", "n", rows_of(9), exported=9))
    server.faults.append(Fault("export", kind))
    assert_history(read("ent/proj")[0], rows_of(9))
    assert server.faults[0].times == 0


# faults that stay


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault("HistoryPage", 429, math.inf, "bad"), "giving up after"),
        (Fault("RunParquetHistory", 500, math.inf, "bad"), "giving up after"),
        (Fault("RunParquetHistory", 403, math.inf, "bad"), "403"),
        (Fault("export", "half", math.inf, "half"), "EOF"),
        (Fault("HistoryPage", "short", math.inf, "bad"), "4 of 9 history rows"),
    ],
)
def test_failed_run_is_named_and_the_others_are_kept(server, read, fault, why):
    server.add(*(StoredRun(f"r{i}", "n", rows_of(9)) for i in range(3)))
    server.add(StoredRun("half", "cut export", rows_of(9), exported=9))
    server.add(StoredRun("bad", "two\nlines", rows_of(9)))
    server.faults.append(fault)
    with pytest.raises(CBSDataError, match=f"1 of 5 runs .*{why}.*repeat") as caught:
        read("ent/proj")
    named = "two lines (bad)" if fault.run == "bad" else "cut export (half)"
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)

    server.faults.clear()
    server.requests.clear()
    assert [len(run.history) for run in read("ent/proj")] == [9] * 5
    assert {who for _, who in server.requests} - {None} == {fault.run}


def test_scan_that_the_client_would_repeat_for_ever(server, tmp_path):
    """A process of its own: it must also end, though a thread still waits for the client."""
    server.add(StoredRun("ok", "n", rows_of(9)), StoredRun("bad", "n", rows_of(9)))
    server.faults.append(Fault("HistoryPage", 429, math.inf, "bad"))
    code = (
        "import os; os.environ['WANDB_X_GRAPHQL_RETRY_MAX'] = '1000000'\n"
        "for bounds in ((3.0, 9e9), (9e9, 3.0)):\n"
        "    service._RUN_SECONDS, service._TOTAL_SECONDS = bounds\n"
        "    try: service.read_wandb_api('ent/proj', cache_dir=sys.argv[1])\n"
        "    except ValueError as error: print(error)\n"
        "print(service.read_wandb_api('ent/proj', cache_dir=sys.argv[1], skip=['bad'])[0].id)\n")
    with reader(code, tmp_path) as reading:
        printed = reading.communicate(timeout=PATIENCE)[0].splitlines()
    for line, said in zip(printed, ("not done after 3 s", "not done when the whole download",
                                    "ok"), strict=True):
        assert said in line
    assert all("n (bad): " in line for line in printed[:2])
    assert [path.stem for path in tmp_path.rglob("*.parquet")] == ["ok"]


# what the user must mend


@pytest.mark.parametrize("project", ["", "proj", "ent/", "/proj", "ent/proj/x", "ent/a:b", " /p"])
def test_project_is_given_wrongly(project):
    with pytest.raises(CBSDataError, match="names no wandb project; give ENTITY/PROJECT"):
        read_wandb_api(project)


def test_unknown_project(read):
    with pytest.raises(CBSDataError, match="has no project ent/other that this API key may read"):
        read("ent/other")


def test_service_that_is_down(read, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(wandb.setup().settings, "x_graphql_retry_max", 1)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    with pytest.raises(CBSDataError, match=r"cannot list .*refused.*check the network") as caught:
        read("ent/proj")
    assert "\n" not in str(caught.value)
