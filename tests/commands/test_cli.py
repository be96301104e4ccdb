"""Faults of the input are one line and status 1; faults of ours stay loud."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.__main__ import command_of
from cbsbayes._command import EXIT_INPUT, EXIT_OK, EXIT_SAMPLING, run_command
from cbsbayes.errors import CBSDataError, one_line


def failing(error):
    def body():
        raise error

    return body


@pytest.mark.parametrize("status", [EXIT_OK, EXIT_SAMPLING])
def test_a_body_gives_the_status(status, capsys):
    assert run_command(lambda: status, "cbsbayes.fit") == status
    assert capsys.readouterr() == ("", "")
    assert (EXIT_OK, EXIT_INPUT, EXIT_SAMPLING) == (0, 1, 3)


@pytest.mark.parametrize(("error", "status", "line"), [
    (CBSDataError("n is 0; valid: 1"), 1, "n is 0; valid: 1"),
    (CBSDataError("run 'a\nTraceback'\x1b[2J"), 1, r"run 'a\nTraceback'\x1b[2J"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.csv"), 1,
     "No such file or directory: x.csv"),
    (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device"),
    (MemoryError("9 TiB"), 1, "out of memory (9 TiB); raise the limit (ulimit -v, a batch system's "
     "--mem) or give fewer runs, thresholds or draws"),
    (RuntimeError("cannot cache function '_law': no locator available for file 'crossing.py'"), 1,
     "compiled code can be kept nowhere; set NUMBA_CACHE_DIR to a folder that can be written"),
])
def test_faults_of_the_input_are_one_line(error, status, line, capsys):
    assert run_command(failing(error), "cbsbayes.fit") == status
    assert capsys.readouterr() == ("", f"cbsbayes.fit: {line}\n")


@pytest.mark.parametrize(("number", "status", "what"), [
    (signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_a_signal_is_one_line(number, status, what, capsys):
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {which: signal.signal(which, handler) for which, handler in usual.items()}
    try:
        assert run_command(lambda: signal.raise_signal(number), "cbsbayes.fit") == status
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
    assert capsys.readouterr().err == (f"cbsbayes.fit: {what}; every output is whole: as it was "
                                       "before, or finished\n")


def test_a_limit_on_memory_that_no_library_can_be_loaded_with_is_one_line():
    code = ("import resource, sys\n"
            "from cbsbayes.fit import main\n"
            "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
            "sys.exit(main(['none.nc']))\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("cbsbayes.fit: the limit on memory (ulimit -v) is 1.0 GiB of address "
                           "space; valid: at least 3 GiB\n")


@pytest.mark.parametrize("error", [ValueError("ours"), RuntimeError("ours")])
def test_faults_of_ours_are_not_hidden(error):
    with pytest.raises(type(error), match="ours"):
        run_command(failing(error), "cbsbayes.fit")


@given(st.text())
def test_one_line_is_one_printable_line(text):
    line = one_line(text)
    assert line.isprintable()
    assert line == text or not text.isprintable()
    line.encode()


def test_an_undecodable_file_name_can_be_printed():
    assert one_line(b"a\xff".decode("utf-8", "surrogateescape")) == "a\\udcff"


def test_a_command_has_one_thread_of_blas_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    assert run_command(lambda: int(os.environ["OPENBLAS_NUM_THREADS"]), "x") == 1
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    assert run_command(lambda: int(os.environ["OPENBLAS_NUM_THREADS"]), "x") == 7


@pytest.mark.parametrize(("command", "arguments"), [
    *(("fit", arguments) for arguments in (
        ["--draws", "many"], ["--thresholds", "0.5,high"], ["--sampler", "gibbs"], ["--nothing"],
        ["--seed", "-1"], ["--seed", "1.5"], ["--seed", str(2**32)], ["--rule", "last"],
        ["--model", "oracle"], ["a.nc", "b.nc"], ["--watch", "5"])),
    *(("allocate", ["fit", *options]) for options in (
        ["--batch", "8.5"], ["--batch", "0"], ["--target-updates", "1", "--target-samples", "1"],
        ["--gpus", "eight"])),
    *(("validate", arguments) for arguments in (
        ["--sweeps", "0"], ["--first", "-1"], ["--workers", "x"], ["--thresholds", "low"],
        ["everything"])),
    ("compare", ["fit", "--seed", "-1"]), ("compare", []), ("simulate", [])])
def test_usage_is_status_2(command, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_of(command)(arguments)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"usage: python -m cbsbayes.{command} ")
