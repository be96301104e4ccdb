"""``allocate --clock``: what it writes, prints and refuses; the section of the page."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from timed_sweeps import timed_fit

from cbsbayes._command import EXIT_INPUT, EXIT_OK, EXIT_SAMPLING
from cbsbayes.allocate import main
from cbsbayes.decisions.time_answer import answer_clock
from cbsbayes.report.clock import choice_sentences, clock_section, clock_sentence


@pytest.fixture(scope="module")
def fit():
    return timed_fit()


@pytest.fixture(scope="module")
def saved(fit, tmp_path_factory):
    return fit.save(tmp_path_factory.mktemp("clock") / "fit.nc")


def allocate(*arguments):
    return main([str(a) for a in arguments])


def test_tables_and_figures_are_written_and_json_holds_them(saved, tmp_path, capsys):
    status = allocate(saved, "-o", tmp_path, "--gpus", "8,16", "--price", 2, "--gpu-hours", 5,
                      "--deadline", 4, "--json")
    assert status in (EXIT_OK, EXIT_SAMPLING)
    told = json.loads(capsys.readouterr().out)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"clock.csv", "times.csv", "clock_choices.csv", "clock_map.svg", "time_cost.pdf",
            "step_time.svg"} <= names
    times = pd.read_csv(tmp_path / "times.csv")
    assert set(times["range"]) == {"tried", "inside", "extrapolated"}
    assert {"clock", "times", "clock_choices"} <= told["tables"].keys()
    assert len(told["tables"]["clock_choices"]) == 4
    assert any("A trainer step takes" in sentence for sentence in told["sentences"])
    assert any("16 GPUs are bounds" in note for note in told["notes"])


def test_a_later_answer_without_a_clock_leaves_none_behind(saved, tmp_path, capsys):
    allocate(saved, "-o", tmp_path, "--clock")
    assert "typical run" in capsys.readouterr().out
    allocate(saved, "-o", tmp_path, "--quiet")
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & {"clock.csv", "times.csv", "clock_choices.csv", "clock_map.svg"}
    assert "splits.csv" in left


@pytest.mark.parametrize(("arguments", "message"), [
    (["--gpus", "0"], "--gpus is 0"),
    (["--price", "2"], "--price needs the number of GPUs"),
    (["--gpus", "8", "--price", "-1"], "--price is -1"),
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
    assert allocate(path, "-o", tmp_path / "out", "--quiet") in (EXIT_OK, EXIT_SAMPLING)
    status = allocate(path, "-o", tmp_path / "out", "--clock")
    captured = capsys.readouterr()
    assert status in (EXIT_OK, EXIT_SAMPLING)
    assert "No run has a step time" in captured.out.replace("\n", " ")
    assert (tmp_path / "out" / "splits.csv").exists()
    section = clock_section(untimed, float(fit.thresholds[0]))
    assert section["missing"].startswith("No run has a step time")
    assert section["tables"] == []


def test_sentences_say_for_whom_with_which_probability(fit):
    from cbsbayes.decisions.time_to_target import Machine

    threshold = float(fit.thresholds[1])
    answer = answer_clock(fit, Machine((8,)), threshold=threshold, gpu_hours=1e6, deadline=1e-9)
    rich, rich_new, late, late_new = choice_sentences(answer)
    assert "fastest batch for a typical run" in rich
    assert "meets the limit with probability above 0.99" in rich
    assert "for one new run" in rich_new
    assert late.startswith("No batch inside the range tried takes a typical run to ")
    assert "with probability 0.9" in late
    assert "below 0.01" in late_new
    assert "GPU-hours" in rich
    assert "c_r" in clock_sentence(answer)


def test_the_section_of_the_page_has_words_and_both_tables(fit):
    section = clock_section(fit, float(fit.thresholds[1]))
    assert section["missing"] == ""
    assert len(section["tables"]) == 2
    labels = [column.label for column in section["tables"][1].columns]
    assert labels[:2] == ["batch", "range"]
    assert "P(fastest)" in labels
    assert any("validation" in note for note in section["notes"])
