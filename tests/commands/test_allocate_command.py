"""``python -m cbsbayes.allocate``: what it writes, prints and answers, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fitted import changed, quick_sampling, verdict_of
from page_reader import check_command_page

from cbsbayes.allocate import main
from cbsbayes.decisions.batches import COLUMNS

PAGE = {"index.html", "manifest.json", "paper.tex", "paper.txt", "tables"}
CLOCK = {"clock.csv", "times.csv", "clock_choices.csv"}


def run(*arguments):
    return main([str(argument) for argument in arguments])


def listing(folder):
    return {path.name for path in folder.iterdir()}


def printed(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_what_is_written_and_what_a_later_answer_removes(saved, fit, tmp_path, capsys):
    level = f"{fit.thresholds[2]:g}"
    assert run(saved, "--batch", 2048, "--threshold", level, "--target-updates", 300,
               "--schedule", 5, "-o", tmp_path / "out") == 0
    for name in ("splits", "front", "targets", "iso_batch"):
        table = pd.read_csv(tmp_path / "out" / f"{name}.csv")
        assert list(table.columns) == COLUMNS[name]
        assert set(table["threshold"]) == {float(level)}
    schedule = pd.read_csv(tmp_path / "out" / "schedule.csv")
    assert schedule["to_threshold"].iloc[-1] == float(level)
    out, err = capsys.readouterr()
    assert err == ""
    page = check_command_page(tmp_path / "out", out)
    for words in (page.words, " ".join(out.split())):
        assert "At 2,048 samples an update, " in words
    assert run(saved, "--batch", 8192 * 3, "-o", tmp_path / "out", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert not {"targets.csv", "iso_batch.csv", "schedule.csv"} & listing(tmp_path / "out")
    np.testing.assert_allclose(np.unique(pd.read_csv(tmp_path / "out" / "splits.csv")["threshold"]),
                               np.sort(fit.thresholds))


def test_json_is_the_tables(saved, tmp_path, capsys):
    assert run(saved, "--json", "-o", tmp_path, "--prompt-cost", 1, "--rollout-cost", 2) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda token: pytest.fail(token))
    assert {"group", "law", "total_batch", "total_batch_reason", "threshold", "sampling_passed",
            "sentences", "notes", "tables"} == set(found)
    splits = pd.DataFrame(found["tables"]["splits"])
    np.testing.assert_allclose(splits.groupby("threshold")["p_best"].sum(), 1.0)
    sizes = pd.DataFrame(found["tables"]["group_size"])
    assert set(sizes["quantity"]) == {"best_n_rollouts", "best_n_rollouts_at_cost"}


def test_left_out_runs_are_not_seen(saved, tmp_path, capsys):
    with quick_sampling():
        assert run(saved, "--batch", 2048, "--check", "-o", tmp_path) == 0
    assert not pd.read_csv(tmp_path / "iso_batch.csv")["runs_seen"].any()
    assert "predicted by a fit that left them out" in printed(capsys)


def test_failed_sampling_answers_with_status_3(fit, tmp_path, capsys):
    path = changed(fit, verdict=verdict_of(failed=True)).save(tmp_path / "fit.nc")
    assert run(path, "-o", tmp_path / "out") == 3
    page = check_command_page(tmp_path / "out", capsys.readouterr().out)
    assert "Sampling checks not passed" in page.words
    assert "splits.csv" in listing(tmp_path / "out")


def test_the_total_law_answers_in_part(one_axis, tmp_path, capsys):
    saved = one_axis.save(tmp_path / "fit.nc")
    assert run(saved, "--target-updates", 300, "-o", tmp_path / "out") == 0
    assert listing(tmp_path / "out") >= {"front.csv", "front.svg", "targets.csv", *PAGE}
    assert "splits.csv" not in listing(tmp_path / "out")
    assert "No splits: the law total depends on the total batch alone" in printed(capsys)
    assert run(saved, "--prompt-cost", 1, "--rollout-cost", 1, "-o", tmp_path / "no") == 1
    assert "the law total has no group size to choose" in capsys.readouterr().err


def test_times_are_written_with_the_clock_only(timed, tmp_path, capsys):
    saved = timed.save(tmp_path / "fit.nc")
    out = tmp_path / "out"
    assert run(saved, "-o", out, "--gpus", "8,16", "--price", 2, "--gpu-hours", 5, "--deadline", 4,
               "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert listing(out) >= CLOCK
    assert {"clock_map", "time_cost", "step_time"} <= {name.split(".")[0] for name in listing(out)}
    assert set(pd.read_csv(out / "times.csv")["range"]) == {"tried", "inside", "extrapolated"}
    budget = pd.read_csv(out / "budget.csv")
    assert list(budget.columns) == COLUMNS["budget"]
    assert set(budget["budget_unit"]) == {"GPU-hours", "hours"}
    assert any(sentence.startswith("With 5 GPU-hours ") for sentence in found["sentences"])
    assert len(found["tables"]["clock_choices"]) == 4
    assert any("A trainer step takes" in sentence for sentence in found["sentences"])
    assert any("16 GPUs are bounds" in note for note in found["notes"])
    assert run(saved, "-o", out, "--quiet") == 0
    assert not CLOCK & listing(out)
    assert run(saved, "-o", out, "--deadline", 0) == 1
    assert "--deadline is 0" in capsys.readouterr().err


def test_logs_without_step_times_refuse_the_clock(saved, tmp_path, capsys):
    assert run(saved, "-o", tmp_path / "out", "--clock") == 1
    out, err = capsys.readouterr()
    assert err.startswith("cbsbayes.allocate: no run has a step time, so wall clock and cost are")
    assert out == ""
    assert not (tmp_path / "out" / "splits.csv").exists()


@pytest.mark.parametrize(("options", "message"), [
    (["--batch", 127], "--batch 127 cannot be split in two ways"),
    (["--threshold", 0.123], "threshold 0.123 was not fitted; fitted: "),
    (["--prompt-cost", 1], "--prompt-cost and --rollout-cost go together"),
    (["--prompt-cost", 1, "--rollout-cost", -1], "--rollout-cost is -1; valid: above 0"),
    (["--prompt-cost", "nan", "--rollout-cost", 1], "--prompt-cost is nan; valid: above 0"),
    (["--probability", 1.5], "--probability is 1.5; valid: from 0.5 to below 1"),
    (["--target-updates", -5], "--target-updates is -5; valid: above 0"),
    (["--batch", 100, "--check"], "no two splits of 100 samples were run"),
    (["--schedule", -1], "--schedule is -1; valid: 0 and more"),
    (["--gpus", "0"], "--gpus is 0"),
    (["--price", "2"], "--price needs the number of GPUs"),
])
def test_bad_input_is_one_line_and_status_1(saved, tmp_path, capsys, options, message):
    assert run(saved, "-o", tmp_path / "out", *options) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"cbsbayes.allocate: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_sources_and_folders_that_will_not_do(saved, fit, sweep_file, tmp_path, capsys):
    for name in ("01_small", "02_large"):
        (tmp_path / name).mkdir()
        fit.save(tmp_path / name / "fit.nc")
    for arguments, message in [
            ([sweep_file], "is not a fit; give the folder"),
            ([tmp_path / "none"], "does not exist"),
            ([tmp_path], f"{tmp_path / '02_large'}"),
            ([saved, "-o", saved.parent], "it holds what cbsbayes did not write (fit.nc)")]:
        assert run(*arguments) == 1
        assert message in capsys.readouterr().err
    assert listing(saved.parent) == {"fit.nc"}
