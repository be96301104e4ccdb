"""The second shipped sweep, `data/tiny_grpo`, is what its README and script say."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.crossings.thresholds import choose_thresholds
from cbsbayes.sweep.files import read_sweep
from cbsbayes.sweep.groups import group_of


@pytest.fixture(scope="module")
def folder(root):
    return root / "data" / "tiny_grpo"


@pytest.fixture(scope="module")
def ds(folder):
    return read_sweep(folder / "sweep.nc")


def test_it_is_what_the_script_makes_of_every_logged_evaluation(folder, ds):
    spec = importlib.util.spec_from_file_location("tiny_grpo_build", folder / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    logged = pd.read_parquet(folder / "curves.parquet")
    assert module.build(logged).identical(ds)
    keys = ["run", "phase", "seed", "n_prompts", "n_rollouts", "step", "accuracy", "n_items"]
    kept = ds[["accuracy", "n_items"]].to_dataframe().reset_index()
    table, expected = (t.dropna(subset="accuracy")[keys].sort_values(
        ["run", "step"], ignore_index=True) for t in (kept, logged))
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)


def test_it_is_the_sweep_its_readme_describes(folder, ds):
    assert set(group_of(ds).values) == {"tiny · add · grpo · lr 6e-05"}
    assert dict(zip(*np.unique(ds["phase"].values, return_counts=True), strict=True)) == {
        "p1": 21, "p2b": 21, "p2c": 21}
    assert set(ds["n_prompts"].sel(run=ds["phase"] == "p1").values) == {4, 8, 16, 32, 64, 128, 256}
    assert set(ds["n_rollouts"].sel(run=ds["phase"] == "p2b").values) == {1, 2, 4, 8, 16, 32, 64}
    assert set(ds["total_batch"].sel(run=ds["phase"] == "p2c").values) == {256.0}
    assert ds["n_items"].values.tolist() == [1024]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for name in ("curves", "grad_noise"):
        table = pd.read_parquet(folder / f"{name}.parquet")
        assert [column for column in table.columns if f"`{column}`" not in readme] == []


def test_no_run_is_censored_up_to_ninety_per_cent_and_the_best_split_lies_inside(ds):
    chosen = choose_thresholds(ds)
    assert (chosen.size, chosen[-1]) == (6, 0.9)
    assert bool((find_crossings(ds, chosen)["status"] == 1).all())
    splits = ds.sel(run=(ds["phase"] == "p2c") & (ds["n_rollouts"] > 1))
    steps = find_crossings(splits, [0.9]).to_dataframe().groupby("n_rollouts")["upper"].mean()
    assert steps.index.tolist() == [2, 4, 8, 16, 32, 64]
    assert steps.idxmin() == 4
    assert steps[64] > 3 * steps[4]


def test_costs_are_there_and_say_what_they_leave_out(ds):
    assert bool((ds["step_time"] > 0).all())
    assert "first" in ds["step_time"].attrs["leaves_out"]
    assert bool(ds["signal_fraction"].isnull().equals(ds["n_rollouts"] == 1))
    assert float(ds["signal_fraction"].max()) <= 1.0
