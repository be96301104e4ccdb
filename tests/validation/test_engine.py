"""Fits in processes and on a cluster: all are done, failures kept, deaths told, nothing redone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed import LocalCluster
from signals import PATIENCE

from cbsbayes.errors import CBSDataError
from cbsbayes.validation.engine import Ledger, executor, run_sweeps

SETTINGS = {"draws": 500, "thresholds": [0.6, 0.7]}


def work(seed):
    """Return a record that says where it was made; one seed fails."""
    if seed == 3:
        raise ValueError("no crossing\nanywhere")
    time.sleep(0.05)
    return {"rows": [[os.getpid(), os.environ.get("OMP_NUM_THREADS")]], "sampling": {}}


def die(seed):
    """End the worker as the system does when memory is short; the first seeds return."""
    if seed == 2:
        time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGKILL)
    return {"rows": [], "sampling": {}}


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "study.jsonl", {})


def test_processes_of_one_thread(ledger, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    advanced = []
    with executor(2) as pool:
        run_sweeps(work, range(8), ledger, pool, lambda: advanced.append(1))
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert sorted(ledger.records) == list(range(8))
    assert len(advanced) == 8
    assert ledger.records[3]["error"] == "ValueError: no crossing anywhere"
    rows = [ledger.records[seed]["rows"][0] for seed in ledger.finished]
    assert {threads for _, threads in rows} == {"1"}
    assert os.getpid() not in {process for process, _ in rows}


def test_a_worker_that_dies_stops_the_study_and_keeps_what_is_finished(ledger):
    with executor(1) as pool, pytest.raises(CBSDataError, match="2 of 4 sweeps are kept"):
        run_sweeps(die, range(4), ledger, pool)
    assert ledger.finished == {0, 1}


_STUDY = """
import os, time
from cbsbayes.validation.engine import executor

if __name__ == "__main__":
    with executor(2) as pool:
        workers = {pool.submit(os.getpid).result() for _ in range(2)}
        slow = pool.submit(time.sleep, 600)
        print(*workers, flush=True)
        slow.result()
"""


def test_a_command_that_is_killed_leaves_no_worker_behind(tmp_path):
    script = tmp_path / "study.py"
    script.write_text(_STUDY)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE,
                          text=True) as command:
        workers = [int(pid) for pid in command.stdout.readline().split()]
        assert workers
        command.kill()
    until = time.monotonic() + PATIENCE
    while any(map(_runs, workers)):
        assert time.monotonic() < until, "a worker runs on without its command"
        time.sleep(0.05)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1",
                      dashboard_address=None) as cluster:
        yield cluster


def test_a_cluster_of_two_worker_processes(cluster, ledger):
    with executor(1, cluster.scheduler_address) as pool:
        run_sweeps(work, range(12), ledger, pool)
    assert sorted(ledger.records) == list(range(12))
    assert ledger.records[3]["error"] == "ValueError: no crossing anywhere"
    processes = {ledger.records[seed]["rows"][0][0] for seed in ledger.finished}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_a_scheduler_that_does_not_answer(monkeypatch):
    monkeypatch.setattr("cbsbayes.validation.engine._PATIENCE", 1)
    with pytest.raises(CBSDataError, match="no Dask scheduler with a worker at"), \
            executor(1, "tcp://127.0.0.1:9"):
        pass


@pytest.fixture
def path(tmp_path):
    ledger = Ledger(tmp_path / "new" / "study.jsonl", SETTINGS)
    ledger.add(0, {"rows": [["a", 0.6, float("inf")]], "sampling": {}})
    ledger.add(1, {"error": "ValueError: once"})
    return ledger.path


def test_sweeps_are_found_again_but_failed_or_cut_off_ones(path):
    path.write_text(path.read_text() + '{"seed": 2, "rows": [["a", 0.')
    again = Ledger(path, SETTINGS)
    assert again.finished == {0}
    assert again.records[0]["rows"] == [["a", 0.6, float("inf")]]
    with executor(1) as pool:
        run_sweeps(work, range(3), again, pool)
    assert Ledger(path, SETTINGS).finished == {0, 1, 2}
    assert again.records[0]["rows"] == [["a", 0.6, float("inf")]]  # not fitted again


def test_other_settings_are_refused(path):
    with pytest.raises(CBSDataError, match="made with draws = 500, now draws is 400"):
        Ledger(path, SETTINGS | {"draws": 400})
    with pytest.raises(CBSDataError, match="made with law = None, now law is 'total'"):
        Ledger(path, SETTINGS | {"law": "total"})


@pytest.mark.parametrize("content", ["run,step\n1,2\n", "[1]\n", '{"seed": 0}\n'])
def test_a_file_that_is_no_ledger_is_left_alone(tmp_path, content):
    path = tmp_path / "other.jsonl"
    path.write_text(content)
    with pytest.raises(CBSDataError, match="not a file of cbsbayes"):
        Ledger(path, SETTINGS)
    assert path.read_text() == content
