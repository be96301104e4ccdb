"""``python -m cbsbayes.plan``: what it writes and prints, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fitted import quick_sampling
from page_reader import check_command_page
from timed_sweeps import timed_fit

from cbsbayes.decisions.candidates import Request
from cbsbayes.decisions.next_runs import PLAN_COLUMNS, plan_runs
from cbsbayes.plan import main
from cbsbayes.posterior.fit import Fit, table_to_json
from cbsbayes.report.facts import Facts
from cbsbayes.report.plan import plan_notes
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.sweep.files import write_sweep

FEW = ("--data-sets", "32", "--draws", "300", "--n-prompts", "32,128,512", "--n-rollouts", "4,8")


def plan(source, folder, *more):
    return main([str(source), "-o", str(folder), *FEW, *map(str, more)])


@pytest.fixture(scope="module")
def planned(written, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan") / "plan"
    status = plan(written, folder, "--runs", 2, "--budget", 5e6, "--quiet")
    return folder, status


def test_the_folder(planned):
    folder, status = planned
    assert status == 0
    table = pd.read_csv(folder / "plan.csv")
    assert list(table.columns) == PLAN_COLUMNS
    runs = pd.read_csv(folder / "runs.csv")
    assert 1 <= len(runs) <= 2
    assert runs["cost"].sum() <= 5e6
    record = json.loads((folder / "plan.json").read_text())
    assert record["quantity"]["name"] == "cbs_prompts"
    assert record["request"]["budget"] == 5e6
    assert len(record["candidates"]) == len(table)
    assert [run["seed"] for run in record["runs"]] == runs["seed"].tolist()
    assert record["runs"][0]["added"] == pytest.approx(runs["added"].iloc[0])
    assert "<svg" in (folder / "plan.svg").read_text("utf-8")
    page = check_command_page(folder)
    for text in (*record["sentences"], *record["notes"], *record["lines"], record["command"]):
        assert " ".join(text.split()) in page.words
    assert sorted(path.name for path in (folder / "phases").iterdir()) == [
        line.split()[-2] + ".toml" for line in record["lines"] if "training.sweep" in line]


def test_what_is_printed(written, tmp_path, capsys):
    assert plan(written, tmp_path) == 0
    out, err = capsys.readouterr()
    words = " ".join(out.split())
    assert "Next: n_prompts" in words
    assert "interval of the population" in words
    assert "python -m training.sweep planned --run" in words
    assert f"cp {tmp_path}/phases/planned.toml training/phases/" in out.replace("\n", "")
    assert err == "cbsbayes.plan: weighing candidates …\n"
    check_command_page(tmp_path, out)


def test_json_is_what_is_written(written, tmp_path, capsys):
    assert plan(written, tmp_path, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads((tmp_path / "plan.json").read_text())
    assert json.loads(out)["request"]["budget"] is None
    assert err == ""


def test_quiet_prints_nothing(written, tmp_path, capsys):
    assert plan(written, tmp_path, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_hours_of_a_rate(written, tmp_path, capsys):
    assert plan(written, tmp_path, "--seconds-per-sample", 0.5, "--gpus", 8) == 0
    capsys.readouterr()
    table = pd.read_csv(tmp_path / "plan.csv")
    assert set(table["cost_unit"]) == {"GPU-hours"}
    first = table.iloc[0]
    assert first["cost"] == pytest.approx(
        first["total_batch"] * first["updates"] * 0.5 * 8 / 3600)


def test_hours_of_the_clock_are_marked_where_extrapolated(tmp_path, capsys):
    timed_fit().save(tmp_path / "fit.nc")
    status = plan(tmp_path / "fit.nc", tmp_path / "plan", "--cost", "gpu-hours", "--gpus", 8,
                  "--n-prompts", "128,4096")
    assert status == 0
    table = pd.read_csv(tmp_path / "plan" / "plan.csv")
    assert dict(zip(table["n_prompts"], table["cost_range"], strict=True))[4096] == "extrapolated"
    assert (table["cost_lower"] < table["cost"]).all()
    assert (table["cost"] < table["cost_upper"]).all()
    out = " ".join(capsys.readouterr().out.split())
    assert "* extrapolated" in out
    assert "from the step times of" in out
    assert "* extrapolated" in check_command_page(tmp_path / "plan").words


def test_other_laws_that_the_runs_do_not_rule_out_are_named(fit):
    """A plan weighs runs under one law; the shipped sweep gives two of them a weight."""
    laws = fit.law_table.assign(weight=[0.59, 0.41, *[0.0] * (len(fit.law_table) - 2)])
    first, second = laws["law"].iloc[0], laws["law"].iloc[1]
    plan = plan_runs(fit, Request(data_sets=32, draws=300))
    tree = fit.tree.copy()
    tree.attrs |= {"table_laws": table_to_json(laws), "law": first}
    text = " ".join(plan_notes(plan, Facts(Fit(tree))))
    assert f"under the law {first} alone, whose weight by left-out runs is 0.59" in text
    assert f"({second} 0.41)" in text
    tree.attrs["table_laws"] = table_to_json(laws.assign(
        weight=[1.0, *[0.0] * (len(laws) - 1)]))
    assert "left-out runs" not in " ".join(plan_notes(plan, Facts(Fit(tree))))


def test_a_batch_outside_those_tried_is_marked(written, tmp_path, capsys):
    assert plan(written, tmp_path, "--n-prompts", "8,4096") == 0
    out = capsys.readouterr().out
    assert pd.read_csv(tmp_path / "plan.csv")["extrapolated"].all()
    assert out.count(" *") > 2, out
    assert "lies outside the range tried" in " ".join(out.split())


def test_a_phase_file_where_it_is_wanted(written, tmp_path, capsys, root):
    phase = tmp_path / "phases" / "next.toml"
    assert plan(written, tmp_path / "plan", "--write-phase", phase, "--like",
                root / "training/phases/p1.toml") == 0
    assert "Everything else is as in p1.toml" in " ".join(capsys.readouterr().out.split())
    assert phase.read_text().startswith("# Planned by python -m cbsbayes.plan")
    assert not (tmp_path / "plan" / "phases").exists()


def test_a_sweep_is_fitted_first(sweep_file, tmp_path, capsys):
    with quick_sampling():
        status = main([str(sweep_file), "-o", str(tmp_path), "--data-sets", "32", "--draws", "300",
                       "--thresholds", "0.6,0.65"])
    out, err = capsys.readouterr()
    assert status in (0, 3)
    assert "sampling total" in err
    assert "The sweep was fitted with the law total" in " ".join(out.split())
    assert (tmp_path / "plan.csv").exists()


def decreasing_table():
    """Return a table of crossings of losses, total batches only."""
    batches = np.array([32.0, 64, 128, 256, 512, 32, 128, 512])
    losses = np.array([1.0, 1.5, 2.0])
    steps = 40 * (1 + 300 / batches)[:, None] * np.array([3.0, 2.0, 1.0])
    steps = steps * np.exp(np.random.default_rng(0).normal(0, 0.05, (8, 1)))
    return new_sweep({"run": [f"r{k}" for k in range(8)], "total_batch": batches},
                     threshold=losses, steps_lower=np.floor(steps / 5) * 5,
                     steps_upper=np.floor(steps / 5) * 5 + 5, direction="decreasing")


@pytest.mark.parametrize("make", [lambda: simulate_sweep("batch", 1, law="total"),
                                  decreasing_table])
def test_data_of_one_axis(tmp_path, capsys, make):
    write_sweep(make(), tmp_path / "sweep.nc")
    with quick_sampling():
        status = main([str(tmp_path / "sweep.nc"), "-o", str(tmp_path / "plan"), "--data-sets",
                       "32", "--draws", "300", "--runs", "2"])
    assert status in (0, 3)
    out = " ".join(capsys.readouterr().out.split())
    assert "Next: total batch" in out
    assert "The data give total batches only, so there are no lines for training.sweep." in out
    record = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert record["quantity"]["name"] == "cbs_samples"
    assert not (tmp_path / "plan" / "phases").exists()
    table = pd.read_csv(tmp_path / "plan" / "plan.csv")
    assert (table["n_rollouts"] == 1).all()


def test_a_fit_of_curves_is_made_again_from_its_sweep(fit, tmp_path, capsys):
    tree = fit.tree.copy()
    tree.attrs["settings"] = json.dumps(fit.settings | {"model": "trajectory"})
    Fit(tree).save(tmp_path / "fit.nc")
    with quick_sampling():
        assert plan(tmp_path, tmp_path / "plan", "--json") in (0, 3)
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert "is of the trajectory model" in notes[0]


@pytest.mark.parametrize(("more", "message"), [
    (("--n-rollouts", "1,8"), "n_rollouts 1 is outside the law"),
    (("--budget", "5"), "the budget of 5 samples is below the cheapest candidate"),
    (("--budget", "-5"), "budget is -5.0; valid: above 0"),
    (("--budget", "nan"), "budget is nan; valid: above 0"),
    (("--quantity", "speed"), "unknown quantity 'speed'; this fit has"),
    (("--threshold", "0.999"), "threshold 0.999 was not fitted"),
    (("--cost", "gpu-hours"), "no run has a step time"),
    (("--seconds-per-sample", "0"), "--seconds-per-sample is 0; valid: above 0"),
    (("--gpus", "-1", "--seconds-per-sample", "1"), "--gpus is -1; valid: above 0"),
    (("--runs", "0"), "runs is 0; valid: at least 1"),
    (("--law", "two_axis"), "--law says how a sweep is fitted, but"),
    (("--seed", "-1"), "seed is -1; valid: 0 and more"),
    (("--like", "nowhere.toml"), "No such file or directory: nowhere.toml")])
def test_bad_input_is_one_line(written, tmp_path, capsys, more, message):
    assert plan(written, tmp_path / "plan", *more) == 1
    out, err = capsys.readouterr()
    assert out.count("\n") == 0
    line = err.splitlines()[-1]
    assert line.startswith("cbsbayes.plan: ")
    assert message in line
    assert not (tmp_path / "plan" / "plan.csv").exists()


def test_what_is_neither_fit_nor_sweep(tmp_path, capsys):
    (tmp_path / "text.nc").write_text("hello")
    for source in (tmp_path / "text.nc", tmp_path / "nothing.nc", tmp_path):
        assert plan(source, tmp_path / "plan") == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_quantity_that_is_not_identified_is_planned_for_and_said(fit, tmp_path, capsys):
    tree = fit.tree.copy()
    tree.attrs["table_cbs"] = table_to_json(fit.cbs.assign(status="upper_bound"))
    Fit(tree).save(tmp_path / "fit.nc")
    assert plan(tmp_path / "fit.nc", tmp_path / "plan", "--quantity", "B_prompt") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f", threshold {fit.thresholds[-1]:g}: only its upper end is known" in out
    assert "hold the prior's share" in out
