from __future__ import annotations

import math
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from wandb_server import Fault, StoredRun, child_environment

from cbsbayes.errors import CBSDataError
from cbsbayes.sources import wandb_api
from cbsbayes.sources.wandb_api import read_wandb_api

pytest_plugins = ["wandb_client"]

GSM8K = "val-core/openai/gsm8k/acc/mean@1"
READ = "import sys; from cbsbayes.sources.wandb_api import read_wandb_api as read\n"


def rows_of(n_steps, *, every=5, start=0):
    rows = []
    for step in range(start, n_steps):
        row = {"_step": step, "_runtime": 1.5 * step, "critic/score/mean": step / 7}
        if step % every == 0:
            row[GSM8K] = 0.5 + step / 1000
        rows.append(row)
    return rows


def history_of(rows):
    """Return the history by pandas alone."""
    table = pd.DataFrame(rows).set_index("_step").drop(columns="_runtime").astype(float)
    table.index = table.index.astype(float).rename("step")
    return table[sorted(table.columns)]


def assert_history(run, rows):
    assert_frame_equal(run.history, history_of(rows), check_column_type=False)


@pytest.fixture
def read(tmp_path, server):
    def read(project="ent/proj", **options):
        return read_wandb_api(project, cache_dir=tmp_path / "cache", **options)

    return read


@pytest.fixture
def retries(wandb_home):
    """Return the client's settings, whose bound on retries is put back afterwards."""
    import wandb

    settings = wandb.setup().settings
    before = settings.x_graphql_retry_max
    yield settings
    settings.x_graphql_retry_max = before


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(wandb_api, "_PAUSE", 0.0)


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
    runs = read()
    assert [run.id for run in runs] == ["live", "export", "both", "young"]
    for run in runs[:3]:
        assert_history(run, rows)
        assert run.notes == ()
    assert runs[3].history.empty
    assert runs[0].name == "cbs_p1_np64_nr8"
    assert runs[0].config == config
    assert runs[0].created == "2026-01-01T00:00:00Z"
    assert {run.source for run in runs} == {"wandb"}
    assert [run.state for run in runs] == ["finished", "crashed", "crashed", "running"]


def test_configurations_come_with_the_listing(server, read):
    server.add(*(StoredRun(f"r{i}", "n", rows_of(2), {"seed": i}) for i in range(5)))
    assert [run.config["seed"] for run in read()] == list(range(5))
    assert server.count("Runs") == 1
    assert server.count("Run") == 0


def test_listing_goes_over_pages(server, read):
    server.add(*(StoredRun(f"r{i}", f"n{i}", rows_of(1)) for i in range(60)))
    assert [run.id for run in read()] == [f"r{i}" for i in range(60)]
    assert server.count("Runs") == 2


def test_rows_on_both_sides_of_the_seam_are_one(server, read):
    rows = rows_of(30)
    server.add(StoredRun("r", "n", rows, exported=20, seam=8))
    (run,) = read()
    assert_history(run, rows)
    assert any("8 step(s)" in note for note in run.notes)


def test_later_value_wins_unless_missing(server, read):
    rows = [{"_step": 3, "a": 1.0, "b": 1.0}, {"_step": 3, "a": math.nan, "b": 2.0}]
    server.add(StoredRun("r", "n", rows))
    assert read()[0].history.loc[3.0].to_dict() == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize("exported", [0, 4, 2])
def test_numbers_that_are_not_finite(server, read, exported):
    values = [math.nan, math.inf, -math.inf, 0.25]
    rows = [{"_step": i, "x": value} for i, value in enumerate(values)]
    server.add(StoredRun("r", "n", rows, exported=exported))
    assert read()[0].history["x"].tolist() == pytest.approx(values, nan_ok=True)


def test_what_is_no_number_is_left_out(server, read):
    row = {
        "_step": 0, "ok": True, "nest": {"deep": {"x": 2}}, "list": [1, 2], "text": "hello",
        "hist": {"_type": "histogram", "values": [1], "bins": [0, 1]}, "none": None, "_wandb": 1,
    }  # fmt: skip
    server.add(StoredRun("r", "n", [row]))
    (run,) = read()
    assert run.history.loc[0.0].dropna().to_dict() == {"ok": 1.0, "nest.deep.x": 2.0}
    assert any("list" in note and "text" in note for note in run.notes)


def test_metric_keys_are_canonical(server, read):
    server.add(StoredRun("r", "n", [{"_step": 0, GSM8K.replace("@", "_at_"): 0.5}]))
    assert list(read()[0].history) == [GSM8K]


def test_runs_of_one_name_stay_apart(server, read):
    server.add(StoredRun("a", "same", rows_of(4)), StoredRun("b", "same", rows_of(9, start=4)))
    assert [(run.id, run.name, len(run.history)) for run in read()] == [
        ("a", "same", 4),
        ("b", "same", 5),
    ]


def test_progress_counts_every_run(server, read):
    server.add(*(StoredRun(f"r{i}", "n", rows_of(2)) for i in range(3)))
    seen = []
    read(progress=lambda *counts: seen.append(counts))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    read(progress=lambda *counts: seen.append(counts))
    assert seen[4:] == [(3, 3)]


# the cache


def test_nothing_is_fetched_twice(server, read):
    server.add(*(StoredRun(f"r.{i}/..", "n", rows_of(9)) for i in range(3)))
    first = read()
    asked = server.history_requests()
    second = read()
    assert server.history_requests() == asked > 0
    for before, after in zip(first, second, strict=True):
        assert_frame_equal(before.history, after.history, check_exact=True)
        assert before.notes == after.notes


def test_run_that_moved_on_is_fetched_alone(server, read):
    server.add(*(StoredRun(f"r{i}", "n", rows_of(9), state="running") for i in range(3)))
    read()
    asked = {run: server.history_requests(run) for run in server.runs}
    server.runs["r1"].rows += rows_of(20, start=9)
    server.runs["r1"].heartbeat = "2026-01-01T02:00:00Z"
    runs = read()
    assert [len(run.history) for run in runs] == [9, 20, 9]
    assert server.history_requests("r0") == asked["r0"]
    assert server.history_requests("r1") > asked["r1"]


def test_damaged_cache_file_is_fetched_again(server, read, tmp_path):
    server.add(*(StoredRun(f"r{i}", "n", rows_of(9)) for i in range(3)))
    read()
    cut, foreign, _ = sorted((tmp_path / "cache").rglob("*.parquet"))
    cut.write_bytes(cut.read_bytes()[:-20])
    pd.DataFrame({"x": [1.0]}).to_parquet(foreign)
    for run in read():
        assert_history(run, rows_of(9))


def test_killed_reading_goes_on_where_it_was(server, tmp_path):
    server.add(*(StoredRun(f"r{i}", "n", rows_of(9)) for i in range(6)))
    server.delay = 0.15
    code = READ + "read('ent/proj', cache_dir=sys.argv[1], workers=1)"
    reader = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        stdin=subprocess.DEVNULL,
        env=child_environment(),
    )
    while len(list(tmp_path.rglob("*.parquet"))) < 2:
        assert reader.poll() is None
        time.sleep(0.02)
    reader.kill()
    reader.wait()
    kept = {path.stem for path in tmp_path.rglob("*.parquet")}
    assert len(kept) < 6
    stale = next(tmp_path.rglob("*.parquet")).parent / f".r5.parquet.{reader.pid}-0123abcd.tmp"
    stale.write_bytes(b"cut")

    server.delay = 0.0
    server.requests.clear()
    runs = read_wandb_api("ent/proj", cache_dir=tmp_path)
    assert [len(run.history) for run in runs] == [9] * 6
    assert {who for _, who in server.requests} - {None} == set(server.runs) - kept
    assert not stale.exists()


def test_default_cache_is_the_users(server, tmp_path, monkeypatch):
    server.add(StoredRun("r", "n", rows_of(2)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    read_wandb_api("ent/proj")
    (kept,) = tmp_path.rglob("*.parquet")
    assert kept.relative_to(tmp_path).parts[:2] == ("cbsbayes", "wandb")
    assert kept.relative_to(tmp_path).parts[-3:] == ("ent", "proj", "r.parquet")


# faults that pass


@pytest.mark.parametrize("kind", [429, 500, 503])
@pytest.mark.parametrize("operation", ["Viewer", "Runs", "RunParquetHistory", "HistoryPage"])
def test_passing_fault_of_a_query(server, read, operation, kind):
    server.add(StoredRun("r", "n", rows_of(9)))
    server.faults.append(Fault(operation, kind, times=2))
    assert_history(read()[0], rows_of(9))
    assert server.faults[0].times == 0


def test_connection_dropped_once(server, read):
    server.add(StoredRun("r", "n", rows_of(9)))
    server.faults.append(Fault("HistoryPage", "drop"))
    assert_history(read()[0], rows_of(9))
    assert server.count("HistoryPage") == 2


@pytest.mark.parametrize("kind", [403, 429, 500, "drop", "half"])
def test_passing_fault_of_an_export(server, read, kind):
    server.add(StoredRun("r", "n", rows_of(9), exported=9))
    server.faults.append(Fault("export", kind))
    assert_history(read()[0], rows_of(9))
    assert server.faults[0].times == 0


def test_history_that_once_came_back_short(server, read):
    server.add(StoredRun("r", "n", rows_of(9)))
    server.faults.append(Fault("HistoryPage", "short"))
    assert_history(read()[0], rows_of(9))
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
        read()
    named = "two lines (bad)" if fault.run == "bad" else "cut export (half)"
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)

    server.faults.clear()
    server.requests.clear()
    assert [len(run.history) for run in read()] == [9] * 5
    assert {who for _, who in server.requests} - {None} == {fault.run}


def test_short_history_is_never_kept(server, read, tmp_path):
    server.add(StoredRun("r", "n", rows_of(9), withheld=2))
    with pytest.raises(CBSDataError, match="7 of 9 history rows"):
        read()
    assert list(tmp_path.rglob("*.parquet")) == []


def test_scan_that_the_client_would_repeat_for_ever(server, tmp_path, run_python):
    """A process of its own: it must also end, though a thread still waits for the client."""
    server.add(StoredRun("ok", "n", rows_of(9)), StoredRun("bad", "n", rows_of(9)))
    server.faults.append(Fault("HistoryPage", 429, math.inf, "bad"))
    code = (
        "import os, sys; os.environ['WANDB_X_GRAPHQL_RETRY_MAX'] = '1000000'\n"
        "from cbsbayes.sources import wandb_api\n"
        "wandb_api._RUN_SECONDS = 1.0\n"
        "try: wandb_api.read_wandb_api('ent/proj', cache_dir=sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
    )
    assert "n (bad): not done after 1 s" in run_python(code, tmp_path).stdout
    assert [path.stem for path in tmp_path.rglob("*.parquet")] == ["ok"]


@pytest.mark.parametrize("given", [None, 7])
def test_the_clients_retries_are_bounded_only_while_reading(server, read, retries, given):
    retries.x_graphql_retry_max = given
    server.add(StoredRun("r", "n", rows_of(9)))
    server.faults.append(Fault("HistoryPage", 500, math.inf))
    with pytest.raises(CBSDataError, match=f"giving up after {(given or 4) + 1} attempt"):
        read()
    assert retries.x_graphql_retry_max == given


def test_unfinished_listing_is_an_error(server, read):
    server.add(*(StoredRun(f"r{i}", "n", rows_of(1)) for i in range(51)))
    server.faults.append(Fault("Runs", 404, after=1))
    with pytest.raises(CBSDataError, match="cannot list the runs of ent/proj"):
        read()


# what the user must mend


@pytest.mark.parametrize("project", ["", "proj", "ent/", "/proj", "ent/proj/x", "ent/a:b", " /p"])
def test_project_is_given_wrongly(project):
    with pytest.raises(CBSDataError, match="names no wandb project; give ENTITY/PROJECT"):
        read_wandb_api(project)


def test_unknown_project(read):
    with pytest.raises(CBSDataError, match="has no project ent/other that this API key may read"):
        read("ent/other")


def test_empty_project(read):
    with pytest.raises(CBSDataError, match=r"project ent/proj at .* holds no run"):
        read()


def test_rejected_key(server, read):
    server.faults.append(Fault("Viewer", 401, math.inf))
    with pytest.raises(CBSDataError, match=r"cannot list the runs .*the API key, then repeat"):
        read()


def test_service_that_is_down(read, monkeypatch, retries):
    retries.x_graphql_retry_max = 1
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    with pytest.raises(CBSDataError, match=r"cannot list .*refused.*check the network") as caught:
        read()
    assert "\n" not in str(caught.value)


def test_no_key(server, read, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(CBSDataError, match=r"no wandb API key for .*WANDB_API_KEY or run `wandb"):
        read()
    assert server.requests == []


def test_no_key_at_a_terminal_does_not_ask(server, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    reader = subprocess.Popen(
        [sys.executable, "-c", READ + "read('ent/proj', cache_dir=sys.argv[1])", tmp_path],
        stdin=theirs, stdout=theirs, stderr=theirs, env=child_environment(),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed
            break
    os.close(ours)
    try:
        assert reader.wait(5) == 1
    finally:
        if reader.poll() is None:
            reader.send_signal(signal.SIGKILL)
    assert b"no wandb API key for" in shown
    assert b"Enter your choice" not in shown


def test_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(CBSDataError, match=r"install it with `pip install 'cbsbayes\[wandb\]'`"):
        read_wandb_api("ent/proj")


def test_cache_that_cannot_be_written(server, tmp_path):
    server.add(StoredRun("r", "n", rows_of(2)))
    (tmp_path / "file").touch()
    with pytest.raises(CBSDataError, match=r"cache .* cannot be written; set XDG_CACHE_HOME"):
        read_wandb_api("ent/proj", cache_dir=tmp_path / "file")
