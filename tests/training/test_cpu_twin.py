"""verl's own trainer on CPU, end to end: a run of four steps, read back, killed and continued."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from signals import PATIENCE, usual_signals

from cbsbayes.ingest import ingest

if any(importlib.util.find_spec(name) is None for name in ("torch", "verl", "ray", "wandb")):
    pytest.skip("needs verl and wandb (extras: training, wandb)", allow_module_level=True)

NAME = "cbs_p0_tiny_add3_np16_nr8_s1"
CORE = "val-core/tiny/add3/acc/mean@1"
NOISE = ("gbar_sq", "g_sq", "tr_sigma", "tr_between", "tr_within", "n_prompts",
         "frac_zero_adv")


@pytest.fixture(scope="module")
def assets(request, tmp_path_factory, root):
    """Return the folder of the standard assets, kept in pytest's cache: a minute to make."""
    sources = "".join((root / "training" / "cpu" / name).read_text()
                      for name in ("assets.py", "task.py", "tiny_model.py", "../options.toml"))
    cache = getattr(request.config, "cache", None)
    home = cache.mkdir("training_assets") if cache else tmp_path_factory.mktemp("assets")
    return home / hashlib.sha256(sources.encode()).hexdigest()[:12] / "add3"


def called(root, folder, *command):
    """Return how a module of ours is called whose home is a folder."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "CBS_"))}
    environment |= {"PYTHONPATH": str(root), "WANDB_MODE": "offline", "HOME": str(folder),
                    "OMP_NUM_THREADS": "1"}
    return {"args": [sys.executable, "-m", *map(str, command)], "env": environment, "cwd": root,
            "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True,
            "preexec_fn": usual_signals}


def run(root, folder, *command):
    """Run a module of ours to its end; return what it said."""
    done = subprocess.run(**called(root, folder, *command), timeout=PATIENCE, check=False)
    logs = [p.read_text()[-3000:] for p in folder.glob("runs/*/console.*.log")]
    assert done.returncode == 0, "\n".join([done.stdout, *logs])
    return done.stdout


@pytest.fixture(scope="module")
def twin(assets, tmp_path_factory, root):
    """Run the phase `smoke`; return its folder."""
    folder = tmp_path_factory.mktemp("twin")
    run(root, folder, "training.cpu.assets", "-o", assets)
    run(root, folder, "training.sweep", "smoke", "--run", "--wandb", "--tries", 1,
        "--assets", assets, "-o", folder)
    return folder


def logged(folder):
    """Return what verl's file logger wrote of the run, by step."""
    lines = (folder / "logs" / f"{NAME}.jsonl").read_text().splitlines()
    return {row["step"]: row["data"] for row in map(json.loads, lines)}


@pytest.fixture(scope="module")
def rows(twin):
    """Return what the whole run logged, by step."""
    return logged(twin)


@pytest.fixture(scope="module")
def sweeps(twin):
    """Return the dataset read from verl's file log and the one from wandb's offline files."""
    home = twin / "runs" / NAME / "wandb"
    offline, = (path for path in home.iterdir() if path.name.startswith("offline-run-"))
    return {"file": ingest([str(twin / "logs")]), "wandb": ingest([str(offline)])}


def series_of(ds, name, **where):
    """Return a run's series as a mapping from step to value."""
    values = ds.isel(run=0)[name].sel(**where)
    values = values.dropna(values.dims[0])
    return dict(zip(values[values.dims[0]].values, values.values, strict=True))


def test_the_dataset_equals_what_was_logged(sweeps, rows):
    ds = sweeps["file"]
    assert ds.sizes["run"] == 1
    assert ds.attrs["metric"] == "tiny/add3"
    logged = {step: row[CORE] for step, row in rows.items() if CORE in row}
    assert series_of(ds, "accuracy", metric="tiny/add3") == logged
    assert list(logged) == [0, 2, 4]
    noise = {step: row for step, row in rows.items() if "actor/grad_noise/g_sq" in row}
    assert list(noise) == [1, 3]
    for name in NOISE:
        assert series_of(ds, f"noise_{name}") == {
            step: row[f"actor/grad_noise/{name}"] for step, row in noise.items()}
    signal = 1 - np.mean([row["actor/grad_noise/frac_zero_adv"] for row in noise.values()])
    assert float(ds["signal_fraction"][0]) == pytest.approx(signal)
    assert float(ds["step_time"][0]) == rows[3]["perf/time_per_step"]  # not first, not validated


def test_wandb_offline_holds_the_same_up_to_where_it_breaks_off(sweeps):
    """verl never finishes its wandb run, so the offline file ends where Ray stopped the trainer."""
    file, offline = sweeps["file"], sweeps["wandb"]
    where = {"metric": "tiny/add3"}
    kept, whole = (series_of(ds, "accuracy", **where) for ds in (offline, file))
    assert 0 in kept
    assert kept.items() <= whole.items()
    for name in NOISE:
        name = f"noise_{name}"
        if name in offline:
            assert series_of(offline, name).items() <= series_of(file, name).items()


@pytest.mark.parametrize("source", ["file", "wandb"])
def test_the_configuration_arrives(sweeps, source):
    ds = sweeps[source].isel(run=0)
    said = {"name": NAME, "phase": "p0", "model": "tiny", "dataset": "add3", "n_prompts": 16,
            "n_rollouts": 8, "seed": 1, "mini_batch_prompts": 16, "updates_per_step": 1,
            "learning_rate": 1e-4, "algorithm": "grpo", "ppo_epochs": 1}
    assert {key: ds[key].item() for key in said} == said
    assert (float(ds["first_step"]), float(sweeps["file"]["last_step"][0])) == (0, 4)


def test_the_server_holds_the_actors_weights_after_every_update(rows):
    for step in range(1, 5):
        assert rows[step]["training/rollout_probs_diff_max"] < 1e-4
        assert rows[step]["actor/pg_clipfrac"] == 0  # one on-policy update a step


def test_validation_is_greedy(assets, rows):
    record = json.loads((assets / "assets.json").read_text())
    assert rows[0][CORE] == record["greedy_accuracy"]  # measured outside verl
    assert rows[4][CORE] != rows[0][CORE]


def test_the_probe_saw_the_gradient_that_verl_applied(rows):
    for step in (1, 3):
        row = rows[step]
        assert row["actor/grad_noise/gbar_sq"] == pytest.approx(row["actor/grad_norm"] ** 2,
                                                                rel=1e-4)
        assert row["actor/grad_noise/tr_within"] > 0
        assert row["actor/grad_noise/loss_weight"] == pytest.approx(
            128 * row["response_length/mean"])


MANAGER = "actor_rollout_ref.rollout.agent.agent_loop_manager_class"
V1 = f"""[verl]
"trainer.use_v1" = true
"+{MANAGER}" = "verl.trainer.ppo.v1.AgentLoopManagerTQ"
"""


@pytest.mark.parametrize(("own", "score"), [("", 0.6), (V1, 0.4)], ids=["v0", "v1"])
def test_a_run_that_was_stopped_goes_on_from_its_checkpoint_as_if_it_had_not_been_to_its_score(
        twin, rows, assets, tmp_path, root, own, score):
    """The whole run is the v0 trainer's without checkpoints; later saves of this one are lost."""
    phase = (root / "training" / "phases" / "smoke.toml").read_text()
    longer = {"[[block]]": f"{own}[[block]]",
              "[checkpoint]\nevery_updates = 0": "[checkpoint]\nevery_updates = 2\nkeep = 9",
              "updates = 3\nsamples = 128": "updates = 80\nsamples = 0\n"
                                             f"stop_score = {score}\nstop_evaluations = 1"}
    for old, new in longer.items():
        assert old in phase
        phase = phase.replace(old, new)
    (tmp_path / "smoke.toml").write_text(phase)
    command = ("training.sweep", tmp_path / "smoke.toml", "--run", "--tries", 1,
               "--assets", assets, "-o", tmp_path)
    home = tmp_path / "runs" / NAME / "checkpoints"
    with subprocess.Popen(**called(root, tmp_path, *command)) as process:
        end = time.monotonic() + PATIENCE
        while not (home / "latest_checkpointed_iteration.txt").exists() and process.poll() is None:
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=PATIENCE)
    assert home.exists(), said
    for folder in home.glob("global_step_*"):
        if folder.name != "global_step_2":
            shutil.rmtree(folder)
    said = run(root, tmp_path, *command)
    assert "continued from step 2 of 80; earlier log kept in logs/earlier_1" in said
    again = logged(tmp_path)
    last = max(again)
    assert list(again) == list(range(2, last + 1))
    assert f"finished, {last} steps of 80, its score reached" in said
    attempts = json.loads((tmp_path / "runs" / NAME / "run.json").read_text())["attempts"]
    assert [attempt.get("stopped_at_score") for attempt in attempts] == [None, True]
    assert again[2][CORE] == rows[2][CORE]
    for step in (3, 4):
        for key in ("actor/grad_norm", "critic/score/mean", "response_length/mean"):
            assert again[step][key] == pytest.approx(rows[step][key], rel=1e-6 if own else 0)
    assert again[4][CORE] == rows[4][CORE]
    assert not home.exists()
    sweep = ingest([str(tmp_path / "logs")])
    assert (sweep.sizes["run"], int(sweep["attempts"][0])) == (1, 2)
    curve = series_of(sweep, "accuracy", metric="tiny/add3")
    assert list(curve) == list(range(0, last + 1, 2))
    assert max(curve.values()) >= score


def test_check_makes_one_step(twin, assets, tmp_path, root):
    said = run(root, tmp_path, "training.sweep", "tiny", "--check", "--assets", assets, "-o",
               tmp_path / "tiny")
    assert said.startswith("nothing is missing; does verl make a step?\n")
    assert "finished, 1 steps in" in said
    assert list((tmp_path / "tiny").iterdir()) == []


LOOP = {"updates = 3\nsamples = 128": "updates = 24\nsamples = 0",
        "learning_rate = 1e-4": "learning_rate = 2e-4",
        "n_prompts = 16\nn_rollouts = 8": "n_prompts = [8, 16, 32]\nn_rollouts = 4"}


@pytest.mark.mcmc
def test_the_loop_fits_plans_and_runs_on_the_twin(twin, assets, tmp_path, root):
    """Three runs, then what the plan asks for: budget for one of the largest or more others."""
    phase = (root / "training" / "phases" / "smoke.toml").read_text()
    for old, new in LOOP.items():
        assert old in phase
        phase = phase.replace(old, new)
    (tmp_path / "first.toml").write_text(phase)
    first = 24 * 4 * (8 + 16 + 32)
    said = run(root, tmp_path, "training.sweep", tmp_path / "first.toml", "--loop", "--budget",
               first + 3200, "--tries", 1, "--assets", assets, "-o", tmp_path / "loop")
    assert "round 1: 3 runs, 3,200 samples left" in said
    assert "the budget is spent" in said
    names = [path.stem for path in (tmp_path / "loop" / "logs").glob("*.jsonl")]
    assert len(names) > 3
    assert not [name for name in names if "_lr" in name]
    plan = json.loads((tmp_path / "loop" / "rounds" / "001" / "plan" / "plan.json").read_text())
    assert plan["quantity"]["name"] == "cbs_prompts"
