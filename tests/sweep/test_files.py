from __future__ import annotations

import csv
import io
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.sweep.files import (
    kind_of,
    read_sweep,
    read_tree,
    write_csv,
    write_sweep,
    write_tree,
    write_whole,
)

FLOATS = st.floats(allow_infinity=False, allow_nan=True, width=64)


def small_sweep(value=0.5, runs=3, steps=4):
    return new_sweep({"run": [f"r{i}" for i in range(runs)], "n_prompts": [64] * runs,
                      "n_rollouts": [8] * runs},
                     accuracy=np.full((runs, 1, steps), value), step=np.arange(steps),
                     metric=["openai/gsm8k"])


def test_a_sweep_comes_back_identical_and_opens_without_us(tmp_path):
    ds = small_sweep()
    assert write_sweep(ds, tmp_path / "sweep.nc") == tmp_path / "sweep.nc"
    assert read_sweep(tmp_path / "sweep.nc").identical(ds)
    with xr.open_dataset(tmp_path / "sweep.nc") as plain:
        assert plain["accuracy"].dims == ("run", "metric", "step")
        assert plain.attrs["digest"] == ds.attrs["digest"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["sweep.nc"]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_sweep_survives_the_file(tmp_path, data):
    runs = data.draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4,
                              unique_by=lambda text: text.rstrip("\0").encode("utf-8", "replace")))
    count = len(runs)
    steps = data.draw(st.lists(st.integers(0, 10**9), min_size=1, max_size=5, unique=True))
    ds = new_sweep(
        {"run": runs, "total_batch": data.draw(st.lists(st.integers(1, 10**6), min_size=count,
                                                        max_size=count)),
         "name": data.draw(st.lists(st.text(max_size=20), min_size=count, max_size=count)),
         "remark": data.draw(st.lists(st.text(max_size=20), min_size=count, max_size=count)),
         "seed": data.draw(st.lists(st.none() | st.integers(0, 2**31), min_size=count,
                                    max_size=count))},
        accuracy=data.draw(hnp.arrays(np.float64, (count, 1, len(steps)), elements=FLOATS)),
        step=sorted(steps), metric=["m"], title=data.draw(st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)))
    write_sweep(ds, tmp_path / "sweep.nc")
    assert read_sweep(tmp_path / "sweep.nc").identical(ds)


def test_a_sweep_that_another_program_wrote_is_refused(tmp_path):
    small_sweep().to_netcdf(tmp_path / "other.nc", engine="netcdf4")
    with pytest.raises(CBSDataError, match=r"other\.nc: the file is damaged, or was not written"):
        read_sweep(tmp_path / "other.nc")


@settings(max_examples=100)
@given(at=st.floats(0, 1, exclude_max=True), length=st.integers(1, 4096),
       byte=st.integers(0, 255))
def test_no_damage_reaches_the_library(root, tmp_path_factory, at, length, byte):
    """A block of the shipped sweep with other bytes; HDF5 never came back from a zeroed one."""
    content = bytearray((root / "data" / "tiny_grpo" / "sweep.nc").read_bytes())
    start = int(at * len(content))
    block = bytes([byte]) * min(length, len(content) - start)
    assume(content[start:start + len(block)] != block)
    content[start:start + len(block)] = block
    path = tmp_path_factory.getbasetemp() / "damaged.nc"
    path.write_bytes(content)
    for read in (read_sweep, read_tree, kind_of):
        with pytest.raises(CBSDataError, match=r"the file is damaged|not netCDF \(wrong first"):
            read(path)


def test_a_fit_with_a_zeroed_block_of_draws_is_refused(tmp_path):
    draws = np.random.default_rng(0).random((4, 500))
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"S_min": (("chain", "draw"), draws)})})
    tree.attrs["verdict"] = '{"level": "good"}'
    path = write_tree(tree, tmp_path / "fit.nc")
    content, again = path.read_bytes(), draws.tobytes()[800:1312]
    xr.testing.assert_identical(read_tree(path), tree)
    assert content.count(again) == 1
    for old, new in ((again, bytes(512)), (b'"good"', b'"poor"')):
        path.write_bytes(content.replace(old, new))
        with pytest.raises(CBSDataError, match="the file is damaged"):
            read_tree(path)


@pytest.mark.parametrize("keep", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, keep):
    ds = small_sweep(runs=50, steps=50)
    for path, read in ((write_sweep(ds, tmp_path / "sweep.nc"), read_sweep),
                       (write_tree(xr.DataTree(ds), tmp_path / "fit.nc"), read_tree)):
        content = path.read_bytes()
        path.write_bytes(content[:int(len(content) * keep)])
        with pytest.raises(CBSDataError, match=r"damaged|not netCDF"):
            read(path)


def test_no_file_is_written_where_none_can_be(tmp_path):
    with pytest.raises(CBSDataError, match="does not exist; create it"):
        write_whole(tmp_path / "no" / "file", "x")
    with pytest.raises(CBSDataError, match="is a folder"):
        write_whole(tmp_path, "x")
    with pytest.raises(CBSDataError, match="no 'seed'"):
        write_sweep(small_sweep().drop_vars("seed"), tmp_path / "sweep.nc")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_replaces_nothing_but_a_sweep(tmp_path):
    (tmp_path / "link").symlink_to("nothing")
    (tmp_path / "text").write_text("mine")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    xr.Dataset({"x": ("y", [1.0])}).to_netcdf(tmp_path / "other", engine="netcdf4")
    before = sorted(tmp_path.iterdir())
    for path in [*before, Path("/dev/null")]:
        with pytest.raises(CBSDataError, match="is there and is no sweep; only sweeps are"):
            write_sweep(small_sweep(), path)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "text").read_text() == "mine"


@pytest.mark.parametrize(("cell", "written"), [
    ("=1+1", "'=1+1"), ("+cmd", "'+cmd"), ("@SUM(A1)", "'@SUM(A1)"), ("-2+3", "'-2+3"),
    ("\tx", "'\tx"), ("x\r=1", r"x\r=1"), ("-2", "-2"), ("+1e-3", "+1e-3"), ("-inf", "-inf"),
    ("a=1", "a=1"), ("", ""), (-1.5, "-1.5")])
def test_no_cell_is_run_by_a_spreadsheet(tmp_path, cell, written):
    write_csv(tmp_path / "t.csv", pd.DataFrame({"run": [cell], "=x": ["y"], "n": [-3]}))
    head, row = csv.reader(io.StringIO((tmp_path / "t.csv").read_bytes().decode(), newline=""))
    assert head == ["run", "'=x", "n"]
    assert row == [written, "y", "-3"]


def test_text_and_bytes_are_written_whole_with_usual_rights(tmp_path):
    assert write_whole(tmp_path / "a.txt", "ü\n").read_bytes() == "ü\n".encode()
    (tmp_path / "a.txt").chmod(0o640)
    assert write_whole(tmp_path / "a.txt", b"\x00").read_bytes() == b"\x00"
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
    (tmp_path / "a.txt").unlink()
    write_whole(tmp_path / "a.txt", "new")
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = write_sweep(small_sweep(), tmp_path / "sweep.nc")
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_sweep(small_sweep(0.7), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["sweep.nc"]


# Stops between writing and renaming, the widest window there is.
CHILD = """
    import os, sys, time
    from cbsbayes.sweep.files import write_whole
    real = os.fsync
    def slow(handle):
        real(handle)
        print("written", flush=True)
        time.sleep(120)
    os.fsync = slow
    write_whole(sys.argv[1], "new")
"""


def test_a_killed_writer_leaves_the_old_file_and_its_leftovers_are_swept(tmp_path):
    path = write_whole(tmp_path / "file", "old")
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(CHILD), str(path)],
                          stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "written\n"
        write_whole(path, "other")
        assert len(list(tmp_path.glob(".file.*.tmp"))) == 1, "a live writer's file is kept"
        child.send_signal(signal.SIGKILL)
    assert path.read_text() == "other"
    assert len(list(tmp_path.glob(".file.*.tmp"))) == 1
    write_whole(path, "newest")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "newest")]


def test_a_tree_comes_back_with_its_groups(tmp_path):
    posterior = xr.Dataset({"S_min": (("chain", "draw"), np.random.default_rng(0).random((2, 5)))},
                           attrs={"sampler": "nutpie", "tuning": 3, "chains": [4, 5], "law": ["a"]})
    sweep = small_sweep()
    tree = xr.DataTree.from_dict({"posterior": posterior, "sweep": sweep})
    write_tree(tree, tmp_path / "fit.nc")
    again = read_tree(tmp_path / "fit.nc")
    assert again["sweep"].to_dataset().identical(sweep)
    assert again["posterior"].to_dataset().identical(posterior.assign_attrs(law="a"))
    write_tree(again, tmp_path / "fit.nc")
    (tmp_path / "fit.nc").unlink()
    assert float(again["posterior"]["S_min"].sum()) == float(posterior["S_min"].sum())
