"""The joint fit: one batch suffices, an offset comes back, both fits stand side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fitted import few_figures, quick_sampling, run
from noise_tables import noise_section

from cbsbayes.baselines.table import with_comparison
from cbsbayes.errors import CBSDataError
from cbsbayes.fit import main
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.models.laws import choose_law
from cbsbayes.noise.beside_fit import NOISE_COLUMNS
from cbsbayes.noise.joint import JOINT_COLUMNS, fit_jointly, joint_table
from cbsbayes.noise.logged import probes_at_accuracy
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.selection import with_parts
from cbsbayes.posterior.surface import Surface
from cbsbayes.report.folder import write_fit
from cbsbayes.simulation.noise import with_gradient_noise, with_gradient_norms
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.simulation.truth import true_steps
from cbsbayes.sweep.files import write_sweep

THRESHOLDS = (0.60, 0.65, 0.70)
SETTINGS = SamplerSettings(chains=2, draws=500, tune=500, cores=1, random_seed=2)
OFFSET = 0.6


@pytest.fixture(scope="module")
def noisy():
    """Both axes, exponent 1, noise logged larger than it acts by a known factor."""
    ds = simulate_sweep("p1+p2b", 2, alpha=1.0, eval_every=10, random_seed=11)
    return with_gradient_noise(ds, every=10, offset=OFFSET, dimensions=64.0, random_seed=11)


@pytest.fixture(scope="module")
def one_batch(noisy):
    return noisy.isel(run=np.flatnonzero((noisy["n_prompts"].values == 64)
                                         & (noisy["n_rollouts"].values == 8)))


@pytest.fixture(scope="module")
def joint(noisy):
    return with_comparison(fit_jointly(noisy, law="two_axis", thresholds=THRESHOLDS,
                                       sampler=SETTINGS, alternatives=False))


@pytest.fixture(scope="module")
def anchored(one_batch):
    return with_comparison(fit_jointly(one_batch, law="two_axis", thresholds=THRESHOLDS,
                                       sampler=SETTINGS))


def row(table, quantity):
    return table[table["quantity"] == quantity].iloc[0]


@pytest.mark.mcmc
def test_norms_are_taken_where_no_probe_was_logged():
    """Their offset comes back, and N is told better than without them."""
    ds = with_gradient_norms(simulate_sweep("p1", 2, eval_every=10, random_seed=11),
                             offset=OFFSET, random_seed=11)
    fit = fit_jointly(ds, law="two_axis", thresholds=THRESHOLDS, sampler=SETTINGS,
                      alternatives=False)
    found = row(fit.noise_joint, "noise_offset")
    assert found["with_lower"] < OFFSET < found["with_upper"]
    assert found["with_upper"] - found["with_lower"] < 1.2  # the prior's: 3.3
    with pytest.raises(CBSDataError, match=r"no run has grad_noise/ metrics.*no run logged "
                       r"gradient norms.*leave --use-gradient-noise out"):
        fit_jointly(ds.drop_vars("grad_norm_sq"))


@pytest.mark.mcmc
class TestBoth:
    def test_the_offset_comes_back(self, joint):
        found = row(joint.noise_joint, "noise_offset")
        assert found["with_lower"] < OFFSET < found["with_upper"]
        assert found["with_upper"] - found["with_lower"] < 1.0  # the prior's: 3.3

    def test_the_main_tables_are_the_joint_fits(self, joint):
        table = joint.noise_joint
        assert list(table.columns) == JOINT_COLUMNS
        both = table.merge(joint.cbs, on=["threshold", "quantity", "at"])
        assert len(both) == len(joint.cbs)
        pd.testing.assert_series_equal(both["with_median"], both["median"], check_names=False)

    def test_batches_beyond_those_tried_are_marked(self, joint, noisy):
        table = joint.noise_joint
        steps = table[table["quantity"].isin(["steps", "steps_new_run"])]
        largest = noisy["n_prompts"].values.max()
        for at, tried in zip(steps["at"], steps["tried"], strict=True):
            prompts = float(at.split(",")[0].partition("=")[2])
            assert tried == 1 or prompts > largest or "n_rollouts=8" not in at
        assert not table.duplicated(["threshold", "quantity", "at"]).any()

    def test_a_new_run_scatters_more_than_a_typical_one(self, joint):
        table = joint.noise_joint.set_index(["quantity", "threshold", "at"])
        for (_, t, at), new in table.loc[["steps_new_run"]].iterrows():
            typical = table.loc[("steps", t, at)]
            assert new["with_upper"] > typical["with_upper"]
            assert new["with_lower"] < typical["with_lower"]

    def test_the_page_shows_both(self, joint):
        section = noise_section(joint)
        assert section.tables["joint"].rows
        assert any("exp(δ)" in sentence for sentence in section.sentences)

    def test_saving_keeps_the_tables_and_a_fit_without_removes_them(self, joint, fit, tmp_path):
        files = {"noise_joint.csv": JOINT_COLUMNS, "noise.csv": NOISE_COLUMNS}
        with few_figures(1):
            write_fit(joint, tmp_path)
            held = {name: list(pd.read_csv(tmp_path / name).columns) for name in files}
            again = Fit.load(tmp_path)
            write_fit(fit, tmp_path)
        assert held == files
        pd.testing.assert_frame_equal(again.noise_joint, joint.noise_joint)
        assert not any((tmp_path / name).exists() for name in files)


@pytest.mark.mcmc
class TestOneBatch:
    def test_other_batches_are_predicted_with_honest_intervals(self, anchored, noisy):
        cells = [(16, 8), (256, 8), (64, 2), (64, 32)]
        surface = Surface(anchored.law, anchored.posterior)
        for p, g in cells:
            low, high = np.quantile(surface.log_steps(p, g).sel(threshold=0.65), [0.02, 0.98])
            assert low < np.log(true_steps(noisy, p, g, 0.65)) < high
            assert high - low < 2.0

    def test_without_the_measurement_there_is_no_fit_and_it_says_so(self, anchored, one_batch):
        with pytest.raises(CBSDataError, match="may be fitted, 1; a law"):
            fit_sweep(one_batch, sampler=SETTINGS)
        assert (anchored.noise_joint["verdict"] == "").all()
        assert any("cannot be fitted: the runs have too few batch" in s
                   for s in noise_section(anchored).sentences)
        assert any("rests on the measured noise" in s for s in anchored.verdict["sentences"])

    def test_alternative_laws_are_those_the_measurement_serves(self, anchored):
        assert set(anchored.others) == {"two_axis_sqrt", "two_axis_free"}

    def test_thresholds_are_chosen_from_one_batch(self, one_batch):
        with quick_sampling():
            found = fit_sweep(one_batch, sampler=SETTINGS, alternatives=False,
                              noise=probes_at_accuracy(one_batch, None))
        assert found.law.name == "two_axis_free"
        assert len(found.thresholds) >= 2
        assert found.settings["noise_priors"]["offset_sd"] == 1.0
        assert "cbs_prompts" in set(found.cbs["quantity"])

    def test_a_single_run_is_fitted_with_room_for_its_own_luck(self, one_batch):
        found = fit_sweep(one_batch.isel(run=[0]), sampler=SETTINGS, alternatives=False,
                          law="two_axis", thresholds=THRESHOLDS,
                          noise=probes_at_accuracy(one_batch, None))
        assert found.crossings.sizes["run"] == 1
        assert found.settings["priors"]["sigma_run"] == 0.12
        assert float(found.prior["sigma_run"].median()) == pytest.approx(0.12, rel=0.1)


class TestRefused:
    def test_the_trajectory_model(self, noisy):
        with pytest.raises(CBSDataError, match="use --model crossing"):
            fit_jointly(noisy, model="trajectory")

    def test_the_command_says_it_in_one_line(self, sweep_file, tmp_path, capsys):
        assert main([str(sweep_file), "-o", str(tmp_path), "--use-gradient-noise"]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert "no gradient noise was logged" in error


class TestLaw:
    def test_one_group_size_gives_two_axes_where_both_parts_were_measured(self, one_batch):
        table = probes_at_accuracy(one_batch, None)
        choice = choose_law(one_batch)
        assert choice.law.name == "total"
        assert with_parts(choice, one_batch, table).law.name == "two_axis_free"
        whole = table.assign(tr_between=np.nan)
        assert with_parts(choice, one_batch, whole).law.name == "total"


def test_the_command_writes_the_joint_table(one_batch, tmp_path):
    path = write_sweep(one_batch, tmp_path / "sweep.nc")
    status = run(path, "-o", tmp_path / "fit", "--use-gradient-noise", "--quiet")
    assert status in (0, 3)
    held = pd.read_csv(tmp_path / "fit" / "noise_joint.csv")
    assert list(held.columns) == JOINT_COLUMNS
    assert held["without_median"].isna().all()
    assert (tmp_path / "fit" / "noise.csv").exists()


def test_a_fit_beside_itself_agrees(fit):
    table = joint_table(fit, fit)
    judged = table[table["verdict"] != ""]
    assert len(judged)
    assert set(judged["verdict"]) == {"agree"}
