"""``python -m cbsbayes.allocate``: what it writes, prints and answers, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fitted import SETTINGS, quick_sampling, verdict_of
from page_reader import check_command_page

from cbsbayes.allocate import main
from cbsbayes.decisions.batches import middle_threshold
from cbsbayes.decisions.front import FRONT_COLUMNS
from cbsbayes.decisions.iso_batch import CHECK_COLUMNS
from cbsbayes.decisions.splits import SPLIT_COLUMNS
from cbsbayes.decisions.targets import TARGET_COLUMNS
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.simulation.sweep import simulate_sweep

FIGURES = ["front.pdf", "front.svg", "split_choice.pdf", "split_choice.svg"]
PAGE = ["index.html", "paper.tex", "paper.txt", "tables"]


@pytest.fixture(scope="module")
def saved(fit, tmp_path_factory):
    return fit.save(tmp_path_factory.mktemp("fitted") / "fit.nc")


@pytest.fixture(scope="module")
def level(fit):
    return f"{fit.thresholds[2]:g}"


def run(*arguments):
    return main([str(argument) for argument in arguments])


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written(saved, level, tmp_path, capsys):
    assert run(saved, "--batch", 2048, "--threshold", level, "--target-updates", 300,
               "-o", tmp_path / "out") == 0
    assert listing(tmp_path / "out") == sorted(
        [*FIGURES, *PAGE, "front.csv", "group_size.csv", "iso_batch.csv", "splits.csv",
         "targets.csv"])
    columns = {"splits": SPLIT_COLUMNS, "front": FRONT_COLUMNS, "targets": TARGET_COLUMNS,
               "iso_batch": CHECK_COLUMNS}
    for name, expected in columns.items():
        table = pd.read_csv(tmp_path / "out" / f"{name}.csv")
        assert list(table.columns) == expected
        assert set(table["threshold"]) == {float(level)}
    out, err = capsys.readouterr()
    assert err == ""
    assert "At 2,048 samples an update, " in " ".join(out.split())
    assert "P(best)" in out
    page = check_command_page(tmp_path / "out", out)
    assert "At 2,048 samples an update, " in page.words
    assert "target_updates" in page.words


def test_tables_of_an_earlier_answer_do_not_stay(saved, tmp_path):
    run(saved, "--batch", 2048, "--target-samples", 10**6, "-o", tmp_path, "--quiet")
    assert "targets.csv" in listing(tmp_path)
    assert run(saved, "--batch", 8192 * 3, "-o", tmp_path, "--quiet") == 0
    assert not {"targets.csv", "iso_batch.csv"} & set(listing(tmp_path))


def test_json_is_the_tables(saved, level, tmp_path, capsys):
    assert run(saved, "--threshold", level, "--json", "-o", tmp_path,
               "--prompt-cost", 1, "--rollout-cost", 2) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=lambda token: pytest.fail(token))
    assert {"group", "law", "total_batch", "total_batch_reason", "threshold", "sampling_passed",
            "sentences", "notes", "tables"} == set(told)
    splits = pd.DataFrame(told["tables"]["splits"])
    assert splits["p_best"].sum() == pytest.approx(1.0)
    sizes = pd.DataFrame(told["tables"]["group_size"])
    assert set(sizes["quantity"]) == {"best_n_rollouts", "best_n_rollouts_at_cost"}


def test_quiet_prints_nothing(saved, tmp_path, capsys):
    assert run(saved, "--quiet", "-o", tmp_path) == 0
    assert capsys.readouterr() == ("", "")


def test_without_a_threshold_all_are_in_the_tables(saved, fit, tmp_path):
    run(saved, "--quiet", "-o", tmp_path)
    others = [f"splits_at_{t:g}.csv" for t in fit.thresholds if t != middle_threshold(fit)]
    assert set(others) < set(listing(tmp_path / "tables"))
    table = pd.read_csv(tmp_path / "splits.csv")
    np.testing.assert_allclose(np.unique(table["threshold"]), np.sort(fit.thresholds))


def test_left_out_runs_are_not_seen(saved, tmp_path, capsys):
    with quick_sampling():
        assert run(saved, "--batch", 2048, "--check", "-o", tmp_path) == 0
    assert not pd.read_csv(tmp_path / "iso_batch.csv")["runs_seen"].any()
    assert "predicted by a fit that left them out" in " ".join(capsys.readouterr().out.split())


def test_failed_sampling_answers_with_status_3(fit, tmp_path, capsys):
    tree = fit.tree.copy()
    tree.attrs = {**tree.attrs, "verdict": json.dumps(verdict_of(failed=True))}
    path = Fit(tree).save(tmp_path / "fit.nc")
    assert run(path, "-o", tmp_path / "out") == 3
    page = check_command_page(tmp_path / "out", capsys.readouterr().out)
    assert "Sampling checks not passed" in page.words
    assert "provisional" in page.words
    assert "splits.csv" in listing(tmp_path / "out")


def test_the_total_law_answers_in_part(prompts_sweep, tmp_path, capsys):
    with quick_sampling():
        fit = fit_sweep(prompts_sweep, sampler=SETTINGS, alternatives=False)
    path = fit.save(tmp_path / "fit.nc")
    assert run(path, "--target-updates", 300, "-o", tmp_path / "out") == 0
    assert listing(tmp_path / "out") == [
        "front.csv", "front.pdf", "front.svg", *PAGE, "targets.csv"]
    assert "No splits: the law total depends on the total batch alone" in " ".join(
        capsys.readouterr().out.split())


def test_unsettled_scales_answer_in_part(tmp_path, capsys):
    with quick_sampling():
        path = fit_sweep(simulate_sweep("p2b", 1), sampler=SETTINGS,
                         alternatives=False).save(tmp_path / "fit.nc")
    assert run(path, "-o", tmp_path / "out") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "these runs do not settle B_rollout/B_prompt" in out
    assert "The cheapest group size at a fixed number of samples is not settled" in out
    assert "fewest updates" not in out
    assert "split_choice.svg" not in listing(tmp_path / "out")


class TestBadInput:
    @pytest.mark.parametrize(("options", "said"), [
        (["--batch", 127], "--batch 127 cannot be split in two ways"),
        (["--threshold", 0.123], "threshold 0.123 was not fitted; fitted: "),
        (["--prompt-cost", 1], "--prompt-cost was given without --rollout-cost"),
        (["--prompt-cost", 1, "--rollout-cost", -1], "--rollout-cost is -1; valid: positive"),
        (["--probability", 1.5], "--probability is 1.5; valid: from 0.5 to below 1"),
        (["--target-updates", -5], "--target-updates is -5; valid: positive"),
        (["--batch", 100, "--check"], "no two splits of 100 samples were run"),
    ])
    def test_one_line_and_status_1(self, saved, tmp_path, capsys, options, said):
        assert run(saved, "-o", tmp_path / "out", *options) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"cbsbayes.allocate: {said}")
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("options", [
        ["--batch", "8.5"], ["--batch", "0"], ["--target-updates", "1", "--target-samples", "1"]])
    def test_usage_is_status_2(self, saved, options, capsys):
        with pytest.raises(SystemExit) as stopped:
            run(saved, *options)
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith("usage: python -m cbsbayes.allocate ")

    def test_what_is_no_fit(self, sweep_file, tmp_path, capsys):
        assert run(sweep_file) == 1
        assert "is not a fit; give the folder" in capsys.readouterr().err
        assert run(tmp_path / "none") == 1
        assert "does not exist" in capsys.readouterr().err

    def test_several_groups_are_named(self, fit, tmp_path, capsys):
        for name in ("01_small", "02_large"):
            (tmp_path / name).mkdir()
            fit.save(tmp_path / name / "fit.nc")
        assert run(tmp_path) == 1
        err = capsys.readouterr().err
        assert "holds the fits of 2 groups, which are never pooled" in err
        assert str(tmp_path / "02_large") in err

    def test_costs_without_a_group_size(self, prompts_sweep, tmp_path, capsys):
        with quick_sampling():
            path = fit_sweep(prompts_sweep, sampler=SETTINGS,
                             alternatives=False).save(tmp_path / "fit.nc")
        assert run(path, "--prompt-cost", 1, "--rollout-cost", 1) == 1
        assert "the law total has no group size to choose" in capsys.readouterr().err
        assert run(path, "--batch", 2048) == 1
        assert "total batch alone" in capsys.readouterr().err

    def test_the_folder_of_a_fit_keeps_its_page(self, saved, capsys):
        assert run(saved, "-o", saved.parent) == 1
        assert "it holds a fit, whose page this one would replace" in capsys.readouterr().err
        assert listing(saved.parent) == ["fit.nc"]

    def test_a_file_in_the_way(self, saved, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        assert run(saved, "-o", tmp_path / "file" / "out") == 1
        assert "is a file; give a folder" in capsys.readouterr().err
