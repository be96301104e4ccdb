from __future__ import annotations

import math
import re

import pytest
from wandb_histories import assert_history, rows_of
from wandb_server import Fault, StoredRun

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.wandb_service import read_wandb_api

# faults that pass


@pytest.mark.parametrize("kind", [429, 500, 503])
@pytest.mark.parametrize("operation", ["Viewer", "Runs", "RunParquetHistory", "HistoryPage"])
def test_passing_fault_of_a_query(server, read, operation, kind):
    server.add(StoredRun("r", "n", rows_of(9)))
    server.faults.append(Fault(operation, kind, times=2))
    assert_history(read()[0], rows_of(9))
    assert server.faults[0].times == 0


@pytest.mark.parametrize("kind", [403, 429, 500, "drop", "half"])
def test_passing_fault_of_an_export(server, read, kind):
    server.add(StoredRun("r", "n", rows_of(9), exported=9))
    server.faults.append(Fault("export", kind))
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


@pytest.mark.parametrize(("bound", "seconds"), [("_RUN_SECONDS", 3.0), ("_TOTAL_SECONDS", 12.0)])
def test_scan_that_the_client_would_repeat_for_ever(server, tmp_path, run_python, bound, seconds):
    """A process of its own: it must also end, though a thread still waits for the client."""
    server.add(StoredRun("ok", "n", rows_of(9)), StoredRun("bad", "n", rows_of(9)))
    server.faults.append(Fault("HistoryPage", 429, math.inf, "bad"))
    code = (
        "import os, sys; os.environ['WANDB_X_GRAPHQL_RETRY_MAX'] = '1000000'\n"
        "from cbsbayes.logs import wandb_service as wandb_api\n"
        "setattr(wandb_api, sys.argv[2], float(sys.argv[3]))\n"
        "try: wandb_api.read_wandb_api('ent/proj', cache_dir=sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
        "print(wandb_api.read_wandb_api('ent/proj', cache_dir=sys.argv[1], skip=['bad'])[0].id)\n"
    )
    printed = run_python(code, tmp_path, bound, seconds).stdout.splitlines()
    assert re.search(r"n \(bad\): not done (after 3 s|when the whole download)", printed[0])
    assert printed[1] == "ok"
    assert [path.stem for path in tmp_path.rglob("*.parquet")] == ["ok"]


# what the user must mend


@pytest.mark.parametrize("project", ["", "proj", "ent/", "/proj", "ent/proj/x", "ent/a:b", " /p"])
def test_project_is_given_wrongly(project):
    with pytest.raises(CBSDataError, match="names no wandb project; give ENTITY/PROJECT"):
        read_wandb_api(project)


def test_unknown_project(read):
    with pytest.raises(CBSDataError, match="has no project ent/other that this API key may read"):
        read("ent/other")


def test_service_that_is_down(read, monkeypatch, retries):
    retries.x_graphql_retry_max = 1
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    with pytest.raises(CBSDataError, match=r"cannot list .*refused.*check the network") as caught:
        read()
    assert "\n" not in str(caught.value)
