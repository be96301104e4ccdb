"""Run coordinates: what the source states first, configuration second, name third."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_log import Origin, RunLog, history_from_rows
from cbsbayes.sweep.run_settings import run_settings


def make_log(name="debug", config=None, settings=None, more=()):
    origins = (Origin("table", settings or {}), Origin("configuration", config or {}), *more)
    return RunLog(name, name, "wandb", history_from_rows([])[0], origins)


def verl(train=128, mini=128, n=8, **extra):
    return {"data": {"train_batch_size": train, "train_files": "~/data/gsm8k/train.parquet",
                     **extra.pop("data", {})},
            "actor_rollout_ref": {
                "actor": {"ppo_mini_batch_size": mini, "ppo_epochs": 1, "optim": {"lr": 1e-6},
                          "data_loader_seed": 42, **extra.pop("actor", {})},
                "rollout": {"n": n, "seed": 42},
                "model": {"path": "allenai/OLMo-2-0425-1B-SFT"}},
            "algorithm": {"adv_estimator": "grpo"}, **extra}


def test_verl_configuration():
    coords, notes = run_settings(make_log(config=verl(data={"seed": 3})))
    assert coords == {"n_prompts": 128, "n_rollouts": 8, "total_batch": 1024.0,
                      "train_batch_prompts": 128, "mini_batch_prompts": 128, "ppo_epochs": 1,
                      "updates_per_step": 1, "learning_rate": 1e-6, "seed": 3, "phase": "",
                      "model": "OLMo-2-0425-1B-SFT", "dataset": "gsm8k", "algorithm": "grpo",
                      "trainer": "verl", "trainer_version": "", "n_gpus": -1, "read_from": (
                          "configuration: trainer, model, dataset, algorithm, n_rollouts, "
                          "n_prompts, mini_batch_prompts, ppo_epochs, learning_rate, "
                          "seed")}
    assert notes == []


def test_name_alone():
    coords, _ = run_settings(make_log("cbs_p1_olmo1b_omi_np128_nr8_ep2_lr1e-6_mbs32_s3"))
    assert (coords["n_prompts"], coords["train_batch_prompts"]) == (32, 128)
    assert (coords["updates_per_step"], coords["seed"]) == (8, 3)
    assert (coords["phase"], coords["model"], coords["dataset"]) == ("p1", "olmo1b", "omi")


def test_configuration_wins_and_the_conflict_is_named():
    coords, notes = run_settings(make_log("cbs_p1_np128_nr8_lr1e-5", verl(train=64, mini=64)))
    assert (coords["n_prompts"], coords["phase"]) == (64, "p1")
    assert notes == [
        "run cbs_p1_np128_nr8_lr1e-5: name says n_prompts 128, configuration 64; "
        "configuration is used",
        "run cbs_p1_np128_nr8_lr1e-5: name says learning_rate 1e-05, configuration 1e-06; "
        "configuration is used"]


def test_what_the_source_states_wins():
    coords, notes = run_settings(make_log("cbs_p1_np128_nr8", verl(),
                                          {"n_prompts": 32, "mini_batch_prompts": 32}))
    assert (coords["n_prompts"], coords["n_rollouts"]) == (32, 8)
    assert len(notes) == 3
    assert "configuration says mini_batch_prompts 128, table 32" in notes[1]


@pytest.mark.parametrize("name", ["cbs_p1_np128_nr8", "cbs_p1_np32_nr8"])
def test_name_may_give_either_count_of_prompts(name):
    assert run_settings(make_log(name, verl(train=128, mini=32)))[1] == []


def test_references_are_followed_and_others_named():
    config = verl(mini="${data.train_batch_size}", data={"seed": "${oc.env:SEED}"})
    coords, notes = run_settings(make_log(config=config))
    assert (coords["mini_batch_prompts"], coords["seed"]) == (128, -1)
    assert notes == ["run debug: seed is the unresolved reference '${oc.env:SEED}'; "
                     "it is taken as unknown"]


def test_seed_of_the_name_before_the_default_seeds():
    assert run_settings(make_log("cbs_p1_np128_nr8_s5", verl()))[0]["seed"] == 5
    assert run_settings(make_log("debug", verl()))[0]["seed"] == 42
    assert run_settings(make_log("cbs_p1_np128_nr8"))[0]["seed"] == -1


def test_one_axis_data():
    coords, _ = run_settings(make_log(settings={"total_batch": 512, "learning_rate": math.nan}))
    assert (coords["n_prompts"], coords["n_rollouts"], coords["total_batch"]) == (-1, -1, 512.0)
    assert math.isnan(coords["learning_rate"])
    again, _ = run_settings(make_log(settings={"total_batch": 512, "n_prompts": -1,
                                               "n_rollouts": -1, "seed": -1}))
    assert (again["total_batch"], again["seed"]) == (512, -1)


@pytest.mark.parametrize("name", ["debug", "cbs_p1_np0_nr8", "cbs_p1_olmo1b_nprompts_nr8"])
def test_no_batch_anywhere(name):
    assert run_settings(make_log(name, {"trainer": {"test_freq": 5}}))[0] == {}


@pytest.mark.parametrize(("settings", "message"), [
    ({"n_prompts": 0, "n_rollouts": 8}, r"run debug \(debug\): n_prompts is 0 in its table"),
    ({"n_prompts": -4, "n_rollouts": 8}, "valid: a whole number from 1; correct it"),
    ({"n_prompts": 2.5, "n_rollouts": 8}, "n_prompts is 2.5"),
    ({"n_prompts": "many", "n_rollouts": 8}, "n_prompts is 'many'"),
    ({"n_prompts": True, "n_rollouts": 8}, "n_prompts is True"),
    ({"n_prompts": 8, "n_rollouts": math.inf}, "n_rollouts is inf"),
    ({"total_batch": -512}, "total_batch is -512.*valid: a number above 0"),
    ({"n_prompts": 8, "n_rollouts": 8, "seed": -2}, "a whole number from 0"),
    ({"n_prompts": 8, "n_rollouts": 8, "learning_rate": -1e-6}, "learning_rate is -1e-06"),
    ({"n_prompts": 8, "n_rollouts": 8, "total_batch": 60}, "n_prompts 8 × n_rollouts 8 = 64"),
    ({"n_prompts": 8, "train_batch_prompts": 32, "mini_batch_prompts": 16, "n_rollouts": 2},
     "makes 16 per update"),
])
def test_impossible_numbers(settings, message):
    with pytest.raises(CBSDataError, match=message):
        run_settings(make_log(settings=settings))


def test_update_and_step_counts_of_one_source_may_stand_together():
    coords, _ = run_settings(make_log(settings={
        "n_prompts": 16, "train_batch_prompts": 32, "mini_batch_prompts": 16, "n_rollouts": 2}))
    assert (coords["n_prompts"], coords["updates_per_step"]) == (16, 2)


def test_what_the_user_states_wins_and_each_conflict_is_noted():
    runs = Origin("--runs", {"n_rollouts": 4, "n_prompts": 16})
    config = {"data.train_batch_size": 64, "actor_rollout_ref.actor.ppo_mini_batch_size": 16,
              "actor_rollout_ref.rollout.n": 8}
    log = make_log("a", config, more=[Origin("--config", {"n_rollouts": 2, "seed": 3})])
    coords, notes = run_settings(replace(log, settings=(runs, *log.settings)))
    assert (coords["n_prompts"], coords["updates_per_step"]) == (16, 4)  # as the update's prompts
    assert (coords["n_rollouts"], coords["seed"]) == (4, 3)
    assert coords["read_from"] == ("--runs: n_rollouts; configuration: trainer, n_prompts, "
                                   "mini_batch_prompts; --config: seed")
    assert notes == ["run a: configuration says n_rollouts 8, --runs 4; --runs is used",
                     "run a: --config says n_rollouts 2, --runs 4; --runs is used"]
