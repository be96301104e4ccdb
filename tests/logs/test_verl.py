"""verl's console and file loggers: genuine logs, cut, damaged, and several runs in one file."""

from __future__ import annotations

import gzip
import math
import os
import pprint

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from verl_loggers import CORE, metric_rows, write_jsonl

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_config import lookup
from cbsbayes.logs.verl import parse_line, parse_row, read_verl

BAR = "Training Progress:  25%|██▌       | 1/4 [00:02<00:08,  2.95s/it]"
printable = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="�")
keys = st.text(printable, min_size=1, max_size=20).filter(
    lambda key: " - " not in f" {key} " and key == key.strip() and key[:1] != ":")
finite = st.floats(allow_nan=False)
numbers = st.one_of(finite, finite.map(np.float64), st.integers(), st.booleans(),
                    st.floats(width=32, allow_nan=False).map(np.float32),
                    st.integers(-(2**62), 2**62).map(np.int64))
before = st.sampled_from(["", "(TaskRunner pid=2101) ", BAR,
                          "(TaskRunner pid=7, ip=10.0.0.1) training/global_step:3 - "])
behind = st.sampled_from(["", " ", BAR, f" {BAR}", " [repeated 2x across cluster]"])


def as_printed(value):
    """Return the number that a reader sees; float32 is printed by its shortest decimal."""
    return float(str(value)) if isinstance(value, np.float32) else float(value)


@given(st.integers(0, 10**9), st.dictionaries(keys.map(lambda key: key.replace(":", "")).filter(
    lambda key: key == key.strip() and key), numbers, min_size=1, max_size=6), before, behind)
@example(12, {CORE: np.float64("nan"), "b": -math.inf}, "", "")
def test_what_verl_prints_is_read_back(step, values, front, tail):
    printed = " - ".join([f"step:{step}", *(f"{k}:{pprint.pformat(v)}" for k, v in values.items())])
    read = parse_line(f"{front}{printed}{tail}\n")
    assert read is not None
    assert (read[0], read[2], set(read[1])) == (step, [], set(values))
    for key, value in values.items():
        np.testing.assert_equal(read[1][key], as_printed(value))


@given(numbers, st.integers(0, 60))
def test_a_cut_line_gives_no_wrong_number(value, length):
    whole = f"step:3 - {CORE}:{pprint.pformat(value)}"
    read = parse_line(whole[: len("step:3 - ") + length])
    if read is not None:
        np.testing.assert_equal(read[1], {CORE: as_printed(value)})


@pytest.mark.parametrize("line", [
    "", "step:1", "training/global_step:12 - actor/lr:1e-06", "timestep:12 - actor/lr:1e-06",
    "step:x - actor/lr:1e-06", "step:3 - nothing here"])
def test_other_lines_are_passed_over(line):
    assert parse_line(line + "\n") is None


def read(path):
    (log,) = read_verl(path, path.parent)
    return log


@pytest.mark.parametrize("content", [b"", os.urandom(5000), b"step:1\nstep:2\n"])
def test_file_without_rows(tmp_path, content):
    path = tmp_path / "x.log"
    path.write_bytes(content)
    with pytest.raises(CBSDataError, match="no line of verl's console or file logger"):
        read(path)


@pytest.fixture
def log(tmp_path):
    write_jsonl(tmp_path, "run", metric_rows(8))
    return tmp_path / "run.jsonl"


def test_genuine_file_log(log):
    run = read(log)
    assert (run.notes, run.settings, run.history.index.tolist()) == ((), (), list(range(14)))
    for step, row in metric_rows(8):  # the logger writes the shortest float32
        kept = run.history.loc[step]
        np.testing.assert_equal({key.removeprefix("actor/grad_noise/"): kept[key] for key in row},
                                {key: as_printed(value) for key, value in row.items()})
    assert math.isnan(run.history.loc[0, "training/global_step"])


def test_recorded_run_by_both_loggers(root):
    by_file, on_screen = (read(root / "tests" / "data" / "verl" / name)
                          for name in ("kl.jsonl", "kl.console.log"))
    pd.testing.assert_frame_equal(by_file.history, on_screen.history)
    assert by_file.history.shape == (5, 102)
    assert by_file.name == on_screen.name == "kl"
    assert by_file.history["val-core/tiny/add2/acc/mean@1"].first_valid_index() == 0


@pytest.mark.parametrize("share", [0.1, 0.33, 0.5, 0.77, 0.999])
def test_a_cut_file_log_loses_only_its_last_row(log, share):
    whole = read(log).history
    content = log.read_bytes()
    log.write_bytes(content[: int(len(content) * share)])
    n_complete = log.read_bytes().count(b"\n")
    run = read(log)
    pd.testing.assert_frame_equal(
        run.history, whole.iloc[:n_complete][run.history.columns], check_exact=True
    )
    assert [f"(line {n_complete + 1})" in note for note in run.notes] == [True]


@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\r\n").encode(), lambda text: text.encode("utf-16"),
    lambda text: b"\xef\xbb\xbf" + text.encode(),
    lambda text: ("\n" + text.replace("\n", "\n\n")).encode(),
], ids=["windows line ends", "utf-16", "byte order mark", "blank lines"])
def test_what_shells_and_editors_do(log, change):
    whole = read(log)
    log.write_bytes(change(log.read_text()))
    run = read(log)
    pd.testing.assert_frame_equal(run.history, whole.history)
    assert run.notes == ()


def test_damage_in_the_middle_is_named(log):
    lines = log.read_bytes().splitlines(keepends=True)
    lines[3] = b"\x00" * 40 + b"\n"
    lines[5] = lines[5].replace(b"grad_norm", b"\xff\xfe\xff")
    lines[7] = b"[1, 2]\n"
    log.write_bytes(b"".join(lines))
    run = read(log)
    assert list(run.history.index) == [0, 1, 2, 4, 6, 8, 9, 10, 11, 12, 13]
    assert run.notes == ("run.jsonl: lines cut or damaged, left out: 3 (line 4, 6, 8)",)


@pytest.mark.parametrize(("line", "row"), [
    ('{"step": 5, "val": {"acc": 0.5, "n": {"x": 1}}}', (5, {"val/acc": 0.5, "val/n/x": 1})),
    ('{"_step": 5, "_runtime": 9, "eval/acc": 0.5}', (5, {"eval/acc": 0.5})),
    ('{"step": 5, "loss": 0.1, "note": "x"}', (5, {"loss": 0.1, "note": "x"})),
    ('{"input": "1+1?", "output": "2", "score": 1.0, "step": 0}', None),
    ('{"step": ' + "9" * 401 + ', "loss": 0.1}', None), ('{"step": 5, "text": "x"}', None),
    ('{"step": 5, "loss"', None), ("[5]", None)])
def test_other_json_lines(line, row):
    assert parse_row(line) == row


def test_a_key_that_is_no_valid_unicode_is_kept(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"step": 1, "data": {"a\\udc80": 1.0}}\n')
    assert read(tmp_path / "x.jsonl").history.columns.tolist() == ["a\\udc80"]


def console(config="", steps=()):
    return config + "".join(f"step:{s} - actor/lr:1e-06 - {CORE}:{s / 100} \n" for s in steps)


def test_every_start_in_a_file_is_a_run_of_its_own(tmp_path):
    """A loop in one Slurm job: the configuration is printed again, the step goes back."""
    def config(n):
        return (f"(TaskRunner pid=7) {{'data': {{'train_batch_size': {n},\n"
                f"(TaskRunner pid=7)           'path': '{{%'}},\n(pid=9) other\n"
                f"(TaskRunner pid=7)  'trainer': {{'experiment_name': 'bs{n}'}}}}\n")
    (tmp_path / "slurm.out").write_text(
        console(config(8), (1, 2, 3)) + console(config(32), (1, 2)) + console("", (1, 2, 3, 4)))
    logs = read_verl(tmp_path / "slurm.out", tmp_path)
    assert [(log.name, log.id, log.settings[0].values["data"]["train_batch_size"], len(log.history))
            for log in logs] == [("bs8", "slurm.out#1", 8, 3), ("bs32", "slurm.out#2", 32, 2),
                                 ("bs32", "slurm.out#3", 32, 4)]


def test_verl_0_1_counts_steps_from_zero(tmp_path):
    (tmp_path / "x.log").write_text(f"step:0 - {CORE}:0.1 \n" + console(steps=(0, 1)))
    assert read(tmp_path / "x.log").history[CORE].to_dict() == {0: 0.1, 1: 0.0, 2: 0.01}


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_compressed_and_cut(tmp_path, suffix):
    path = tmp_path / f"x.log{suffix}"
    content = console("", range(1, 2000)).encode()
    packed = gzip.compress(content) if suffix else content
    path.write_bytes(packed[: len(packed) * 9 // 10])
    assert 1000 < len(read(path).history) < 1999


def test_nul_and_damage_in_console_output_are_said(tmp_path):
    content = console("", (1, 2, 3)).encode().splitlines(keepends=True)
    content[1] = b"step:2 - a\0b:1 - actor/lr:1e-06 \n"
    path = tmp_path / "x.log"
    path.write_bytes(b"vLLM starts\n" + b" " * 5000 + b"\n" + bytes(40) + b"\n" + b"".join(content))
    run = read(path)
    assert list(run.history.columns) == ["actor/lr", CORE]
    assert run.notes == ("x.log: fields without a number, left out: 1, a�b:1",
                         "x.log: lines cut or damaged, left out: 1 (line 3)")


@pytest.mark.parametrize(("lines", "expected"), [
    (["{'data': {'train_batch_size': 8},", " 'x': {'y': <object at 0x7f>, 'z': nan}}"], 8),
    (["\x1b[36m(main pid=7)\x1b[0m {'data': {'train_batch_size': 8}} [repeated 4x across cluster]"],
     8),
    (['{"data": {"train_batch_size": 8}}'], 8),
    (["+ python3 -m verl.trainer.main_ppo data.train_batch_size=8 +a.b='x y'"], 8),
    (["python3 -m verl.trainer.main_ppo data.train_batch_size=" + "9" * 5000], None),
    (["{'data': {'train_batch_size': 8", "never ends"], None),
])
def test_the_configuration_that_a_trainer_prints(tmp_path, lines, expected):
    (tmp_path / "x.log").write_text("\n".join([*lines, console("", (1, 2))]))
    settings = read(tmp_path / "x.log").settings
    batch = lookup(settings[0].values, "data.train_batch_size") if settings else None
    assert batch == expected or (expected is None and isinstance(batch, str))


@pytest.mark.parametrize("line", [" " * 2**19, "<" * 2**18, "python " * 2**16 + "=", "'" * 2**18,
                                  "{'" + "[" * 2**18, "step:1 - " + ":" * 2**18, "(" * 2**18])
def test_hostile_lines_end(tmp_path, line):
    """Each took time that grows with the square of its length under some pattern."""
    (tmp_path / "x.log").write_text(line + "\n" + console("", (1, 2)))
    assert len(read(tmp_path / "x.log").history) == 2
