"""Known truths recovered, and the shipped sweep read as its README says."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes import read_logs
from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.inference.sampling import SamplerSettings, sample_crossings
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.surface import Surface, steps_ratio
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.simulation.truth import best_rate, mean_noise, truth_of
from cbsbayes.sweep.files import read_sweep
from cbsbayes.validation.models import Reading, fitted_runs, true_logs

pytestmark = pytest.mark.mcmc

THRESHOLDS = (0.60, 0.65, 0.70)
SEEDS = range(8)
QUICK = SamplerSettings(draws=500, tune=500, chains=2, cores=1)


def posterior_of(ds, law):
    data = crossing_data(find_crossings(fitted_runs(ds, law), THRESHOLDS), law)
    tree = sample_crossings(data, law, QUICK)
    assert int(tree["sample_stats"]["diverging"].sum()) <= 1
    return tree["posterior"].to_dataset()


def deviations(found):
    """Return (posterior mean - truth)/sd by quantity, over the thresholds."""
    return {name: (draws.mean(("chain", "draw")).values - true)
            / draws.std(("chain", "draw")).values for name, (draws, true) in found.items()}


def two_axis_deviations(seed):
    """Return what a sweep is read for, at batch (128, 8)."""
    law, ds = get_law("two_axis"), simulate_sweep("all", random_seed=seed)
    logs = Reading().logs(law, posterior_of(ds, law))
    true = [true_logs(truth_of(ds), t, Reading()) for t in THRESHOLDS]
    return deviations({name: (logs[name], [t[name] for t in true]) for name in (
        "S_min", "B_prompt", "B_rollout", "S(128,8)", "gain_prompts", "gain_rollouts")})


def test_two_axis_posteriors_hold_the_truth():
    """Coverage over many sweeps is what cbsbayes.validate measures; here nothing may be far off."""
    found = [two_axis_deviations(seed) for seed in SEEDS]
    for name in found[0]:
        z = np.array([one[name] for one in found])
        assert np.abs(z).max() < 4, name
        assert 0.4 < np.sqrt((z**2).mean()) < 1.6, name
        assert abs(z.mean(axis=0)).max() < 1.3, name  # 1.3: 3.7 standard errors of eight sweeps


def rate_deviations(seed):
    """Return (posterior mean - truth)/sd of a grid of learning rates, five batches at one G."""
    law = get_law("learning_rate_total")
    ds = simulate_sweep("lr", rates=(1e-7, 3e-7, 1e-6, 2e-6), max_updates=2000, random_seed=seed)
    post, truth = posterior_of(ds, law), truth_of(ds)
    surface = Surface(law, post)
    logs = {"alpha": (np.log(post["alpha"]), [0.0]), "gamma": (post["gamma"], [truth.gamma])}
    for p in (32, 512):
        best = [best_rate(truth, p, 8, t) for t in THRESHOLDS]
        logs[f"rate {p}"] = (np.log(surface.best_rate(8 * p, 1)), np.log([r for r, _ in best]))
        logs[f"S {p}"] = (surface.log_steps(8 * p, 1), np.log([s for _, s in best]))
    noise = [mean_noise(truth, t) for t in THRESHOLDS]
    logs["cbs"] = (np.log(surface.solve(steps_ratio(2.0), "total")),
                   np.log([8 * n["B_prompt"] + 8 / 7 * n["B_rollout"] for n in noise]))
    return deviations(logs)


def test_a_grid_of_learning_rates_gives_back_the_best_one_and_the_critical_batch():
    z = [rate_deviations(seed) for seed in range(4)]
    for name in z[0]:
        found = np.array([one[name] for one in z])
        assert np.abs(found).max() < 3.5, name
        assert np.sqrt((found**2).mean()) < 1.7, name


@pytest.mark.parametrize("phase", ["p1", "p2b"])
def test_one_phase_alone_gives_no_two_scales(phase):
    """The split of prompt and rollout noise is then the prior's; their sum may be known."""
    ds = simulate_sweep(phase, 3, random_seed=1)
    fit = fit_sweep(ds, law="two_axis", thresholds=[0.65, 0.70], sampler=QUICK, alternatives=False)
    scales = fit.cbs[fit.cbs["quantity"].isin(["B_prompt", "B_rollout"])]
    assert len(scales) == 4
    assert not (scales["status"] == "identified").any()
    assert scales[["median", "mean", "sd"]].isna().all(axis=None)
    gain = "gain_prompts" if phase == "p1" else "gain_rollouts"
    assert (fit.cbs.loc[fit.cbs["quantity"] == gain, "status"] == "identified").all()
    steps = fit.cbs[fit.cbs["quantity"] == "steps"]
    assert (steps["status"] == "identified").all()


# Learning rates that go with the batch ---------------------------------------------------


def test_rates_scaled_with_the_batch_give_the_critical_batch_of_one_rate(root):
    """Curves at lr ∝ √batch; their twin has the same curves at one learning rate."""
    scaled_rates = read_logs([str(root / "tests" / "data" / "sqrt_lr" / "sqrt_lr.csv")])
    asked = {"thresholds": [0.7, 0.75], "sampler": QUICK, "alternatives": False}
    twin = scaled_rates.assign_coords(learning_rate=("run", np.full(36, 1e-6)))
    one, scaled = (fit_sweep(ds, **asked).cbs.query(
        "quantity == 'cbs_prompts' and at == 'n_rollouts=8'")["median"].to_numpy()
        for ds in (twin, scaled_rates))
    np.testing.assert_allclose(scaled, one, rtol=0.02)
    tuned = fit_sweep(scaled_rates, law="learning_rate", **asked)
    low, high = tuned.solve(steps_ratio(2.0), "prompts", 8).quantile([0.05, 0.95], "sample").values
    assert (low < one).all()
    assert (one < high).all()


# The shipped sweep ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(root) -> Fit:
    return fit_sweep(read_sweep(root / "data" / "tiny_grpo" / "sweep.nc"),
                     sampler=SamplerSettings(cores=1))  # which draws nothing else


def test_default_settings_are_enough_for_the_shipped_sweep(shipped):
    numbers = shipped.verdict["diagnostics"]
    assert shipped.verdict["sampling"]["passed"], shipped.verdict["sentences"]
    assert numbers["divergences"] == 0
    assert numbers["r_hat_max"] <= 1.01
    assert numbers["ess_bulk_min"] >= 400
    assert shipped.law.name == "two_axis_free"
    assert shipped.crossings.sizes["run"] == 57


def test_two_axes_beat_the_total_batch_by_left_out_runs(shipped):
    table = shipped.law_table.set_index("law")
    assert set(table.index) >= {"two_axis", "two_axis_sqrt", "two_axis_free", "total"}
    assert table.loc["total", "elpd_diff"] < -3 * table.loc["total", "dse"]
    assert table.loc["total", "elpd"] < table.drop("total")["elpd"].min() - 10
    assert table.loc["total", "sigma_run"] > 1.3 * table.loc["two_axis_free", "sigma_run"]


def test_the_best_split_of_256_samples_lies_inside(shipped):
    """As its README says: 16, 32 and 64 prompts beat 4 and 8, and 128 is no better."""
    rollouts = np.array([2, 4, 8, 16, 32, 64])
    steps = np.exp(shipped.log_steps(256 / rollouts, rollouts, 0.9))
    best = rollouts[steps.argmin("batch").values]
    assert np.mean((best >= 2) & (best <= 8)) > 0.95
    assert np.mean(best == 64) == 0
    assert float((steps.isel(batch=5) / steps.min("batch")).median()) > 2
    found = shipped.cbs[(shipped.cbs["quantity"] == "best_n_rollouts")
                        & np.isclose(shipped.cbs["threshold"], 0.9)].iloc[0]
    assert found["status"] == "identified"
    assert 1 < found["ci_lower"] < found["ci_upper"] < 9


def test_the_exponent_decides_the_size_of_the_noise_scales(shipped):
    """Linear and square-root law fit alike and differ by several times, which the table says."""
    one, half = (shipped.others[name].set_index(["quantity", "threshold"])
                 .loc[("B_prompt", shipped.thresholds[-1]), "median"]
                 for name in ("two_axis", "two_axis_sqrt"))
    assert half / one > 3
    alpha = shipped.posterior["alpha"].values
    assert np.quantile(alpha, 0.05) < 0.75 < np.quantile(alpha, 0.95)
