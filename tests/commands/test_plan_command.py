"""``python -m cbsbayes.plan``: what it writes and prints, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fitted import changed, quick_sampling
from page_reader import check_command_page

from cbsbayes.decisions.batches import COLUMNS
from cbsbayes.plan import main
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.sweep.files import write_sweep
from training.definitions import read_phase

FEW = ("--data-sets", "32", "--draws", "300")
SMALL = (*FEW, "--n-prompts", "32,128,512", "--n-rollouts", "4,8")


def plan(source, folder, *more):
    return main([str(source), "-o", str(folder), *SMALL, *map(str, more)])


def test_the_folder_and_what_is_printed(saved, tmp_path, capsys, root):
    assert plan(saved, tmp_path, "--runs", 2, "--budget", 5e6, "--like",
                root / "training/phases/p1.toml") == 0
    out, err = capsys.readouterr()
    assert err == "cbsbayes.plan: weighing candidates …\n"
    table, runs = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("plan", "runs"))
    assert list(table.columns) == COLUMNS["plan"]
    assert 1 <= len(runs) <= 2
    assert runs["cost"].sum() <= 5e6
    record = json.loads((tmp_path / "plan.json").read_text())
    assert record["quantity"]["name"] == "cbs_prompts"
    assert record["request"]["budget"] == 5e6
    assert len(record["candidates"]) == len(table)
    assert [run["seed"] for run in record["runs"]] == runs["seed"].tolist()
    assert "<svg" in (tmp_path / "plan.svg").read_text("utf-8")
    page = check_command_page(tmp_path, out)
    for text in (*record["sentences"], *record["notes"], *record["lines"], record["command"]):
        assert " ".join(text.split()) in page.words
    phases = sorted(path.name for path in (tmp_path / "phases").iterdir())
    assert phases
    assert f"{tmp_path}/phases/{phases[0]}" in out.replace("\n", "")


def test_json_is_what_is_written_in_hours_of_a_rate(saved, tmp_path, capsys):
    assert plan(saved, tmp_path, "--json", "--seconds-per-sample", 0.5, "--gpus", 8) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads((tmp_path / "plan.json").read_text())
    assert err == ""
    table = pd.read_csv(tmp_path / "plan.csv")
    assert set(table["cost_unit"]) == {"GPU-hours"}
    np.testing.assert_allclose(table["cost"],
                               table["total_batch"] * table["updates"] * 0.5 * 8 / 3600)


def test_batches_beyond_those_tried_and_their_hours_are_marked(timed, tmp_path, capsys):
    saved = timed.save(tmp_path / "fit.nc")
    assert plan(saved, tmp_path / "plan", "--cost", "gpu-hours", "--gpus", 8, "--n-prompts",
                "128,4096") == 0
    table = pd.read_csv(tmp_path / "plan" / "plan.csv").set_index("n_prompts")
    assert table.loc[4096, "cost_range"].eq("extrapolated").all()
    assert table.loc[4096, "extrapolated"].all()
    assert table["cost"].between(table["cost_lower"], table["cost_upper"]).all()
    out = " ".join(capsys.readouterr().out.split())
    assert "* extrapolated" in out
    assert "from the step times of" in out
    assert "* extrapolated" in check_command_page(tmp_path / "plan").words


def test_a_phase_file_where_it_is_wanted_and_one_at_a_second_rate(fit, tmp_path, capsys, root):
    phase = tmp_path / "phases" / "next.toml"
    rate = ("run", [1e-6] * fit.crossings.sizes["run"])
    path = changed(fit, crossings=fit.crossings.assign_coords(learning_rate=rate)).save(
        tmp_path / "fit.nc")
    assert plan(path, tmp_path / "plan", "--write-phase", phase, "--like",
                root / "training/phases/p1.toml") == 0
    assert "Everything else is as in p1.toml" in " ".join(capsys.readouterr().out.split())
    assert phase.read_text().startswith("# Planned by python -m cbsbayes.plan")
    assert not (tmp_path / "plan" / "phases").exists()
    assert list(pd.read_csv(tmp_path / "plan" / "second_rate.csv")["learning_rate"]) == [3e-6] * 3
    second = [read_phase(str(path)) for path in phase.parent.glob("next_second_rate*.toml")]
    assert [cell.learning_rate for one in second for cell in one.cells] == [3e-6] * 3


def test_without_the_algorithm_a_phase_file_is_asked_for(fit, tmp_path, capsys, root):
    blank = fit.sweep.assign_coords(algorithm=("run", [""] * fit.sweep.sizes["run"]))
    path, phase = changed(fit, sweep=blank).save(tmp_path / "fit.nc"), tmp_path / "next.toml"
    assert plan(path, tmp_path / "plan") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "does not say the dataset nor the algorithm of its runs" in out
    assert "give --like PHASE_FILE" in out
    assert not (tmp_path / "plan" / "phases").exists()
    assert plan(path, tmp_path / "plan", "--write-phase", phase) == 1
    capsys.readouterr()
    assert plan(path, tmp_path / "plan", "--quiet", "--write-phase", phase, "--like",
                root / "training/phases/p1.toml") == 0
    assert capsys.readouterr() == ("", "")


def test_a_table_of_losses_with_total_batches_is_fitted_first(tmp_path, capsys):
    batches = np.array([32.0, 64, 128, 256, 512, 32, 128, 512])
    steps = 40 * (1 + 300 / batches)[:, None] * np.array([3.0, 2.0, 1.0])
    steps = steps * np.exp(np.random.default_rng(0).normal(0, 0.05, (8, 1)))
    write_sweep(new_sweep({"run": [f"r{k}" for k in range(8)], "total_batch": batches},
                          threshold=[1.0, 1.5, 2.0], steps_lower=np.floor(steps / 5) * 5,
                          steps_upper=np.floor(steps / 5) * 5 + 5, direction="decreasing"),
                tmp_path / "sweep.nc")
    with quick_sampling():
        assert main([str(tmp_path / "sweep.nc"), "-o", str(tmp_path / "plan"), "--runs", "2",
                     *FEW]) in (0, 3)
    out, err = capsys.readouterr()
    assert "sampling total" in err
    words = " ".join(out.split())
    assert "The sweep was fitted with the law total" in words
    assert " samples, " in words
    record = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert record["quantity"]["name"] == "cbs_samples"
    assert not (tmp_path / "plan" / "phases").exists()
    assert (pd.read_csv(tmp_path / "plan" / "plan.csv")["n_rollouts"] == 1).all()


def test_a_fit_of_curves_is_made_again_from_its_sweep(fit, tmp_path, capsys):
    path = changed(fit, settings=fit.settings | {"model": "trajectory"}).save(tmp_path / "fit.nc")
    with quick_sampling():
        assert plan(path, tmp_path / "plan", "--json") in (0, 3)
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert "is of the trajectory model" in notes[0]


def test_a_quantity_that_is_not_identified_is_planned_for_and_said(fit, tmp_path, capsys):
    bounds = changed(fit, table_cbs=fit.cbs.assign(status="upper_bound"))
    path = bounds.save(tmp_path / "fit.nc")
    assert plan(path, tmp_path / "plan", "--quantity", "B_prompt") == 0
    assert "only its upper end is known" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("more", "message"), [
    (("--n-rollouts", "1,8"), "n_rollouts 1 is outside the law"),
    (("--budget", "5"), "the budget of 5 samples is below the cheapest candidate"),
    (("--budget", "nan"), "budget is nan; valid: above 0"),
    (("--quantity", "speed"), "unknown quantity 'speed'; this fit has"),
    (("--threshold", "0.999"), "threshold 0.999 was not fitted"),
    (("--cost", "gpu-hours"), "no run has a step time"),
    (("--gpus", "-1", "--seconds-per-sample", "1"), "--gpus is -1; valid: above 0"),
    (("--runs", "0"), "runs is 0; valid: at least 1"),
    (("--law", "two_axis"), "--law says how a sweep is fitted, but"),
    (("--seed", "-1"), "seed is -1; valid: 0 and more"),
    (("--like", "nowhere.toml"), "No such file or directory: nowhere.toml")])
def test_bad_input_is_one_line(saved, tmp_path, capsys, more, message):
    assert plan(saved, tmp_path / "plan", *more) == 1
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
