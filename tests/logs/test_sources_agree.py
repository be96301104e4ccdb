"""One stream of metrics, every source: the same dataset."""

from __future__ import annotations

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
    pd.DataFrame([
        {"run": name, "n_prompts": int(name.split("_np")[1].split("_")[0]), "n_rollouts": 8,
         "seed": 0, "step": step, "metric": metric, "accuracy": repr(float(row[key])),
         "seconds_per_step": row.get("perf/time_per_step", "")}
        for step, row in rows for key, metric in columns.items() if key in row
    ]).to_csv(folder / f"{name}.csv", index=False)


def write_parquet(folder, name, rows):
    write_csv(folder, name, rows)
    path = folder / f"{name}.csv"
    pd.read_csv(path).to_parquet(path.with_suffix(".parquet"))
    path.unlink()


def dataset(folder) -> xr.Dataset:
    ds = build_sweep(read_source(str(folder))[0])
    ds.attrs = {"metric": ds.attrs["metric"], "direction": ds.attrs["direction"]}
    for name in {"grad_norm", "grad_norm_sq"} & set(ds):  # logged in float32, printed in many ways
        ds[name] = ds[name].round(6)
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


@pytest.mark.parametrize("write", [
    write_console, write_tensorboard, write_csv, write_parquet,
    lambda folder, name, rows: write_wandb(folder, iter([(name, rows)]))],
    ids=["console", "TensorBoard", "CSV", "Parquet", "wandb"])
def test_every_source_gives_the_same_dataset(reference, tmp_path, write):
    for name, rows in RUNS.items():
        write(tmp_path, name, rows)
    if write in (write_csv, write_parquet):
        reference = reference.drop_vars(
            ["noise_prompt_tr_sigma", "train_step", "grad_norm", "grad_norm_sq"])
    found = dataset(tmp_path)
    if write is write_tensorboard:  # float32
        xr.testing.assert_allclose(found, reference, rtol=1e-6, atol=0)
    else:
        xr.testing.assert_identical(found, reference)


def test_all_sources_in_one_folder_are_each_run_once(reference, tmp_path):
    for name, rows in RUNS.items():
        for write in (write_jsonl, write_console, write_tensorboard, write_csv):
            write(tmp_path, name, rows)
    ds = build_sweep(read_source(str(tmp_path))[0])
    assert sorted(ds["name"].values) == sorted(RUNS)
    assert sum("is a copy of" in note for note in notes_of(ds)) == 9
