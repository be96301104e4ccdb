"""Faults of the input are one line and status 1; faults of ours stay loud."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    (RuntimeError("cannot cache function '_law': no locator available for file 'crossing.py'"), 1,
     "compiled code can be kept nowhere; set NUMBA_CACHE_DIR to a folder that can be written"),
    (KeyboardInterrupt(), 130, "interrupted; nothing half-written was left behind"),
])
def test_faults_of_the_input_are_one_line(error, status, line, capsys):
    assert run_command(failing(error), "cbsbayes.fit") == status
    assert capsys.readouterr() == ("", f"cbsbayes.fit: {line}\n")


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
