"""``allocate --clock``: what it writes, prints and refuses."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from timed_sweeps import timed_fit

from cbsbayes._command import EXIT_INPUT, EXIT_OK, EXIT_SAMPLING
from cbsbayes.allocate import main
from cbsbayes.decisions.time_to_target import Limits, Machine, answer_times
from cbsbayes.report.facts import Facts
from cbsbayes.report.times import time_notes, time_sentences, time_tables


@pytest.fixture(scope="module")
def fit():
    return timed_fit()


@pytest.fixture(scope="module")
def saved(fit, tmp_path_factory):
    return fit.save(tmp_path_factory.mktemp("clock") / "fit.nc")


def allocate(*arguments):
    return main([str(a) for a in arguments])


def test_tables_and_figures_are_written_and_those_of_a_later_answer_only(saved, tmp_path, capsys):
    status = allocate(saved, "-o", tmp_path, "--gpus", "8,16", "--price", 2, "--gpu-hours", 5,
                      "--deadline", 4, "--json")
    assert status in (EXIT_OK, EXIT_SAMPLING)
    found = json.loads(capsys.readouterr().out)
    timed = {"clock.csv", "times.csv", "clock_choices.csv"}
    names = {path.name for path in tmp_path.iterdir()}
    assert timed <= names
    assert {"clock_map", "time_cost", "step_time"} <= {name.split(".")[0] for name in names}
    times = pd.read_csv(tmp_path / "times.csv")
    assert set(times["range"]) == {"tried", "inside", "extrapolated"}
    assert {"clock", "times", "clock_choices"} <= found["tables"].keys()
    assert len(found["tables"]["clock_choices"]) == 4
    assert any("A trainer step takes" in sentence for sentence in found["sentences"])
    assert any("16 GPUs are bounds" in note for note in found["notes"])
    allocate(saved, "-o", tmp_path, "--quiet")
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & timed
    assert "splits.csv" in left


@pytest.mark.parametrize(("arguments", "message"), [
    (["--gpus", "0"], "--gpus is 0"),
    (["--price", "2"], "--price needs the number of GPUs"),
    (["--gpu-hours", "5"], "--gpu-hours needs the number of GPUs"),
    (["--deadline", "0"], "--deadline is 0"),
])
def test_what_cannot_be_is_one_line(saved, tmp_path, capsys, arguments, message):
    assert allocate(saved, "-o", tmp_path / "out", *arguments) == EXIT_INPUT
    captured = capsys.readouterr()
    assert captured.err.startswith("cbsbayes.allocate: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_gpus_that_are_no_numbers_are_a_usage_error(saved, capsys):
    with pytest.raises(SystemExit) as stopped:
        allocate(saved, "--gpus", "eight")
    assert stopped.value.code == 2
    assert "'eight' is not a whole number" in capsys.readouterr().err


def test_logs_without_step_times_refuse_the_clock_and_answer_the_rest(fit, tmp_path, capsys):
    untimed = type(fit)(fit.tree.copy(deep=True))
    untimed.tree["sweep"]["step_time"] = untimed.tree["sweep"]["step_time"] * np.nan
    path = untimed.save(tmp_path / "untimed.nc")
    assert allocate(path, "-o", tmp_path / "out", "--clock") in (EXIT_OK, EXIT_SAMPLING)
    assert "No run has a step time" in capsys.readouterr().out.replace("\n", " ")
    assert (tmp_path / "out" / "splits.csv").exists()
    assert Facts(untimed).times.startswith("no run has a step time")


def test_sentences_and_tables_name_for_whom_with_which_probability(fit):
    facts = Facts(fit, float(fit.thresholds[1]))
    answer = answer_times(fit, Machine((8,)), Limits(1e6, None, 1e-9), threshold=facts.threshold)
    model, _, rich, rich_new, late, late_new = time_sentences(facts, answer)
    assert "c_r" in model
    assert "fastest batch for the population of runs" in rich
    assert "meets the limit with probability above 0.99" in rich
    assert "GPU-hours" in rich
    assert "for one new run" in rich_new
    assert late.startswith("No batch inside the range tried takes the population of runs to ")
    assert "with probability 0.9" in late
    assert "below 0.01" in late_new
    assert any("validation" in note for note in time_notes(answer))
    labels = [column.label for column in time_tables(facts, answer)["times"].columns]
    assert labels[:3] == ["batch", "range", "GPUs"]
    assert labels[-1] == "P(fastest)"
