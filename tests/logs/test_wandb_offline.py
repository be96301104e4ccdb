"""Genuine offline wandb runs: resumed, killed, cut and damaged."""

from __future__ import annotations

import math
import os
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from verl_loggers import CORE, write_wandb

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.detect import read_source
from cbsbayes.logs.wandb_offline import read_wandb_file, wandb_records

BLOCK = 32768
NAME = "cbs_p1_np64_nr8"
CONFIG = {"data": {"train_batch_size": 64, "seed": 1}, "trainer": {"logger": ["wandb"]}}


def rows_of(first, last):
    rows = []
    for step in range(first, last + 1):
        row = {f"actor/metric_{i}": step / (i + 3) for i in range(16)}
        row["odd"] = [math.nan, math.inf, -math.inf, 1e300][step % 4]
        row["whole"] = 7 * step
        if step % 5 == 0:
            row[CORE] = 0.5 + step / 1000
        rows.append((step, row))
    return rows


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Write genuine offline runs: two attempts of one, one that failed, one empty, one killed."""
    folder = tmp_path_factory.mktemp("offline")
    first = {"id": "aaa", "name": NAME, "config": CONFIG}
    rows = [(step, row | {"list": [1, 2], "said": "yes"}) for step, row in rows_of(0, 90)]
    late = {"config": {"late": {"x": 1}}, "pause": 1.1}
    write_wandb(folder, first | {"rows": rows, "then": late}, first | {"rows": rows_of(80, 99)},
                {"id": "bbb", "name": "failed", "rows": rows_of(0, 2), "then": {"exit": 1}},
                {"id": "ccc", "rows": []},
                {"id": "ddd", "rows": rows_of(0, 199), "then": {"kill": True}})
    return folder


@pytest.fixture(scope="module")
def runs(offline):
    return read_source(str(offline))[0]


@pytest.fixture(scope="module")
def log_bytes(offline, runs):
    return (offline / runs[0].id).read_bytes()


def config_of(run):
    return next(values for name, values in run.settings if name == "configuration")


def read_bytes(folder, data):
    path = folder / "run-aaa.wandb"
    path.write_bytes(data)
    return read_wandb_file(path, folder)


def framed(records):
    """Write a log as LevelDB's format has it."""
    out = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for record in records:
        left, kinds = record, (1, 2)
        while kinds:
            room = BLOCK - len(out) % BLOCK
            if room < 7:
                out += bytes(room)
                room = BLOCK
            piece, left = left[: room - 7], left[room - 7 :]
            kind = kinds[1] if left else kinds[0]
            checksum = zlib.crc32(bytes([kind]) + piece)
            out += struct.pack("<IHB", checksum, len(piece), kind) + piece
            kinds = (4, 3) if left else None
    return bytes(out)


# what genuine runs hold


def test_rows_come_as_they_were_logged(runs):
    logged = rows_of(0, 90)
    assert runs[0].history.index.tolist() == [step for step, _ in logged]
    for step, row in logged:
        kept = runs[0].history.loc[step].to_dict()
        assert {k: v for k, v in kept.items() if v == v} == {
            k: v for k, v in row.items() if v == v}
    assert runs[0].history.dtypes.eq("float64").all()
    assert runs[0].notes == ("not numbers, left out: list, said",)


def test_runs_say_who_they_are(runs):
    assert [(run.name, run.state, run.source) for run in runs] == [
        (name, state, "wandb_file") for name, state in [
            (NAME, "finished"), (NAME, "finished"), ("failed", "failed"), ("ccc", "finished"),
            ("ddd", "running")]]
    assert config_of(runs[0]) == CONFIG | {"late": {"x": 1}}
    assert runs[3].history.empty


def test_killed_writer_leaves_the_first_rows(offline, runs):
    killed = runs[4]
    assert 0 < len(killed.history) <= 200
    assert killed.history.index.tolist() == list(range(len(killed.history)))
    os.utime(offline / killed.id, (0, 0))
    assert read_wandb_file(offline / killed.id, offline).state == "crashed"


# the framing


RECORDS = st.lists(st.builds(
    lambda seed, size: (seed * (size // len(seed) + 1))[:size], st.binary(min_size=1, max_size=9),
    st.sampled_from([0, 1, 6, 100, BLOCK - 14, BLOCK - 7, BLOCK, 3 * BLOCK])), max_size=6)


@given(RECORDS)
@settings(max_examples=60)
def test_records_of_any_size_come_back(records):
    assert wandb_records(framed(records)) == (records, 0)


# damage to genuine logs

PLACES = st.integers(0, 2**20)  # of a log whose length differs from day to day
DAMAGE = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(data=st.data())
@DAMAGE
def test_a_log_cut_anywhere_gives_its_first_rows(log_bytes, runs, tmp_path, data):
    cut = 200 + data.draw(PLACES) % (len(log_bytes) - 200)
    run = read_bytes(tmp_path, log_bytes[:cut])
    first = runs[0].history.iloc[: len(run.history)]
    assert_frame_equal(run.history, first[run.history.columns])


@given(data=st.data())
@DAMAGE
def test_a_flipped_byte_costs_little(log_bytes, runs, tmp_path, data):
    damaged = bytearray(log_bytes)
    damaged[data.draw(PLACES) % len(log_bytes)] ^= data.draw(st.integers(1, 255))
    run = read_bytes(tmp_path, bytes(damaged))
    whole = runs[0].history
    assert len(run.history) >= len(whole) - 30  # at most the rest of one block
    assert_frame_equal(run.history, whole.loc[run.history.index][run.history.columns])
    assert any("damaged or cut" in note for note in run.notes)


def test_a_lost_beginning_leaves_the_rows(log_bytes, runs, tmp_path):
    run = read_bytes(tmp_path, bytes(BLOCK) + log_bytes[BLOCK:])
    assert (run.name, config_of(run), run.created) == ("aaa", {}, "")
    assert run.history.index[-1] == 90
    assert any("no record of the run" in note for note in run.notes)


def test_an_intact_frame_around_nonsense_is_noted(log_bytes, runs, tmp_path):
    nonsense = [b"\x80", b"\x12\x03\xff\xff\xff", b"", b"\x12\x06\x0a\x04\x82\x01\x01["]
    run = read_bytes(tmp_path, framed([*nonsense, *wandb_records(log_bytes)[0]]))
    assert_frame_equal(run.history, runs[0].history)
    assert any("could not be decoded: 3" in note for note in run.notes)


# configuration records


def test_configuration_follows_updates_and_removals(tmp_path):
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")

    def record(update=(), remove=()):
        change = pb.ConfigRecord(
            update=[pb.ConfigItem(nested_key=k.split("."), value_json=v) for k, v in update],
            remove=[pb.ConfigItem(nested_key=k.split(".")) for k in remove])
        return pb.Record(config=change).SerializeToString()

    changes = [
        record([("a", '{"b": 1, "c": 2}'), ("lr", "1e-6"), ("_wandb", "{}")]),
        record([("a.b", "3"), ("new.deep", '"x"'), ("lr.base", "1")], ["a.c", "gone.too"]),
    ]
    run = read_bytes(tmp_path, framed(changes))
    assert config_of(run) == {"a": {"b": 3}, "new": {"deep": "x"}, "lr": {"base": 1}}


# what the user must mend


@pytest.mark.parametrize("data", [b"", b":W&B", b"\x89HDF\r\n" * 9000])
def test_no_wandb_log(tmp_path, data):
    (tmp_path / "run-x.wandb").write_bytes(data)
    with pytest.raises(CBSDataError, match=r"no run in .*run-x\.wandb holds no wandb record"):
        read_source(str(tmp_path))
