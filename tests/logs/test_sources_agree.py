"""One stream of metrics, every source: the same dataset."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from verl_loggers import (
    CORE,
    metric_rows,
    write_console,
    write_jsonl,
    write_tensorboard,
    write_wandb,
)

from cbsbayes.logs.detect import read_source
from cbsbayes.sweep.dataset import notes_of
from cbsbayes.sweep.from_logs import build_sweep

RUNS = {f"cbs_p1_tiny_add_np{n}_nr8_s0": metric_rows(n) for n in (4, 8, 16)}
OF_THE_SOURCE = ("source", "state", "remark", "read_from")


def write_csv(folder, name, rows):
    columns = {CORE: "openai/gsm8k", "val-core/math/acc/mean@1": "math"}
    table = [
        {
            "run": name,
            "n_prompts": int(name.split("_np")[1].split("_")[0]),
            "n_rollouts": 8,
            "seed": 0,
            "step": step,
            "metric": metric,
            "accuracy": repr(float(row[key])),
            "seconds_per_step": row.get("perf/time_per_step", ""),
        }
        for step, row in rows
        for key, metric in columns.items()
        if key in row
    ]
    pd.DataFrame(table).to_csv(folder / f"{name}.csv", index=False)


WRITERS = {"console": write_console, "tensorboard": write_tensorboard, "table": write_csv}


def dataset(folder) -> xr.Dataset:
    ds = build_sweep(read_source(str(folder))[0])
    ds.attrs = {"metric": ds.attrs["metric"], "direction": ds.attrs["direction"]}
    if "grad_norm" in ds:  # logged in float32, which each logger prints in its own way
        ds["grad_norm"] = ds["grad_norm"].astype(np.float32)
    return ds.drop_vars(OF_THE_SOURCE)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> xr.Dataset:
    folder = tmp_path_factory.mktemp("jsonl")
    for name, rows in RUNS.items():
        write_jsonl(folder, name, rows)
    return dataset(folder)


def test_the_reference_holds_what_was_logged(reference):
    assert list(reference["metric"].values) == ["math", "openai/gsm8k"]
    assert reference.attrs["metric"] == "openai/gsm8k"
    assert list(reference["step"].values) == [0, 4, 8, 12, 13]
    assert list(reference["n_prompts"].values) == [4, 8, 16]
    for name, rows in RUNS.items():
        logged = [row[CORE] for _, row in rows if CORE in row]
        kept = reference["accuracy"].sel(run=name, metric="openai/gsm8k")
        assert kept.values.tolist() == logged
    noise = reference["noise_prompt_tr_sigma"].sel(run="cbs_p1_tiny_add_np4_nr8_s0")
    assert noise.values.tolist() == [100 / step for step in range(1, 14)]
    assert (reference["step_time"] == 2.5).all()


def test_console_gives_the_same_dataset(reference, tmp_path):
    for name, rows in RUNS.items():
        write_console(tmp_path, name, rows)
    xr.testing.assert_identical(dataset(tmp_path), reference)


def test_offline_wandb_gives_the_same_dataset(reference, tmp_path):
    write_wandb(tmp_path, iter(RUNS.items()))
    xr.testing.assert_identical(dataset(tmp_path), reference)


def test_tensorboard_gives_the_same_dataset_in_float32(reference, tmp_path):
    for name, rows in RUNS.items():
        write_tensorboard(tmp_path, name, rows)
    xr.testing.assert_allclose(dataset(tmp_path), reference, rtol=1e-6, atol=0)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_gives_the_same_curves(reference, tmp_path, suffix):
    for name, rows in RUNS.items():
        write_csv(tmp_path, name, rows)
    if suffix == "parquet":
        for path in tmp_path.glob("*.csv"):
            pd.read_csv(path).to_parquet(path.with_suffix(".parquet"))
            path.unlink()
    curves = reference.drop_vars(["noise_prompt_tr_sigma", "train_step", "grad_norm"])
    xr.testing.assert_identical(dataset(tmp_path), curves)


def test_all_sources_in_one_folder_are_each_run_once(reference, tmp_path):
    for name, rows in RUNS.items():
        write_jsonl(tmp_path, name, rows)
        write_console(tmp_path, name, rows)
        write_tensorboard(tmp_path, name, rows)
        write_csv(tmp_path, name, rows)
    ds = build_sweep(read_source(str(tmp_path))[0])
    assert sorted(ds["name"].values) == sorted(RUNS)
    assert sum("is a copy of" in note for note in notes_of(ds)) == 9
