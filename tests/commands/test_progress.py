"""Stages are shown with the time left, timed one after the other, and nothing is counted twice."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from cbsbayes._command import Timings, shown_stages, timings_table


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by so many seconds when it is asked to."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: now[0] / 2)

    def wait(seconds):
        now[0] += seconds

    return wait


def test_numbered_stages_tell_the_time_left(clock, capsys):
    with shown_stages("fit", quiet=False) as show:
        for text in ("reading", "law 1 of 3", "law 2 of 3", "law 3 of 3", "writing"):
            show(text)
            clock(4)
    with shown_stages("fit", quiet=True) as show:
        show("nothing")
    assert capsys.readouterr().err.splitlines() == [
        "fit: reading …", "fit: law 1 of 3 …", "fit: law 2 of 3, 8 s left …",
        "fit: law 3 of 3, 4 s left …", "fit: writing …"]


def test_a_stage_ends_where_the_next_begins_and_is_summed_when_met_again(clock):
    names = []
    timings = Timings(names.append)
    clock(5)  # before any stage: nobody's
    for name, seconds in (("reading", 1), ("fitting", 2.25), ("reading", 0.5)):
        timings(name)
        clock(seconds)
    timings.stop()
    clock(7)
    assert names == ["reading", "fitting", "reading"]
    assert [(row.stage, row.seconds, row.cpu_seconds) for row in timings.rows()] == [
        ("reading", 1.5, 0.75), ("fitting", 2.25, 1.125)]
    assert timings_table(timings.rows()).splitlines()[1:4] == [
        "    1.50    0.75  reading", "    2.25    1.12  fitting", "    3.75    1.88  all stages"]


def test_peak_memory_grows_with_what_is_held():
    # in a process of its own, which on Linux begins with the peak of the one that starts it
    code = ("from cbsbayes._command import peak_memory; before = peak_memory(); "
            "held = bytearray(b'x') * ((int(before) + 200) * 2**20); "
            "print(before, peak_memory())")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(float, ended.stdout.split())
    assert after - before > 150
    assert 5 < before < 100_000
