"""Stages are timed one after the other, and nothing is counted twice."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from cbsbayes.timings import Timings, timings_table


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by one second whenever it is told to."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: now[0] / 2)

    def wait(seconds):
        now[0] += seconds

    return wait


def spent(timings):
    return {row.stage: row.seconds for row in timings.rows()}


def test_a_stage_ends_where_the_next_begins(clock):
    timings = Timings()
    clock(5)  # before any stage: nobody's
    timings("reading")
    clock(1)
    timings("fitting")
    clock(2)
    timings.stop()
    clock(7)
    assert spent(timings) == {"reading": 1, "fitting": 2}
    assert [row.cpu_seconds for row in timings.rows()] == [0.5, 1]


def test_a_stage_met_again_is_summed(clock):
    timings = Timings()
    for name, seconds in (("a", 1), ("b", 2), ("a", 4)):
        timings(name)
        clock(seconds)
    timings.stop()
    assert spent(timings) == {"a": 5, "b": 2}


def test_the_display_is_told_each_stage():
    told = []
    timings = Timings(told.append)
    timings("reading")
    timings("fitting")
    assert told == ["reading", "fitting"]


def test_the_table_adds_up(clock):
    timings = Timings()
    for name, seconds in (("reading", 1.5), ("fitting", 2.25)):
        timings(name)
        clock(seconds)
    timings.stop()
    lines = timings_table(timings.rows()).splitlines()
    assert lines[1:4] == ["    1.50    0.75  reading", "    2.25    1.12  fitting",
                          "    3.75    1.88  all stages"]


def test_peak_memory_grows_with_what_is_held():
    # in a process of its own, which on Linux begins with the peak of the one that starts it
    code = ("from cbsbayes.timings import peak_memory; before = peak_memory(); "
            "held = bytearray(b'x') * ((int(before or 0) + 200) * 2**20); "
            "print(before, peak_memory(), len(held) / 2**20)")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if "None" in ended.stdout:
        pytest.skip("this system does not tell")
    before, after, held = map(float, ended.stdout.split())
    assert held == int(before) + 200
    assert after - before > 150
    assert 5 < before < 100_000
