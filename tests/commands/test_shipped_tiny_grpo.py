"""The second shipped sweep, `data/tiny_grpo`, is what its README and script say."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest

from cbsbayes.crossings.intervals import choose_thresholds, find_crossings
from cbsbayes.sweep.dataset import group_of, is_one_axis, long_table
from cbsbayes.sweep.files import read_sweep


@pytest.fixture(scope="module")
def folder(root):
    return root / "data" / "tiny_grpo"


@pytest.fixture(scope="module")
def ds(folder):
    return read_sweep(folder / "sweep.nc")


def test_the_shipped_sweep_is_what_the_script_makes(folder, ds):
    spec = importlib.util.spec_from_file_location("tiny_grpo_build", folder / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.build(pd.read_parquet(folder / "curves.parquet")).identical(ds)


def test_every_logged_evaluation_is_in_it(folder, ds):
    logged = pd.read_parquet(folder / "curves.parquet")
    keys = ["run", "phase", "seed", "n_prompts", "n_rollouts", "step", "accuracy", "n_items"]
    table = long_table(ds).astype({"step": "int64"})[keys].sort_values(["run", "step"])
    expected = logged[keys].sort_values(["run", "step"])
    pd.testing.assert_frame_equal(table.reset_index(drop=True), expected.reset_index(drop=True),
                                  check_dtype=False)


def test_it_is_the_sweep_its_readme_describes(folder, ds):
    assert ds.sizes["run"] == 63
    assert not is_one_axis(ds)
    assert set(group_of(ds).values) == {"tiny · add · grpo · lr 6e-05"}
    assert dict(zip(*np.unique(ds["phase"].values, return_counts=True), strict=True)) == {
        "p1": 21, "p2b": 21, "p2c": 21}
    assert set(ds["n_prompts"].sel(run=ds["phase"] == "p1").values) == {4, 8, 16, 32, 64, 128, 256}
    assert set(ds["n_rollouts"].sel(run=ds["phase"] == "p2b").values) == {1, 2, 4, 8, 16, 32, 64}
    assert set(ds["total_batch"].sel(run=ds["phase"] == "p2c").values) == {256.0}
    assert int((ds["n_rollouts"] == 1).sum()) == 6
    longest = ds["run"].values[ds["last_step"].values == 400]
    assert longest.tolist() == ["cbs_p2c_tiny_add_np4_nr64_s2"]
    assert ds["n_items"].values.tolist() == [1024]
    assert (folder / "sweep.nc").stat().st_size < 200_000


def test_costs_are_there_and_say_what_they_leave_out(ds):
    assert bool((ds["step_time"] > 0).all())
    assert "first" in ds["step_time"].attrs["leaves_out"]
    single = ds["n_rollouts"] == 1
    assert bool(ds["signal_fraction"].isnull().equals(single))
    assert float(ds["signal_fraction"].max()) <= 1.0
    assert "noise" not in " ".join(map(str, ds.data_vars))


def test_no_run_is_censored_up_to_ninety_per_cent(ds):
    chosen = choose_thresholds(ds)
    assert chosen.size == 6
    assert chosen[-1] == 0.9
    found = find_crossings(ds, chosen)
    assert bool((found["status"] == 1).all())


def test_splits_of_one_batch_have_their_best_inside(ds):
    groups = ds.sel(run=(ds["phase"] == "p2c") & (ds["n_rollouts"] > 1))
    crossed = find_crossings(groups, [0.9]).to_dataframe()
    steps = crossed.groupby("n_rollouts")["upper"].mean()
    assert steps.index.tolist() == [2, 4, 8, 16, 32, 64]
    assert steps.idxmin() == 4
    assert steps[64] > 3 * steps[4]


def test_gradient_noise_has_the_columns_its_readme_names(folder):
    noise = pd.read_parquet(folder / "grad_noise.parquet")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for table in (noise, pd.read_parquet(folder / "curves.parquet")):
        assert [name for name in table.columns if f"`{name}`" not in readme] == []
    assert sorted(noise["step"].unique()) == [0, 6, 14, 26, 40, 60, 80, 110]
