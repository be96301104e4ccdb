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


def test_the_statuses_are_those_of_the_contract():
    assert (EXIT_OK, EXIT_INPUT, EXIT_SAMPLING) == (0, 1, 3)


@pytest.mark.parametrize(("error", "line"), [
    (CBSDataError("n is 0; valid: 1"), "n is 0; valid: 1"),
    (CBSDataError("run 'a\nTraceback'\x1b[2J"), r"run 'a\nTraceback'\x1b[2J"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.csv"),
     "No such file or directory: x.csv"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    (OSError("short read"), "short read"),
    (RuntimeError("cannot cache function '_law': no locator available for file 'crossing.py'"),
     "compiled code can be kept nowhere; set NUMBA_CACHE_DIR to a folder that can be written"),
])
def test_faults_of_the_input_are_one_line(error, line, capsys):
    assert run_command(failing(error), "cbsbayes.fit") == EXIT_INPUT
    assert capsys.readouterr() == ("", f"cbsbayes.fit: {line}\n")


def test_an_interrupt_is_one_line(capsys):
    assert run_command(failing(KeyboardInterrupt()), "cbsbayes.fit") == 130
    assert capsys.readouterr().err == ("cbsbayes.fit: interrupted; nothing half-written was left "
                                       "behind\n")


@pytest.mark.parametrize("error", [ValueError("ours"), KeyError("ours"), AssertionError("ours")])
def test_faults_of_ours_are_not_hidden(error):
    with pytest.raises(type(error), match="ours"):
        run_command(failing(error), "cbsbayes.fit")


@given(st.text())
def test_one_line_is_one_printable_line(text):
    line = one_line(text)
    assert line.isprintable()
    assert len(line.splitlines()) <= 1
    line.encode()


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_printable_text_stays_as_it_is(text):
    assert one_line(text) == text


def test_an_undecodable_file_name_can_be_printed():
    assert one_line(b"a\xff".decode("utf-8", "surrogateescape")) == "a\\udcff"


def test_a_command_has_one_thread_of_blas_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    assert run_command(lambda: int(os.environ["OPENBLAS_NUM_THREADS"]), "x") == 1
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    assert run_command(lambda: int(os.environ["OPENBLAS_NUM_THREADS"]), "x") == 7
