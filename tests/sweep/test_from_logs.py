"""From records to the sweep dataset: units, choices, refusals and what is written down."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.detect import read_source
from cbsbayes.logs.run_log import Origin, RunLog, history_from_rows
from cbsbayes.sweep.dataset import append, notes_of
from cbsbayes.sweep.files import read_sweep, write_sweep
from cbsbayes.sweep.from_logs import build_sweep

GSM = "val-core/openai/gsm8k/acc/mean@1"
MATH = "val-core/lighteval/MATH/acc/mean@1"


def make_log(name="cbs_p1_np16_nr8", steps=(0, 10, 20), values=(0.1, 0.2, 0.3), key=GSM,
             ident=None, config=None, settings=None, **fields):
    history = pd.DataFrame({key: np.asarray(values, float)},
                           index=pd.Index(np.asarray(steps, float), name="step"))
    return RunLog(**{"id": ident or name, "name": name, "source": "verl_jsonl",
                     "history": history, "settings": (
                         Origin("table", settings or {}), Origin("configuration", config or {})),
                     **fields})


def crossings(name, thresholds, lower, upper, **given_settings):
    table = pd.DataFrame({"threshold": thresholds, "steps_lower": lower, "steps_upper": upper})
    return RunLog(id=name, name=name, source="crossings", history=history_from_rows([])[0],
                  crossings=table,
                  settings=(Origin("table", {"total_batch": 64, **given_settings}),))


def test_steps_are_optimizer_updates():
    config = {"data": {"train_batch_size": 64},
              "actor_rollout_ref": {"rollout": {"n": 8}, "actor": {"ppo_mini_batch_size": 16}}}
    ds = build_sweep([make_log("a", config=config), make_log("cbs_p1_np16_nr8")])
    row = ds.sel(run="a")
    assert row["accuracy"].squeeze().dropna("step")["step"].values.tolist() == [0, 40, 80]
    assert (int(row["n_prompts"]), int(row["updates_per_step"])) == (16, 4)
    assert (int(row["train_batch_prompts"]), float(row["last_step"])) == (64, 80)
    assert ds["step"].values.tolist() == [0, 10, 20, 40, 80]


def test_runs_come_in_order_whatever_the_source_did():
    names = ["cbs_p2b_np16_nr2", "cbs_p1_np128_nr8", "cbs_p1_np16_nr8_s1", "cbs_p1_np16_nr8_s0"]
    logs = [make_log(name, values=np.array([0.1, 0.2, 0.3]) + i / 100)
            for i, name in enumerate(names)]
    ds = build_sweep(logs)
    assert ds["run"].values.tolist() == [names[3], names[2], names[1], names[0]]
    assert ds.identical(build_sweep(logs[::-1]).assign_attrs(history=ds.attrs["history"]))


def test_orphans_are_kept_but_not_usable():
    ds = build_sweep([make_log(), make_log("cbs_p1_np32_nr8", steps=[400, 425, 450])])
    assert ds["usable"].values.tolist() == [1, 0]
    assert "no earlier attempt" in str(ds["remark"][1].item())


def test_conflicts_are_noted_and_remarked():
    config = {"n_prompts": 64, "n_rollouts": 8}
    ds = build_sweep([make_log(config=config)])
    said = "name says n_prompts 16, configuration 64; configuration is used"
    assert notes_of(ds) == [f"run cbs_p1_np16_nr8: {said}"]
    assert ds["remark"].values.tolist() == [said]


def test_mixed_validation_sets_are_not_pooled():
    logs = [make_log("cbs_p1_np16_nr8"), make_log("cbs_p1_np32_nr8"),
            make_log("cbs_p1_np64_nr8", key=MATH)]
    ds = build_sweep(logs)
    assert ds["metric"].values.tolist() == ["lighteval/MATH", "openai/gsm8k"]
    assert ds["usable"].values.tolist() == [1, 1, 0]
    assert "no evaluation of openai/gsm8k" in str(ds["remark"][2].item())
    said = "1 of 3 runs not fitted, without an evaluation of openai/gsm8k"
    assert any(said in note for note in notes_of(ds))
    assert np.isnan(ds["accuracy"].sel(metric="openai/gsm8k")[2]).all()
    chosen = build_sweep(logs, metric="MATH")
    assert chosen.attrs["metric"] == "lighteval/MATH"
    assert chosen["usable"].values.tolist() == [0, 0, 1]


def test_nan_strings_and_infinite_values():
    history, _ = history_from_rows([(0, {GSM: "NaN"}), (5, {GSM: 0.5}), (9, {GSM: "Infinity"})])
    ds = build_sweep([replace(make_log(), history=history)])
    assert ds["accuracy"].values.ravel().tolist() == [0.5]
    assert float(ds["last_step"][0]) == 5
    assert any("evaluations of openai/gsm8k left out: 1, infinite" in n for n in notes_of(ds))


@pytest.mark.parametrize("value", [-0.1, 1.01, 63.5])
def test_impossible_accuracy(value):
    log = make_log(values=(0.1, 0.2, value))
    said = rf"is {value:g} at trainer step 20; verl's acc lies in \[0, 1\]"
    with pytest.raises(CBSDataError, match=said):
        build_sweep([log])
    ds = build_sweep([log, make_log("cbs_p1_np32_nr8")])
    assert ds["usable"].values.tolist() == [0, 1]
    assert any(re.search(said, note) for note in notes_of(ds))
    assert build_sweep([replace(log, source="table")])["accuracy"].max() >= 0.2
    reward = make_log(values=(0.1, 0.2, value), key=GSM.replace("acc", "reward"))
    assert build_sweep([reward]).attrs["metric"] == "openai/gsm8k"


@pytest.mark.parametrize(("values", "said"), [
    ((10, 20, 60), "exceeds 1 in 1 of 3 runs, as if in percent (cbs_p1_np32_nr8)"),
    ((0.1, 20, 0.3), "exceeds 1 in 1 of 3 runs, as if in percent (cbs_p1_np32_nr8)"),
    ((0.1, 1.2, 0.3), "lies outside [0, 1] in 1 of 3 runs (cbs_p1_np32_nr8)"),
    ((0.1, -0.2, 0.3), "lies outside [0, 1] in 1 of 3 runs"),
])
def test_one_run_or_one_cell_in_percent_is_said(values, said):
    logs = [make_log(f"cbs_p1_np{n}_nr8", source="table") for n in (16, 64)]
    notes = notes_of(build_sweep([*logs, make_log("cbs_p1_np32_nr8", values=values,
                                                  source="table")]))
    assert sum(said in note for note in notes) == 1
    losses = [replace(log, history=10 * log.history) for log in logs]
    assert notes_of(build_sweep(losses)) == []


def test_many_real_valued_steps_stay_bounded():
    rng = np.random.default_rng(0)
    logs = [make_log(f"cbs_p1_np{2 ** (i % 8)}_nr8_s{i}", steps=np.sort(rng.random(900)) * 50,
                     values=rng.random(900), source="table") for i in range(100)]
    ds = build_sweep(logs)
    assert ds["accuracy"].nbytes < 2**26
    assert ds["accuracy"].count() > 0.99 * 100 * 900
    assert any("evaluated at 90000 different updates; they are rounded to multiples of 0.0006" in n
               for n in notes_of(ds))
    assert ds["step"].values[0] > 0


def test_gradient_noise():
    history, _ = history_from_rows([
        (2, {GSM: 0.2, "actor/grad_noise/prompt/B_noise": 7.0}), (3, {GSM: 0.3}),
        (4, {"grad_noise/prompt/B_noise": 9.0, "grad_noise/norm": 1.0,
             "grad_noise/prompt_B_noise": 5.0})])
    log = replace(make_log(settings={"mini_batch_prompts": 8}), history=history)
    ds = build_sweep([log, make_log("cbs_p1_np32_nr8")])
    turned = replace(log, history=history[history.columns[::-1]])
    assert build_sweep([make_log("cbs_p1_np32_nr8"), turned]).attrs["digest"] == ds.attrs["digest"]
    series = ds["noise_prompt_B_noise"].sel(run="cbs_p1_np16_nr8")
    assert series.attrs["source_key"] == "grad_noise/prompt/B_noise"
    assert ds["train_step"].values.tolist() == [4, 8]
    assert series.values.tolist() == [7, 9]
    assert ds["noise_norm"].count() == 1
    assert any("grad_noise/prompt_B_noise was left out" in n for n in notes_of(ds))


def test_times_and_signals():
    history, _ = history_from_rows([(s, {GSM: 0.1 * s, "perf/time_per_step": 30.0 / s,
                                         "frac_zero_adv": 0.25}) for s in range(1, 4)])
    ds = build_sweep([replace(make_log(), history=history), make_log("cbs_p1_np32_nr8")])
    assert ds["step_time"].values[0] == 12.5
    assert "validate" in ds["step_time"].attrs["comment"]
    assert ds["signal_fraction"].values[0] == 0.75
    assert np.isnan(ds["signal_fraction"].values[1])


def test_crossings():
    ds = build_sweep([crossings("a", [0.5, 0.6], [0, 90], [25, np.inf]),
                      crossings("b", [0.6, 0.7], [np.nan, 10], [np.nan, 20], total_batch=128)])
    assert ds["threshold"].values.tolist() == [0.5, 0.6, 0.7]
    np.testing.assert_array_equal(ds["steps_lower"], [[0, 90, np.nan], [np.nan, np.nan, 10]])
    np.testing.assert_array_equal(ds["steps_upper"], [[25, np.inf, np.nan], [np.nan, np.nan, 20]])
    assert ds["last_step"].values.tolist() == [90, 20]
    assert ds.attrs["metric"] == ""


def test_hostile_names_are_only_text(tmp_path):
    names = ["<script>alert(1)</script>", "a/../b\nc", "nul\0", "half\ud800", "", "${x}{{7*7}}"]
    logs = [make_log(name, ident=str(i), values=(0.1, 0.2, 0.3 + i / 100),
                     settings={"n_prompts": 16, "n_rollouts": 8}) for i, name in enumerate(names)]
    ds = build_sweep(logs)
    write_sweep(ds, tmp_path / "sweep.nc")
    assert read_sweep(tmp_path / "sweep.nc").identical(ds)
    assert {"<script>alert(1)</script>", "a/../b\nc"} <= set(ds["run"].values.tolist())


def test_genuine_logs(root):
    """Several updates per step: one that never validated, and a longer one with its settings."""
    rpp, long = (read_source(str(root / "tests" / "data" / "verl" / f"{name}.jsonl"))[0][0]
                 for name in ("rpp", "long"))
    ds = build_sweep([rpp, replace(long, settings=rpp.settings)])
    run = ds.sel(run="rpp")
    assert {name: run[name].item() for name in (
        "usable", "n_prompts", "n_rollouts", "updates_per_step", "seed", "algorithm", "dataset",
        "model")} == {"usable": 0, "n_prompts": 4, "n_rollouts": 4, "updates_per_step": 4,
                      "seed": 1, "algorithm": "reinforce_plus_plus", "dataset": "tiny",
                      "model": "model"}
    assert run["noise_prompt_B_noise_estimate"].dropna("train_step")["train_step"].values.tolist(
        ) == [4, 8]
    seconds = long.history["timing_s/step"].dropna()
    assert seconds.iloc[1:].min() < ds["step_time"].sel(run="long") < seconds.iloc[0]
    assert ds["step"].values.tolist() == [0, 40, 80, 120, 160]


@pytest.mark.parametrize(("epochs", "kept"), [((1, 1), False), ((1, 4), True)])
def test_off_policy_means_are_kept_where_updates_are(epochs, kept):
    logs = []
    for i, k in enumerate(epochs):
        history, _ = history_from_rows([(s, {GSM: 0.1 * s + 0.01 * i, "actor/grad_norm": 2.0,
                                             "actor/pg_clipfrac": 0.02 * s}) for s in (1, 2, 3)])
        logs.append(replace(make_log(f"cbs_p1_np{16 * (i + 1)}_nr8_ep{k}"), history=history))
    ds = build_sweep(logs)
    assert ("clip_fraction" in ds) == kept
    assert ds["grad_norm"].values.tolist() == [2.0, 2.0]
    if kept:
        assert ds["clip_fraction"].values.tolist() == pytest.approx([0.04, 0.04])
        both = append(ds, build_sweep([make_log()]))
        assert np.isnan(both["clip_fraction"].sel(run="cbs_p1_np16_nr8"))


@pytest.mark.parametrize(("log", "items"), [
    *((make_log(settings={"n_items": n}), 1319) for n in ({"openai/gsm8k": 1319}, 1319)),
    *((make_log(config={"cbs": own}), n) for own, n in [
        ({"validation_items": {"openai/gsm8k": 1319}}, 1319), ({}, -1), ("mine", -1),
        ({"validation_items": {"openai/gsm8k": "many"}}, -1)])])
def test_items_of_a_validation_set(log, items):
    assert build_sweep([log, make_log("cbs_p1_np32_nr8")])["n_items"].values.tolist() == [items]


ODD = make_log("odd", config={"n_prompts": 0, "n_rollouts": 8})
BACKWARDS = [0.5, 0.6], [100, 10], [110, 12]
AGAIN = make_log("cbs_p1_np16_nr8#2", settings={"n_prompts": 16, "n_rollouts": 8})


@pytest.mark.parametrize(("logs", "n_kept", "said"), [
    ([make_log(), make_log("debug"), make_log("cbs_p1_np0_nr8")], 1,
     "runs left out: 2, no batch size in settings, configuration or name: debug, cbs_p1_np0_nr8"),
    ([make_log(), ODD], 1, "left out: run odd (odd): n_prompts is 0 in its configuration; valid"),
    ([*(make_log(values=(0.1, 0.2, v), ident=str(v)) for v in (0.3, 0.4, 0.5)), AGAIN], 4,
     "3 runs are called cbs_p1_np16_nr8; they are kept apart"),
    ([make_log(f"cbs_p1_np16_nr8_s{s}", steps=range(4), values=(0.1, 0.2, 0.3, 0.4))
      for s in (1, 2)], 2, "hold the same curve under different seeds"),
])
def test_runs_left_out_and_kept_apart_are_named(logs, n_kept, said):
    ds = build_sweep(logs)
    assert len(set(ds["run"].values.tolist())) == n_kept
    (note,) = notes_of(ds)
    assert said in note


@pytest.mark.parametrize(("logs", "message"), [
    ([], "no runs were read"), ([ODD], "n_prompts is 0"),
    ([make_log("debug"), make_log("test")], r"any of 2 runs \(debug, test\).*--config"),
    *(([make_log(f"cbs_p1_np{i}_nr8", settings={"direction": d}) for i, d in enumerate(both, 1)],
       "valid, for all runs together: increasing")
      for both in (("increasing", "decreasing"), ("up", "up"))),
    ([make_log(f"cbs_p1_np{n}_nr8", settings={"n_items": {"openai/gsm8k": n}}) for n in (13, 5)],
     "has 5 items in run .* and 13 in run"),
    ([make_log(), crossings("a", [0.5], [10], [20])], r"1 of 2 runs are curves .* two files"),
    ([crossings("a", *BACKWARDS)], r"0\.6 is passed by update 12, but an easier one not"),
])
def test_what_makes_no_sweep(logs, message):
    with pytest.raises(CBSDataError, match=message):
        build_sweep(logs)


def test_a_loss_is_harder_the_lower_it_is():
    ds = build_sweep([crossings("a", *BACKWARDS, direction="decreasing")])
    assert ds.attrs["direction"] == "decreasing"
