"""Reuse compared without a law: model against simulation, tables by hand, refusals, the command."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from page_reader import check_command_page
from reuse_sweep import FACTORS, PROMPTS, SLOWDOWN, reuse_sweep, true_steps

from cbsbayes.errors import CBSDataError
from cbsbayes.models.reuse import ReuseData, design_matrix, sample_reuse
from cbsbayes.plots.reuse import plot_reuse
from cbsbayes.plots.style import detached
from cbsbayes.report.reuse import reuse_sentences, reuse_table
from cbsbayes.reuse import main
from cbsbayes.reuse_runs import reuse_families, reuse_runs
from cbsbayes.reuse_table import (
    CELL_COLUMNS,
    DIAGONAL_COLUMNS,
    EFFECT_COLUMNS,
    cell_table,
    diagonal_table,
    effect_table,
)
from cbsbayes.sweep.files import write_sweep
from cbsbayes.sweep.merge import merge
from cbsbayes.sweep.off_policy import off_policy_means


def simulated(replicates, *, seeds, sigma, tau, rng, every=25.0, cut=500.0):
    """Return data whose thresholds are independent replicates, and log S of every cell."""
    batch, reuse = (np.tile(axis.ravel(), seeds)
                    for axis in np.meshgrid(range(4), range(3), indexing="ij"))
    base = np.log(60 * (1 + 150 / np.array([32, 64, 128, 256])))
    effect = np.array([0.0, 0.2, 0.6]) * rng.uniform(0.5, 1.5, (replicates, 1, 1))
    own = rng.normal(0, tau, (replicates, 4, 3))
    own[:, :, 0] = 0.0
    truth = base[:, None] + effect + own
    steps = np.exp(truth[:, batch, reuse] + rng.normal(0, sigma, (replicates, len(batch))))
    lower = np.where(steps > cut, cut, np.floor(steps / every) * every)
    upper = np.where(steps > cut, np.inf, lower + every)
    with np.errstate(divide="ignore"):
        return ReuseData(np.log(lower), np.log(upper), batch, reuse), truth


@pytest.mark.parametrize("tau", [0.0, 0.2])
def test_intervals_hold_the_truth_as_often_as_they_say(tau):
    """Thirty sweeps at once, each at its own threshold of one stack."""
    rng = np.random.default_rng(3)
    data, truth = simulated(30, seeds=2, sigma=0.1, tau=tau, rng=rng)
    draws = sample_reuse(data, draws=400, tune=200, chains=2, random_seed=1)
    held, ratios = [], []
    for b, k in data.cells:
        low, high = np.quantile(draws.log_steps(b, k), [0.05, 0.95], axis=(0, 1))
        held.append((low < truth[:, b, k]) & (truth[:, b, k] < high))
        if k:
            ratio = draws.log_steps(b, k) - draws.log_steps(b, 0)
            low, high = np.quantile(ratio, [0.05, 0.95], axis=(0, 1))
            true = truth[:, b, k] - truth[:, b, 0]
            ratios.append((low < true) & (true < high))
    assert 0.84 < np.mean(held) <= 0.98  # cells of a sweep are not independent: some 120 of 360
    assert 0.84 < np.mean(ratios) <= 0.99


def test_exact_crossings_give_the_normal_answer():
    """Nothing censored and no interaction to speak of: the mean of a cell's runs, and its error."""
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 0.1, 40) + np.repeat([3.0, 4.0], 20)
    data = ReuseData(steps[None] - 1e-4, steps[None] + 1e-4, np.zeros(40, int),
                     np.repeat([0, 1], 20))
    draws = sample_reuse(data, draws=800, tune=300, chains=2)
    ratio = draws.log_steps(0, 1) - draws.log_steps(0, 0)
    expected = steps[20:].mean() - steps[:20].mean()
    assert ratio.mean() == pytest.approx(expected, abs=0.01)
    spread = np.sqrt((steps[:20].var(ddof=1) + steps[20:].var(ddof=1)) / 20)
    assert ratio.std() == pytest.approx(spread, rel=0.25)
    assert draws.sigma.mean() == pytest.approx(0.1, rel=0.2)


def test_a_run_cut_short_moves_its_cell_up_and_no_further_than_the_prior():
    open_end = ReuseData(np.log([[100.0, 200.0, 400.0]]), np.log([[110.0, 220.0, np.inf]]),
                         np.array([0, 1, 1]), np.array([0, 0, 1]))
    draws = sample_reuse(open_end, draws=500, tune=300, chains=2)
    assert np.quantile(draws.log_steps(1, 1), 0.05) > np.log(330)
    assert np.isfinite(draws.log_steps(1, 1)).all()


def test_the_design_is_batch_plus_reuse_plus_what_is_left():
    data = ReuseData(np.zeros((1, 3)), np.ones((1, 3)), np.array([0, 0, 1]), np.array([0, 1, 0]))
    x = design_matrix(data, data.batch, data.reuse)
    np.testing.assert_array_equal(x, [[1, 0, 0, 0], [1, 0, 1, 1], [0, 1, 0, 0]])


@pytest.fixture(scope="module")
def compared():
    runs = reuse_runs(reuse_sweep(), "m · d · grpo · lr 1e-06", thresholds=[0.5, 0.6])
    return runs, sample_reuse(runs.data, draws=500, tune=300, chains=2)


def test_tables_hold_the_truth_and_count_samples(compared):
    runs, draws = compared
    cells = cell_table(runs, draws, 0.9)
    assert list(cells.columns) == CELL_COLUMNS
    assert len(cells) == 2 * len(PROMPTS) * len(FACTORS)
    known = cells[cells["status"] == "identified"]
    np.testing.assert_allclose(known["samples"], known["steps"] * known["n_prompts"]
                               * known["n_rollouts"] / known["ppo_epochs"])
    truth = np.array([true_steps(r.n_prompts, r.ppo_epochs, r.threshold)
                      for r in known.itertuples()])
    inside = (known["steps_lower"] < truth) & (truth < known["steps_upper"])
    assert inside.mean() > 0.75
    assert (known["new_run_upper"] - known["new_run_lower"]
            > known["steps_upper"] - known["steps_lower"]).all()
    assert cells.loc[cells["ppo_epochs"] == 1, "steps_ratio"].isna().all()
    assert cells["clip_fraction"].max() == pytest.approx(0.07)
    for k in (2, 4, 8):
        effect = effect_table(runs, draws, 0.9).query(f"ppo_epochs == {k} and threshold == 0.6")
        row = effect.iloc[0]
        assert list(effect.columns) == EFFECT_COLUMNS
        assert row["steps_ratio_lower"] < SLOWDOWN[k] < row["steps_ratio_upper"]
        assert row["samples_ratio"] == pytest.approx(row["steps_ratio"] / k)


def test_diagonals_join_cells_of_equal_passes(compared):
    runs, draws = compared
    table = diagonal_table(runs, draws, 0.9)
    assert list(table.columns) == DIAGONAL_COLUMNS
    product = table["n_prompts"] * table["n_rollouts"] * table["ppo_epochs"]
    assert (product == table["passes_per_step"]).all()
    whole = table.dropna(subset="p_fewest_samples").groupby(["threshold", "passes_per_step"])
    np.testing.assert_allclose(whole["p_fewest_samples"].sum(), 1.0)
    np.testing.assert_allclose(whole["p_fewest_passes"].sum(), 1.0)
    known = table[table["status"] == "identified"]
    np.testing.assert_allclose(known["passes"], known["samples"] * known["ppo_epochs"])


def test_a_cell_that_never_arrived_is_a_bound_and_names_no_best():
    ds = reuse_sweep(last=160, prompts=(32, 64), seed=2)
    runs = reuse_runs(ds, reuse_families(ds)[0], thresholds=[0.6])
    draws = sample_reuse(runs.data, draws=200, tune=100, chains=2)
    cells = cell_table(runs, draws, 0.9)
    late = cells[cells["status"] == "lower_bound"]
    assert len(late)
    assert (late["n_reached"] == 0).all()
    assert late[["steps", "steps_upper", "samples_upper", "p_fewer_samples"]].isna().all(axis=None)
    assert late["steps_lower"].notna().all()
    table = diagonal_table(runs, draws, 0.9)
    assert table["p_fewest_samples"].isna().any()
    told = reuse_sentences(effect_table(runs, draws, 0.9), table, 0.6)
    assert any("none is named the best" in line for line in told)


def test_the_table_shows_what_was_logged(compared):
    runs, draws = compared
    cells = cell_table(runs, draws, 0.9)
    labels = [column.label for column in reuse_table(cells, 0.6).columns]
    assert "clip fraction" in labels
    assert "KL loss" not in labels
    assert len(reuse_table(cells, 0.6).rows) == len(PROMPTS) * len(FACTORS)


def test_the_figure_shows_every_cell_and_says_simulated(compared):
    cells = cell_table(*compared, 0.9)
    with detached():
        figure = plot_reuse(cells, 0.6, simulated=True)
    left, right = figure.axes
    points = [line for line in left.lines if line.get_gid() == "estimate"]
    assert len(points) == (cells.query("threshold == 0.6")["status"] == "identified").sum()
    assert any(line.get_gid() == "diagonal" for line in right.lines)
    assert "simulated" in left.get_title(loc="left")


def test_a_sweep_without_reuse_is_refused():
    with pytest.raises(CBSDataError, match=r"ppo_epochs in the sweep: 1\) .*p3\.toml"):
        reuse_families(reuse_sweep(factors=(1,)))


def test_runs_that_differ_in_more_than_reuse_are_not_compared():
    ds = reuse_sweep(factors=(1, 2))
    ds["learning_rate"] = ("run", np.where(ds["ppo_epochs"].values == 2, 2e-6, 1e-6))
    with pytest.raises(CBSDataError, match="differ in nothing else"):
        reuse_families(ds)


def test_thresholds_that_nothing_reaches_are_refused():
    ds = reuse_sweep(factors=(1, 2), prompts=(32, 64))
    with pytest.raises(CBSDataError, match="at two reuse factors"):
        reuse_runs(ds, reuse_families(ds)[0], thresholds=[0.1])  # all are past it at the start


def test_off_policy_means_are_kept_only_where_updates_are_off_policy():
    history = pd.DataFrame({"actor/pg_clipfrac": [0.1, np.nan, 0.3], "actor/ppo_kl": [np.nan] * 3})
    assert off_policy_means([history], [1]) == {}
    assert off_policy_means([history, history[[]]], [2, 2]) == {
        "clip_fraction": [pytest.approx(0.2), pytest.approx(np.nan, nan_ok=True)]}


def test_the_command_writes_its_files(tmp_path, capsys):
    path = write_sweep(reuse_sweep(factors=(1, 2, 4), prompts=(32, 64)), tmp_path / "sweep.nc")
    out = tmp_path / "out"
    fast = ["--thresholds", "0.5", "--draws", "1500", "--tune", "300"]
    assert main([str(path), "-o", str(out), *fast]) in (0, 3)
    assert sorted(p.name for p in out.iterdir()) == [
        "diagonals.csv", "effects.csv", "index.html", "paper.tex", "paper.txt", "reuse.csv",
        "reuse.txt", "reuse_01_nr8.pdf", "reuse_01_nr8.png", "tables"]
    text = (out / "reuse.txt").read_text()
    assert "simulated runs" in text
    assert "no law is claimed" in text
    assert "\\x" not in text
    assert "Reuse 4 against 1, target 0.5" in text
    printed = capsys.readouterr().out
    assert "No law is assumed" in printed.replace("\n", " ").replace("  ", " ")
    page = check_command_page(out, printed)
    assert "is simulated, not measured" in page.words
    assert "Reuse 4 against 1, target 0.5" in page.words
    assert main([str(path), "-o", str(out), *fast, "--json"]) in (0, 3)
    (found,) = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert {"family", "sentences", "reuse", "effects", "diagonals"} == set(found)


def test_a_family_that_cannot_be_compared_does_not_hide_the_other(tmp_path, capsys):
    """And without runs at reuse 1 the least reuse there is becomes the reference."""
    good = reuse_sweep(factors=(2, 4), prompts=(32, 64))
    past = reuse_sweep(factors=(2, 4), prompts=(32, 64), model="other")
    past["accuracy"] = past["accuracy"].where(past["accuracy"].isnull(), 0.95)
    path = write_sweep(merge([good, past]), tmp_path / "sweep.nc")
    done = main([str(path), "-o", str(tmp_path / "out"), "--thresholds", "0.6", "--draws", "1500",
                 "--tune", "300"])
    assert done in (0, 3)
    out = capsys.readouterr().out
    assert "Reuse 4 against 2, target 0.6" in out
    assert "Not compared: other · d · grpo" in out
    assert "Not compared: other · d · grpo" in check_command_page(tmp_path / "out", out).words
    table = pd.read_csv(tmp_path / "out" / "reuse.csv")
    assert set(table["family"]) == {"m · d · grpo · lr 1e-06"}


@pytest.mark.parametrize(("arguments", "words"), [
    (["--ci-prob", "2"], "valid: from 0.5 to below 1"), (["--draws", "3"], "valid: 100 and more")])
def test_faults_are_one_line(tmp_path, capsys, arguments, words):
    assert main([str(tmp_path / "none.nc"), "-o", str(tmp_path), *arguments]) == 1
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
