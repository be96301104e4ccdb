"""What the user names is given to the right reader, with the settings that lie beside it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import xarray as xr
import yaml
from verl_loggers import (
    CORE,
    metric_rows,
    write_console,
    write_jsonl,
    write_tensorboard,
    write_wandb,
)

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.detect import configure, read_source, read_sources
from cbsbayes.logs.run_log import Origin, RunLog, history_from_rows
from cbsbayes.logs.run_name import run_name
from cbsbayes.sweep.dataset import notes_of
from cbsbayes.sweep.from_logs import build_sweep

CURVES = "run,step,accuracy,n_prompts,n_rollouts\nt,0,0.1,8,4\nt,5,0.2,8,4\n"
CROSSINGS = "run,threshold,steps,n_prompts,n_rollouts\nx,0.5,40,8,4\n"


def test_every_kind_in_one_folder(tmp_path, offline):
    folder = tmp_path / "all"
    (folder / "deep" / "er").mkdir(parents=True)
    write_jsonl(folder / "deep", "a", metric_rows(4))
    write_console(folder / "deep" / "er", "b", metric_rows(8))
    write_tensorboard(folder / "deep", "c", metric_rows(16))
    wandb_run = min(offline.glob("wandb/offline-run-*"))
    shutil.copytree(wandb_run, folder / "wandb" / wandb_run.name)
    write_console(folder / "wandb" / wandb_run.name / "files", "output", metric_rows(4))  # again
    (folder / "t.csv").write_text(CURVES)
    (folder / "x.csv").write_text(CROSSINGS)
    (folder / "deep" / "a.config.yaml").write_text("seed: 3\n")
    (folder / "notes.md").write_text("what I did")
    (folder / "other.csv").write_text("gpu,hours\n1,2\n")
    (folder / ".hidden.csv").write_text("gpu,hours\n1,2\n")
    os.mkfifo(folder / "fifo.csv")
    logs, notes = read_source(str(folder))
    *found, (source, name, _) = sorted((log.source, log.name, log.id) for log in logs)
    assert source == "wandb_file"
    assert name in RUNS
    assert found == [
        ("crossings", "x", "x"),
        ("table", "t", "t"),
        ("tensorboard", "c", "deep/c"),
        ("verl_console", "b", "deep/er/b.log"),
        ("verl_jsonl", "a", "deep/a.jsonl"),
    ]
    assert notes == [f"{folder}: files without runs, left out: fifo.csv, notes.md, other.csv"]


@pytest.mark.parametrize(("contents", "message"), [
    ({}, r"no run in .* \(the folder is empty\); valid sources: wandb:ENTITY/PROJECT"),
    ({"README.md": b"", "run.nc": os.urandom(64)},
     r"no run in .* \(files not recognised: README.md, run.nc\)"),
    ({"a.jsonl": b'{"no": "row"}\n', "b.log": b"Traceback (most recent call last):\n"},
     r"a\.jsonl, b\.log\); .* holds no line of verl's"),
    ({"a.jsonl": b'{"step": 1, "loss": 0.1}\n', "t.csv": f"{CURVES}t,9,oops,8,4\n".encode()},
     "data row 3: accuracy is 'oops'"),
    ({"a.csv": CURVES.encode(), "b.csv": CURVES.replace("0.2", "0.3").encode()},
     r"run 't' of .* comes in several tables; put all rows"),
])
def test_folders_that_are_refused(tmp_path, contents, message):
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CBSDataError, match=message) as caught:
        read_sources([str(tmp_path)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("source", "project"), [
    ("https://wandb.ai/ent/proj", "ent/proj"), ("wandb.ai/ent/proj/runs/x?nw=1", "ent/proj"),
    ("wandb:ent/proj", "ent/proj"), ("my-team/cbs", "my-team/cbs"),
    ("missing", None), ("missing/file.jsonl", None), ("here/proj", None)])
def test_what_names_a_project(source, project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    asked = []
    monkeypatch.setattr("cbsbayes.logs.wandb_service.read_wandb_api",
                        lambda project, **options: asked.append(project) or [])
    if project is None:
        with pytest.raises(CBSDataError, match=r"there is no file or folder .*; valid: wandb:"):
            read_source(source)
    else:
        read_source(source)
        assert asked == [project]
        (tmp_path / "my-team" / "cbs").mkdir(parents=True)
        (tmp_path / "my-team" / "cbs" / "t.csv").write_text(CURVES)
        assert read_source("my-team/cbs")[0][0].name == "t"


def test_what_a_name_says_nothing_of_is_told_by_content(tmp_path, root):
    for name in ("a.err", "b.log.1", "C.LOG", "slurm-1234"):
        shutil.copy(root / "tests" / "data" / "verl" / "kl.console.log", tmp_path / name)
    (tmp_path / "train.parquet").write_text("version https://git-lfs\n")
    (tmp_path / "gpu.csv").write_text("a,b\n1,2,3\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "weights.dat").write_bytes(b"\0\1" * 100)
    logs, notes = read_source(str(tmp_path))
    assert [log.name for log in logs] == ["C", "a", "b", "slurm-1234"]
    assert notes == [
        f"{tmp_path}: files without runs, left out: empty.csv, gpu.csv, train.parquet, weights.dat"
    ]


def test_a_folder_names_its_run(tmp_path):
    for n in (4, 8):
        (tmp_path / f"run{n}").mkdir()
        write_console(tmp_path / f"run{n}", "train", metric_rows(n))
    assert [log.name for log in read_source(str(tmp_path))[0]] == ["run4", "run8"]


def test_a_trainers_state(tmp_path):
    state = {"log_history": [{"step": 10, "loss": 0.1}, {"step": 10, "eval_reward": 0.3}]}
    path = tmp_path / "checkpoint-10" / "trainer_state.json"
    path.parent.mkdir()
    path.write_text(json.dumps(state))
    ((log,), _) = read_source(str(path.parent))
    assert log.history.loc[10].to_dict() == {"loss": 0.1, "eval_reward": 0.3}
    (tmp_path / "records.json").write_text(
        json.dumps([{"run": "a", "step": 0, "accuracy": 0.1, "n_prompts": 8, "n_rollouts": 8}]))
    ((table,), _) = read_source(str(tmp_path / "records.json"))
    assert table.settings[0].values["n_prompts"] == 8


# settings beside logs


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))


def configured(root, *paths, **fields):
    """Return the logs of these files with what lies beside them."""
    logs = []
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.touch()
        logs.append(RunLog(path.relative_to(root).as_posix(), run_name(path, root), "verl_jsonl",
                           history_from_rows([])[0], **fields))
    return configure(logs, root)


@pytest.mark.parametrize("suffix", [".config.yaml", ".config.yml", ".config.json"])
@pytest.mark.parametrize("log", ["lr1e-6_cr0.2.jsonl", "lr1e-6_cr0.2.console.log", "lr1e-6_cr0.2"])
def test_side_car_beside_the_log(tmp_path, suffix, log):
    write(tmp_path / f"lr1e-6_cr0.2{suffix}", {"data": {"train_batch_size": 32}})
    write(tmp_path / "other.config.yaml", {"data": {"train_batch_size": 64}})
    if "." not in log.replace("_cr0.2", ""):
        (tmp_path / log).mkdir()
    (found,) = configured(tmp_path, tmp_path / log)
    assert found.settings == (
        Origin(f"lr1e-6_cr0.2{suffix}", {"data": {"train_batch_size": 32}}),)


@pytest.mark.parametrize(("file", "logs", "lent"), [
    *((f"{place}/{name}", ["day/run/a.jsonl"], True) for place in ("day/run", "day") for name in (
        ".hydra/config.yaml", "config.yaml", "experiment_config.json")),
    ("../config.yaml", ["a.jsonl"], False),  # nothing above the given folder is looked at
    ("config.yaml", ["a.jsonl", "a.console.log"], True),  # one run
    ("config.yaml", ["a.jsonl", "b.jsonl"], False),
    ("config.yaml", ["x/a.jsonl", "y/b.jsonl"], False)])
def test_the_configuration_of_the_only_run_below(tmp_path, file, logs, lent):
    root = tmp_path / "logs"
    write(root / file, {"seed": 3})
    found = configured(root, *(root / name for name in logs))
    assert [[origin.values for origin in log.settings] for log in found] == [
        [{"seed": 3}] * lent] * len(logs)


def test_a_generic_name_gives_way_to_the_experiments(tmp_path):
    write(tmp_path / "x" / "config.yaml", {"trainer": {"experiment_name": "bs8"}})
    write(tmp_path / "cbs_p1_np8_nr8" / "config.yaml", {"trainer": {"experiment_name": "bs9"}})
    logs = configured(tmp_path, tmp_path / "x" / "train.log",
                      tmp_path / "cbs_p1_np8_nr8" / "train.log")
    assert [log.name for log in logs] == ["bs8", "cbs_p1_np8_nr8"]


def test_a_side_car_counts_more_than_what_was_printed(tmp_path):
    write(tmp_path / "a.config.yaml", {"seed": 3})
    printed = Origin("configuration", {"seed": 4})
    (log,) = configured(tmp_path, tmp_path / "a.log", settings=(printed,))
    assert log.settings == (Origin("a.config.yaml", {"seed": 3}), printed)
    (alone,) = configure([replace(log, id="b.log", settings=(printed,))], tmp_path)
    assert alone.settings == (printed,)


# one stream of metrics, every source: the same dataset

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


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Write all runs by the wandb client, in one process."""
    folder = tmp_path_factory.mktemp("offline")
    write_wandb(folder, *({"name": name, "rows": rows} for name, rows in RUNS.items()))
    return folder


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


def test_the_wandb_client_gives_the_same_dataset(reference, offline):
    xr.testing.assert_identical(dataset(offline), reference)


@pytest.mark.parametrize("write", [write_console, write_tensorboard, write_csv, write_parquet])
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
