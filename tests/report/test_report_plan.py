"""A plan in sentences and tables, and its phase files, which the training side lays out again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from plan_fixture import make_plan

from cbsbayes.errors import CBSDataError
from cbsbayes.report.facts import Facts
from cbsbayes.report.plan import (
    Head,
    command_lines,
    head_of,
    phase_files,
    plan_notes,
    plan_sentences,
    plan_tables,
    read_like,
    write_phases,
)
from training.definitions import PHASES_FOLDER, read_phase


@pytest.fixture
def plan():
    return make_plan()


@pytest.fixture
def notes(fit):
    return lambda plan: " ".join(plan_notes(plan, Facts(fit)))


def test_sentences_say_what_is_planned(plan):
    text = " ".join(plan_sentences(plan))
    assert text.startswith("Next: 32 prompts × 8 rollouts, 100 updates, seed 1 (25,600 samples)")
    assert "Prompt CBS at 8 rollouts, target 0.9: 22" in text
    assert "narrows the interval by 18" in text
    assert "Together the 2 runs cost 51,200 samples and tell 0.30 ±" in text
    alone = " ".join(plan_sentences(replace(plan, runs=plan.runs.head(1))))
    assert "The budget has room for one run, not for 2." in alone
    bound = replace(plan, quantity=replace(plan.quantity, status="upper_bound"))
    assert "only its upper end is known" in " ".join(plan_sentences(bound))
    of_rate = replace(plan.quantity, name="best_rate", unit="1",
                      values=np.array([5e-5, 6e-5, 7e-5]))
    assert "target 0.9: 6e-5 (5.1e-5 to 6.9e-5), median" in " ".join(
        plan_sentences(replace(plan, quantity=of_rate)))


def test_learning_rates_are_shown_where_they_differ_and_a_second_one_apart(plan):
    heads = lambda table: [column.label for column in table.columns]  # noqa: E731
    assert "learning rate" not in heads(plan_tables(plan)["candidates"])
    several = replace(plan, table=plan.table.assign(learning_rate=[1e-6, 3e-6, 1e-6, 1e-6]))
    assert "learning rate" in heads(plan_tables(several)["candidates"])
    assert "8 rollouts, learning rate 1e-6, 100 updates" in " ".join(plan_sentences(several))
    assert plan_tables(plan)["second_rate"] is None
    lacking = replace(plan, second_rate=plan.table.head(3).assign(learning_rate=3e-6))
    assert "3 runs at three times the rate used" in " ".join(plan_sentences(lacking))
    rows = plan_tables(lacking)["second_rate"].rows
    assert [row[1].text for row in rows] == ["3e-6"] * 3


def test_notes_say_what_to_doubt(plan, notes):
    text = notes(plan)
    assert "less than twice their Monte Carlo error stand last: 1." in text
    assert "outside the range tried" not in text
    doubt = replace(plan, runs=plan.runs.assign(extrapolated=True, effective_draws=12.0))
    assert "outside the range tried" in notes(doubt)
    assert "Rough: these runs leave 12 effective draws" in notes(doubt)
    untimed = replace(plan, runs=plan.runs.assign(cost_range="extrapolated"))
    assert "step time of a planned batch is extrapolated" in notes(untimed)
    assert "No candidate tells more" in notes(
        replace(plan, table=plan.table.assign(resolved=False)))


def test_the_unit_of_a_price_is_one_to_read(plan):
    assert plan_tables(plan)["candidates"].columns[-1].label == "nats per 10^6 samples"
    nothing = replace(plan, table=plan.table.assign(per_cost=0.0))
    assert plan_tables(nothing)["candidates"].columns[-1].label == "nats per samples"


def planned(*runs):
    """Return planned runs; one that names no learning rate has that of the others."""
    rows = pd.DataFrame([run if len(run) == 5 else (*run, np.nan) for run in runs], columns=[
        "n_prompts", "n_rollouts", "updates", "seed", "learning_rate"], dtype=float)
    return rows


@pytest.fixture
def head():
    return read_like(PHASES_FOLDER / "tiny.toml")


def laid_out(files, folder):
    write_phases(files, folder)
    return [read_phase(name, folder=folder) for name in files]


def test_the_training_side_lays_out_the_planned_runs(head, tmp_path):
    runs = planned((64, 8, 44, 4), (64, 8, 44, 5), (16, 4, 44, 4), (16, 4, 44, 5), (8, 2, 100, 7))
    phases = laid_out(phase_files(runs, head, 2.0, "planned"), tmp_path)
    assert [phase.name for phase in phases] == ["planned_1", "planned_2"]
    cells = [cell for phase in phases for cell in phase.cells]
    found = {(cell.n_prompts, cell.n_rollouts, cell.steps * cell.updates_per_step, cell.seed)
             for cell in cells}
    assert found == {tuple(map(int, row)) for row in runs.drop(columns="learning_rate").to_numpy()}
    assert len(cells) == len(runs)
    assert {cell.controls.validation.every_updates for cell in cells} == {2}


def test_everything_else_is_as_in_the_phase_of_the_earlier_runs(head, tmp_path):
    phase = laid_out(phase_files(planned((64, 8, 44, 4)), head, 2.0, "planned"), tmp_path)[0]
    cell, like = phase.cells[0], read_phase("tiny").cells[0]
    for name in ("optimizer", "sampling", "gradient_noise", "checkpoint"):
        assert getattr(cell.controls, name) == getattr(like.controls, name)
    for name in ("model", "dataset", "algorithm", "hardware", "checkpoint", "data"):
        assert getattr(cell, name) == getattr(like, name)
    assert cell.name == "cbs_p9_tiny_add3_np64_nr8_s4"


def test_the_training_side_takes_the_learning_rates(head, tmp_path):
    runs = planned((64, 8, 44, 4, 2e-4), (64, 8, 44, 4, 5e-5), (16, 4, 44, 4, 5e-5))
    (phase,) = laid_out(phase_files(runs, head, 2.0, "planned"), tmp_path)
    assert [(cell.n_prompts, cell.learning_rate) for cell in phase.cells] == [
        (64, 2e-4), (64, 5e-5), (16, 5e-5)]
    assert len({cell.name for cell in phase.cells}) == 3
    assert phase_files(planned(), head, 2.0, "planned") == {}


@pytest.mark.parametrize("name", ["p1", "reuse", "lr", "p4_rpp", "smoke"])
def test_every_phase_can_be_the_model(name, tmp_path):
    files = phase_files(planned((64, 8, 44, 4)), read_like(PHASES_FOLDER / f"{name}.toml"), 10.0,
                        "planned")
    assert laid_out(files, tmp_path)[0].cells[0].n_prompts == 64


def test_without_one_the_head_says_what_the_sweep_says(fit, tmp_path):
    head = head_of(fit.sweep.assign_coords(learning_rate=("run", [3e-6] * fit.sweep.sizes["run"])))
    assert head.labels == {"hardware": "gpu", "model": "simulated", "dataset": "",
                           "algorithm": "grpo"}
    files = phase_files(planned((64, 8, 44, 4)), head, 2.0, "planned")
    assert "learning_rate = 3e-06" in files["planned"]
    assert "--like" in head.how
    with pytest.raises(CBSDataError, match="dataset is ''; valid: a text"):
        laid_out(files, tmp_path)


def test_text_with_quotes_and_tables_comes_back(tmp_path):
    head = Head({"hardware": "gpu", "model": 'a "b" \\ c', "dataset": "d", "algorithm": "grpo"},
                {"optimizer": {"kl_loss": True, "x": [1, 2.5], "y": {"z w": "ü"}},
                 "verl": {"trainer.use_v1": True}}, "")
    (path,) = write_phases(phase_files(planned((64, 8, 44, 4)), head, 2.0, "planned"), tmp_path)
    back = read_like(path)
    assert back.labels == head.labels
    for section in ("optimizer", "verl"):
        assert back.sections[section] == head.sections[section]


def test_a_file_of_another_origin_is_not_replaced(head, tmp_path):
    files = phase_files(planned((64, 8, 44, 4)), head, 2.0, "tiny")
    (tmp_path / "tiny.toml").write_text("title = 'mine'\n")
    with pytest.raises(CBSDataError, match="exists and was not planned by this command"):
        write_phases(files, tmp_path)
    assert (tmp_path / "tiny.toml").read_text() == "title = 'mine'\n"
    (tmp_path / "tiny.toml").unlink()
    write_phases(files, tmp_path)
    write_phases(files, tmp_path)  # its own it does


def test_the_lines():
    inside = command_lines([Path("training/phases/planned.toml")])
    assert inside == ["python -m training.sweep planned --run", "python -m cbsbayes.ingest "
                      "EARLIER_LOGS outputs/planned/logs -o sweep.nc"]
    outside = command_lines([Path("my plan/a_1.toml"), Path("my plan/a_2.toml")])
    assert outside[:2] == ["python -m training.sweep 'my plan/a_1.toml' --run",
                           "python -m training.sweep 'my plan/a_2.toml' --run"]


@pytest.mark.parametrize(("row", "name", "message"), [
    ((64.5, 8, 44, 1), "planned", "n_prompts is 64.5"), ((64, 8, 44.5, 1), "p", "updates is 44.5"),
    ((64, 8, 44, 1), "not a-label", "the phase is called 'not a-label'")])
def test_what_cannot_be_run(head, row, name, message):
    with pytest.raises(CBSDataError, match=message):
        phase_files(planned(row), head, 2.0, name)


def test_a_file_that_is_no_phase(tmp_path):
    (tmp_path / "a.toml").write_text("title = 'x'")
    with pytest.raises(CBSDataError, match="does not say its hardware"):
        read_like(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("[[")
    with pytest.raises(CBSDataError, match="cannot be read as TOML"):
        read_like(tmp_path / "b.toml")
