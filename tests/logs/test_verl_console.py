"""verl's console logger: one line among everything else a terminal shows."""

from __future__ import annotations

import math
import os
import pprint

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from verl_loggers import CORE, metric_rows, verl_module, write_console

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.verl_console import parse_line, read_verl_console

printable = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="�")
keys = st.text(printable, min_size=1, max_size=20).filter(
    lambda key: " - " not in f" {key} " and key == key.strip()
)
finite = st.floats(allow_nan=False)
numbers = st.one_of(
    finite,
    finite.map(np.float64),
    st.floats(width=32, allow_nan=False).map(np.float32),
    st.integers(-(2**62), 2**62).map(np.int64),
    st.integers(),
    st.booleans(),
)
before = st.sampled_from(
    [
        "",
        "(TaskRunner pid=2101) ",
        "Training Progress:  25%|██▌       | 1/4 [00:02<00:08,  2.95s/it]",
        "(TaskRunner pid=7, ip=10.0.0.1) training/global_step:3 - ",
    ]
)
behind = st.sampled_from(
    [
        "",
        " ",
        "Training Progress:  25%|██▌       | 1/4 [00:02<00:08,  2.95s/it]",
        " Training Progress:  25%|██▌       | 1/4 [00:02<00:08,  2.95s/it]",
        " [repeated 2x across cluster]",
    ]
)


def as_printed(value):
    """Return the number that a reader sees; float32 is printed by its shortest decimal."""
    return float(str(value)) if isinstance(value, np.float32) else float(value)


@given(
    st.integers(0, 10**9),
    st.dictionaries(keys.filter(lambda key: ":" not in key), numbers, min_size=1, max_size=6),
    before,
    behind,
)
@example(12, {CORE: np.float64("nan"), "b": -math.inf}, "", "")
def test_what_verl_prints_is_read_back(step, values, front, tail):
    printed = " - ".join([f"step:{step}", *(f"{k}:{pprint.pformat(v)}" for k, v in values.items())])
    read = parse_line(f"{front}{printed}{tail}\n")
    assert read is not None
    assert read[0] == step
    assert read[2] == []
    assert set(read[1]) == set(values)
    for key, value in values.items():
        np.testing.assert_equal(read[1][key], as_printed(value))


@given(st.integers(0, 9999), keys, numbers)
def test_a_key_may_hold_colons(step, key, value):
    read = parse_line(f"step:{step} - a:1 - x:{key}:{pprint.pformat(value)} - b:2\n")
    assert read is not None
    assert read[1] == {"a": 1.0, f"x:{key}": as_printed(value), "b": 2.0}


@given(st.text())
def test_no_line_is_too_odd(line):
    read = parse_line(line)
    if read is not None:
        assert read[0] >= 0
        assert all(isinstance(value, float) for value in read[1].values())


@given(numbers, st.integers(0, 60))
def test_a_cut_line_gives_no_wrong_number(value, length):
    whole = f"step:3 - {CORE}:{pprint.pformat(value)}"
    read = parse_line(whole[: len("step:3 - ") + length])
    if read is not None:
        np.testing.assert_equal(read[1], {CORE: as_printed(value)})


def test_the_genuine_logger_prints_such_lines(capsys):
    logger = verl_module("utils/logger/aggregate_logger.py").LocalLogger()
    logger.log({"a:b": np.float64(0.5), "flag": True, "text": "no number", "n": None}, 7)
    assert parse_line(capsys.readouterr().out) == (7.0, {"a:b": 0.5, "flag": 1.0}, [])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "step:1",
        "training/global_step:12 - actor/lr:1e-06",
        "timestep:12 - actor/lr:1e-06",
        "step:x - actor/lr:1e-06",
        "step:3 - nothing here",
    ],
)
def test_other_lines_are_passed_over(line):
    assert parse_line(line + "\n") is None


def read(path):
    return read_verl_console(path, path.parent)


def test_a_whole_log(tmp_path):
    write_console(tmp_path, "run", metric_rows(8))
    run = read(tmp_path / "run.log")
    assert (run.id, run.name, run.source) == ("run.log", "run", "verl_console")
    assert run.notes == ()
    assert list(run.history.index) == list(range(14))
    for step, row in metric_rows(8):
        for key, value in row.items():
            np.testing.assert_equal(np.float64(run.history.loc[step, key]), float(str(value)))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_windows_shells_write(tmp_path, encoding):
    write_console(tmp_path, "run", metric_rows(8))
    whole = read(tmp_path / "run.log").history
    text = (tmp_path / "run.log").read_text(encoding="utf-8")
    (tmp_path / "run.log").write_text(text, encoding=encoding, newline="\r\n")
    assert read(tmp_path / "run.log").history.equals(whole)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
def test_cut_anywhere_no_value_is_wrong(tmp_path, share):
    write_console(tmp_path, "run", metric_rows(8))
    path = tmp_path / "run.log"
    whole = read(path).history
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    history = read(path).history
    expected = whole.loc[history.index, history.columns]
    assert len(history) >= int(14 * share) - 1
    assert (history.isna() | (history == expected)).all(axis=None)


def test_field_cut_off_is_named(tmp_path):
    path = tmp_path / "run.log"
    path.write_text(f"step:1 - a:1.5 - {CORE}:0.6")
    run = read(path)
    assert list(run.history.columns) == ["a"]
    assert run.notes == (f"run.log: 1 field(s) without a number, left out: {CORE}:0.6",)


@pytest.mark.parametrize("content", [b"", os.urandom(5000), b"step:1\nstep:2\n"])
def test_file_without_rows(tmp_path, content):
    path = tmp_path / "x.log"
    path.write_bytes(content)
    with pytest.raises(CBSDataError, match="no line of verl's console logger"):
        read(path)
