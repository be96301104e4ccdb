"""What the command says of thresholds, contradictions and learning rates: console, page, JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fitted import SETTINGS, quick_sampling, run

from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.sweep.files import read_sweep
from cbsbayes.sweep.shipped import default_sweep_path


def again(ds, keep=None, **columns):
    """Return the runs of a sweep of curves with other columns."""
    keep = np.arange(ds.sizes["run"]) if keep is None else np.asarray(keep)
    runs = {name: ds[name].values[keep] for name in ("run", "n_prompts", "n_rollouts", "seed")}
    return new_sweep(runs | columns, accuracy=ds["accuracy"].values[keep], step=ds["step"].values,
                     metric=["m"])


def test_a_threshold_nobody_reached_is_named_everywhere_and_left_out(sweep_file, tmp_path, capsys):
    assert run(sweep_file, "--thresholds", "0.65,65", "-o", tmp_path) == 0
    note = "Threshold 65 is left out: no run reached it (did you mean 0.65?)."
    assert note in " ".join(capsys.readouterr().out.split())
    assert note in (tmp_path / "index.html").read_text(encoding="utf-8")
    found = json.loads((tmp_path / "fit.json").read_text())
    assert (found["thresholds"], found["level"]) == ([0.65], "limited")
    assert found["reached"]["left_out"] == {"65": "no run reached it (did you mean 0.65?)"}
    assert 'class="verdict limited"' in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_alone_it_is_refused_in_one_line(sweep_file, tmp_path, capsys):
    assert run(sweep_file, "--thresholds", "65", "-o", tmp_path / "out") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "no run reached it (did you mean 0.65?). The runs went from 0." in error
    assert not (tmp_path / "out").exists()


def test_a_target_passed_before_training_is_left_out_of_the_shipped_sweep():
    with quick_sampling():
        fit = fit_sweep(read_sweep(default_sweep_path()), thresholds=[0.1, 0.5],
                        sampler=SETTINGS, alternatives=False)
    assert fit.thresholds.tolist() == [0.5]
    assert fit.verdict["reached"]["left_out"]["0.1"].startswith("every run had passed it before")
    assert [row["n_reached"] for row in fit.verdict["reached"]["thresholds"]] == [39]


def test_learning_rates_scaled_with_the_batch_are_one_group(prompts_sweep):
    rate = 1e-6 * np.sqrt(prompts_sweep["n_prompts"].values / 128)
    with quick_sampling():
        fit = fit_sweep(again(prompts_sweep, learning_rate=rate), sampler=SETTINGS,
                        alternatives=False)
    rule = fit.settings["learning_rate_rule"]
    assert (fit.group, rule["axis"]) == ("lr ∝ batch^0.5", "total_batch")
    assert rule["exponent"] == pytest.approx(0.5, abs=1e-5)
    assert rule["standard_error"] < 1e-5
    assert any("lr ∝ batch^0.50" in sentence for sentence in fit.verdict["sentences"])


def test_steps_that_rise_with_the_batch_contradict_every_law(prompts_sweep):
    reverse = dict(zip(sizes := np.unique(prompts_sweep["n_prompts"]), sizes[::-1], strict=True))
    swapped = [reverse[size] for size in prompts_sweep["n_prompts"].values]
    with quick_sampling():
        fit = fit_sweep(again(prompts_sweep, n_prompts=swapped), sampler=SETTINGS,
                        alternatives=False)
    assert fit.verdict["level"] == "limited"
    assert "the data contradict the law" in fit.verdict["title"]
    assert fit.verdict["contradictions"][0].startswith("S rises with the batch: of ")


def test_seeds_that_are_copies_are_said(prompts_sweep):
    n = prompts_sweep.sizes["run"]
    ds = again(prompts_sweep, [*range(n), 0], run=[f"r{k}" for k in range(n + 1)])
    with quick_sampling():
        fit = fit_sweep(ds, sampler=SETTINGS, alternatives=False)
    assert f"2 runs share their whole curve with another run (r0 = r{n})" in " ".join(
        fit.verdict["contradictions"])


@pytest.mark.mcmc
def test_one_run_an_order_of_magnitude_off_is_named():
    prompts = np.repeat([8, 16, 32, 64, 128], 3)
    steps = 50 * (1 + 40 / prompts) * np.exp(0.08 * np.random.default_rng(0).normal(size=15))
    steps[4] *= 10
    runs = {"run": [f"r{k}" for k in range(15)], "n_prompts": prompts, "n_rollouts": [8] * 15}
    ds = new_sweep(runs, steps_lower=0.97 * steps[:, None], steps_upper=steps[:, None],
                   threshold=[0.5])
    (said,) = fit_sweep(ds, sampler=SamplerSettings(draws=300)).verdict["contradictions"]
    assert said.startswith("Run r4 needed ")
    assert "while 2 other(s) at its batch did not" in said
    assert "Leaving it out changes cbs_prompts at n_rollouts=8 (threshold 0.5) from" in said
