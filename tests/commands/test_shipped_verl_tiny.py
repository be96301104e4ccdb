"""The default sweep, `data/verl_tiny`, is what its README and script say."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.crossings.thresholds import choose_thresholds
from cbsbayes.sweep.files import default_sweep_path, read_sweep
from cbsbayes.sweep.groups import group_of
from data.archive import pack
from data.verl_tiny.build import build
from training.definitions import read_phase


@pytest.fixture(scope="module")
def folder(root):
    return root / "data" / "verl_tiny"


@pytest.fixture(scope="module")
def ds(folder):
    return read_sweep(folder / "sweep.nc")


def test_it_is_the_default_and_what_the_script_makes_of_the_logs(ds):
    assert read_sweep(default_sweep_path()).attrs["digest"] == ds.attrs["digest"]
    assert build().identical(ds)


def test_packing_logs_again_gives_the_same_bytes(folder, tmp_path):
    with tarfile.open(folder / "logs.tar.xz") as packed:
        members = packed.getmembers()[:4]
        packed.extractall(tmp_path / "logs", members=members, filter="data")
    archives = [tmp_path / "one.tar.xz", tmp_path / "two.tar.xz"]
    for archive in archives:
        pack(tmp_path / "logs", archive)
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as packed:
        assert packed.getnames() == [member.name for member in members]


def test_every_run_of_the_definition_is_there_and_whole(ds):
    cells = {cell.name: cell for cell in read_phase("tiny").cells}
    assert set(ds["name"].values) == set(cells)
    for name, last, phase, prompts, rollouts, seed in zip(
            *(ds[key].values for key in ("name", "last_step", "phase", "n_prompts", "n_rollouts",
                                         "seed")), strict=True):
        cell = cells[name]
        assert (last, phase, prompts, rollouts, seed) == (
            cell.steps, cell.phase, cell.n_prompts, cell.n_rollouts, cell.seed)
    assert bool((ds["usable"] == 1).all())
    assert bool((ds["attempts"] == 1).all())


def test_it_is_the_sweep_its_readme_describes(folder, ds):
    assert set(group_of(ds).values) == {"tiny · add3 · grpo · lr 0.0001"}
    assert ds["n_items"].values.tolist() == [512]
    assert ds["accuracy"].isel(step=0).values.ravel() == pytest.approx(0.152, abs=5e-4)
    assert set(ds["total_batch"].sel(run=ds["phase"] == "p2c").values) == {128.0}
    status = find_crossings(ds, choose_thresholds(ds))["status"].values
    assert (status == 2).any()
    assert np.mean(status == 1) > 0.7
    readme = (folder / "README.md").read_text(encoding="utf-8")
    logged = [str(name) for name in ds.data_vars if str(name).startswith("noise_")]
    assert [name for name in logged if f"`{name}`" not in readme] == []


def test_the_archive_holds_the_evaluations_and_nothing_of_the_machine(folder, ds):
    with tarfile.open(folder / "logs.tar.xz") as packed:
        text = {member.name: packed.extractfile(member).read().decode() for member in packed}
    assert not any("/home/" in t or "default_local_dir: /" in t for t in text.values())
    lines = text[f"{ds['name'].values[0]}.jsonl"].splitlines()
    logged = {row["step"]: row["data"]["val-core/tiny/add3/acc/mean@1"]
              for row in map(json.loads, lines) if "val-core/tiny/add3/acc/mean@1" in row["data"]}
    curve = ds["accuracy"].isel(run=0, metric=0).dropna("step")
    assert dict(zip(curve["step"].values, curve.values, strict=True)) == logged


def test_noise_was_probed_in_every_run(ds):
    probed = np.isfinite(ds["noise_tr_sigma"]).sum("train_step")
    assert int(probed.min()) >= 5
    signal = ds["noise_g_sq"].isel(run=np.flatnonzero(ds["n_rollouts"].values == 8))
    assert signal.mean() > 1.65 * signal.std() / np.sqrt(signal.notnull().sum())
