"""Every trainer's batch in prompts and rollouts, from its own configuration keys."""

from __future__ import annotations

import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.history import history_from_rows
from cbsbayes.logs.run_columns import STATED
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.trainers import trainer_of, trainers
from cbsbayes.sweep.from_logs import build_sweep
from cbsbayes.sweep.run_settings import run_settings

VERL = {"data.train_batch_size": 64, "actor_rollout_ref.actor.ppo_mini_batch_size": 16,
        "actor_rollout_ref.rollout.n": 8}
CASES = {  # configuration; prompts per update, rollouts, updates per step
    "verl": (VERL, (16, 8, 4)),
    "Search-R1": ({**VERL, "actor_rollout_ref.rollout.n": 1,
                   "actor_rollout_ref.rollout.n_agent": 5}, (16, 5, 4)),
    "verl-agent": ({**VERL, "actor_rollout_ref.rollout.n": 1, "env.rollout.n": 8}, (16, 8, 4)),
    "asynchronous": ({**VERL, "data.train_batch_size": 0, "async_training.require_batches": 4,
                      "async_training.trigger_parameter_sync_step": 2}, (16, 8, 8)),
    "EasyR1": ({"data.rollout_batch_size": 512, "worker.actor.global_batch_size": 128,
                "worker.rollout.n": 5}, (128, 5, 4)),
    "TRL": ({"num_generations": 8, "generation_batch_size": 256, "steps_per_generation": 4,
             "gradient_accumulation_steps": 4, "num_iterations": 2}, (32, 8, 1)),
    "TRL, half a generation per update": (
        {"num_generations": 8, "generation_batch_size": 256, "steps_per_generation": 4,
         "gradient_accumulation_steps": 2}, (16, 8, 1)),
    "TRL, old": ({"num_generations": 4, "per_device_train_batch_size": 8, "world_size": 2,
                  "gradient_accumulation_steps": 4}, (16, 4, 1)),
    "OpenRLHF": ({"rollout_batch_size": 128, "train_batch_size": 256, "n_samples_per_prompt": 8,
                  "micro_train_batch_size": 4, "max_epochs": 1}, (32, 8, 4)),
    "slime": ({"rollout_batch_size": 32, "n_samples_per_prompt": 8, "global_batch_size": 128},
              (16, 8, 2)),
    "SkyRL": ({"trainer.train_batch_size": 64, "trainer.policy_mini_batch_size": 32,
               "generator.n_samples_per_prompt": 5}, (32, 5, 2)),
    "NeMo-RL": ({"grpo.num_prompts_per_step": 32, "grpo.num_generations_per_prompt": 16,
                 "policy.train_global_batch_size": 512}, (32, 16, 1)),
    "prime-rl": ({"batch_size": 512, "rollouts_per_example": 16}, (32, 16, 1)),
    "prime-rl, one file": ({"orchestrator.batch_size": 512,
                            "orchestrator.rollouts_per_example": 16}, (32, 16, 1)),
}


def nested(flat):
    tree = {}
    for path, value in flat.items():
        *above, own = path.split(".")
        inside = tree
        for key in above:
            inside = inside.setdefault(key, {})
        inside[own] = value
    return tree


def make_log(config, name="a", **fields):
    history, _ = history_from_rows([(0, {"eval/acc": 0.1}), (5, {"eval/acc": 0.2})])
    return RunLog(id=name, name=name, source="wandb", history=history, config=config, **fields)


@pytest.mark.parametrize("case", CASES)
def test_the_batch_of_an_update(case):
    config, expected = CASES[case]
    for shape in (config, nested(config)):
        coords, notes = run_settings(make_log(shape))
        assert (coords["n_prompts"], coords["n_rollouts"], coords["updates_per_step"]) == expected
        assert coords["total_batch"] == expected[0] * expected[1]
        assert (coords["batch_from"], notes) == ("configuration", [])


def test_every_trainer_is_told_and_tells_known_columns():
    told = {trainer_of(config).name for config, _ in CASES.values()}
    assert told == {trainer.name for trainer in trainers()}
    for trainer in trainers():
        assert set(trainer.keys) <= set(STATED)


def test_a_factor_that_is_not_logged_is_asked_for_by_name():
    config = {"num_generations": 8, "per_device_train_batch_size": 8,
              "gradient_accumulation_steps": 4}
    with pytest.raises(CBSDataError, match="TRL does not log world_size; state it in a table"):
        build_sweep([make_log(config)])
    stated = make_log(config, stated={"n_prompts": 16})
    assert build_sweep([stated])["n_prompts"].values.tolist() == [16]


def test_what_the_user_states_wins_and_each_conflict_is_noted():
    coords, notes = run_settings(make_log(
        VERL, stated={"n_rollouts": 4, "n_prompts": 16}, further=(("--config", {"seed": 3}),)))
    assert (coords["n_prompts"], coords["updates_per_step"]) == (16, 4)  # as the update's prompts
    assert (coords["n_rollouts"], coords["seed"]) == (4, 3)
    assert coords["batch_from"] == "configuration, --runs"
    assert notes == ["run a: configuration says n_rollouts 8, --runs 4; --runs is used"]


def test_a_configuration_for_all_never_overrides_a_runs_own():
    coords, notes = run_settings(make_log(VERL, further=(("--config", {"n_rollouts": 4}),)))
    assert coords["n_rollouts"] == 8
    assert notes == ["run a: --config says n_rollouts 4, configuration 8; the configuration is "
                     "used"]


def test_the_documents_show_the_same_table(root):
    text = (root / "docs" / "logs.md").read_text(encoding="utf-8")
    for trainer in trainers():
        (row,) = (line for line in text.splitlines() if line.startswith(f"| {trainer.name} |"))
        for column in ("train_batch_prompts", "mini_batch_prompts", "n_rollouts", "ppo_epochs"):
            assert all(f"`{entry}`" in row for entry in trainer.keys.get(column, ()))
