"""The posterior on public measurements: published numbers, and cases that allow no plain number."""

from __future__ import annotations

import numpy as np
import pytest
from mlperf import grpo_sweep, pretraining_sweep, reference_sweep

from cbsbayes.baselines.table import with_comparison
from cbsbayes.crossings.intervals import LEFT, find_crossings
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.posterior.fit_sweep import fit_sweep

pytestmark = pytest.mark.mcmc

QUICK = SamplerSettings(draws=1000, tune=500, chains=2, cores=1)  # fewer would be sampled again


def quick_fit(ds, threshold=1.0, *, compared=False):
    fit = fit_sweep(ds, thresholds=[threshold], sampler=QUICK, alternatives=compared)
    assert fit.verdict["diagnostics"]["divergences"] <= 1
    return with_comparison(fit) if compared else fit


def row_of(table, quantity):
    found, = table[table["quantity"] == quantity].to_dict("records")
    return found


def log_draws(fit, name="B_noise"):
    return np.log(fit.posterior[name].values.reshape(-1))


@pytest.fixture(scope="module")
def reference(public_data):
    return public_data / "mlperf_rcp"


@pytest.mark.parametrize(("size", "published", "exact"), [
    ("85M", 2191, True), ("1.2B", 11131, True), ("1.2B", 11131, False)])
def test_published_pretraining_noise_scales_lie_inside(public_data, size, published, exact):
    """Zhang et al. 2024 took S as exact; read as known to the evaluation grid it changes little."""
    ds = pretraining_sweep(public_data / "zhang2024_cbs" / "chinchilla_steps_to_loss.json", size,
                           exact=exact)
    fit = quick_fit(ds, ds["threshold"].item())
    found = row_of(fit.cbs, "B_noise")
    assert (fit.law.name, found["status"], found["unit"]) == ("total", "identified", "samples")
    assert found["ci_lower"] < published < found["ci_upper"]
    assert found["ci_upper"] / found["ci_lower"] < 2
    assert found["median"] == pytest.approx(published, rel=0.05)


@pytest.fixture(scope="module")
def rnnt(reference):
    return quick_fit(reference_sweep(reference / "rnnt_3.1.0.json", grid=1.0))


def test_rnnt_reference_points(rnnt):
    """The log fit of all seeds gives 3,690 ± 3.3 % with epochs as exact; here as whole epochs."""
    found = row_of(rnnt.cbs, "B_noise")
    assert found["ci_lower"] < 3690 < found["ci_upper"]
    assert 0.02 < log_draws(rnnt).std() < 0.05
    assert rnnt.crossings.sizes["run"] == 120


def test_units_of_steps_and_batch_do_not_matter(reference, rnnt):
    """Epochs over batch, or updates of 281,241 utterances an epoch: the same posterior."""
    path = reference / "rnnt_3.1.0.json"
    other = quick_fit(reference_sweep(path, grid=1.0, samples=281_241.0))
    one, two = log_draws(rnnt), log_draws(other)
    assert two.mean() == pytest.approx(one.mean(), abs=0.25 * one.std())
    assert two.std() == pytest.approx(one.std(), rel=0.2)
    shift = log_draws(other, "S_min").mean() - log_draws(rnnt, "S_min").mean()
    assert shift == pytest.approx(np.log(281_241.0), abs=0.25 * log_draws(rnnt, "S_min").std())


def test_runs_that_pass_at_their_first_validation_tell_no_noise_scale(public_data):
    """S <= 18, <= 10, <= 7 updates is all that is known; the usual fit reports R² above .99."""
    ds = grpo_sweep(public_data / "qwen35_grpo_rcp_logs")
    crossings = find_crossings(ds, [0.69])
    assert (crossings["status"].values == LEFT).all()
    first = crossings["upper"].isel(threshold=0).to_series().groupby(
        ds["n_prompts"].values).unique()
    assert {p: s.tolist() for p, s in first.items()} == {16: [18], 32: [10], 64: [7]}
    with pytest.raises(CBSDataError, match="every run had passed it by its first evaluation"):
        quick_fit(ds, 0.69)
    # the reference points hold the same 18 runs: 4,608, 5,120 and 7,168 samples, as bounds
    ds = reference_sweep(public_data / "mlperf_rcp" / "qwen35_grpo_6.1.0.json", grid=7168.0)
    assert (find_crossings(ds, ds["threshold"].values)["status"].values == LEFT).all()
    with pytest.raises(CBSDataError, match="every run had passed it by its first evaluation"):
        quick_fit(ds)


def test_flat_steps_give_an_upper_bound_only(reference):
    """DeepSeek V3: 45 to 48 updates whatever the batch, evaluated after each."""
    ds = reference_sweep(reference / "deepseekv3_6.1.0.json")
    ds["steps_lower"] = ds["steps_upper"] - 1.0
    fit = quick_fit(ds)
    found = row_of(fit.cbs, "B_noise")
    assert found["status"] == "upper_bound"
    assert np.isnan([found["median"], found["ci_lower"]]).all()
    assert found["ci_upper"] < ds["total_batch"].values.min()
    assert row_of(fit.cbs, "S_min")["ci_upper"] < 48


def test_batches_far_below_the_noise_scale_lean_on_the_law(reference):
    """DLRM: every batch is below .3 B_noise; R² 1.0000 says nothing about what lies beyond."""
    fit = quick_fit(reference_sweep(reference / "dlrm_2.1.0.json", grid=0.05), compared=True)
    found, least = row_of(fit.cbs, "B_noise"), fit.comparison.set_index("method")
    assert least.loc["log_least_squares", "r2"] > 0.998
    assert fit.sweep["total_batch"].max() < 0.31 * least.loc["log_least_squares", "B_noise"]
    if found["status"] == "identified":
        assert found["ci_lower"] < 248_800 < found["ci_upper"]
    else:
        assert found["status"] == "lower_bound"
    assert abs(fit.law_table.set_index("law").loc["power", "elpd_diff"]) < 4
    other = row_of(fit.others["power"], "B_noise")
    assert other["status"] != "identified" or (
        other["ci_upper"] / other["ci_lower"] > 1.5 * found["ci_upper"] / found["ci_lower"])


def test_an_outlier_of_eleven_times_widens_and_does_not_mislead(reference):
    """GPT-3: one of 38 runs is published with 11 times its siblings' tokens.

    The usual fit moves by a factor of three; the posterior keeps its middle, widens, and says that
    one run carries too much weight.
    """
    path, grid = reference / "gpt3_4.1.0.json", 50_331_648.0
    whole, clean = (quick_fit(reference_sweep(path, grid=grid, samples=1 / 2048, below=below),
                              compared=True) for below in (np.inf, 5e9))
    usual = [fit.comparison.set_index("method").loc["least_squares", "B_noise"]
             for fit in (whole, clean)]
    assert usual[1] / usual[0] > 3
    middle, spread = ([part(log_draws(fit)) for fit in (whole, clean)] for part in (np.median,
                                                                                    np.std))
    assert abs(middle[0] - middle[1]) < 0.15
    assert spread[0] > 2 * spread[1]
    assert whole.law_table["n_bad_k"].max() >= 1
    assert any("Pareto k" in sentence for sentence in whole.verdict["sentences"])
    table = clean.law_table.set_index("law")
    assert table["elpd_diff"].idxmax() == "power"
    assert table.loc["total", "elpd_diff"] < -3 * table.loc["total", "dse"]
