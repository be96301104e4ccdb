"""The coverage benchmark measures what it says: truths, intervals, counting."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cbsbayes.laws import get_law
from cbsbayes.simulate import simulate_sweep
from cbsbayes.truth import Truth


@pytest.fixture
def methods(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import interval_methods

    return interval_methods


@pytest.fixture
def coverage(methods):
    import interval_coverage

    return interval_coverage


@pytest.mark.parametrize("threshold", [0.60, 0.72])
def test_at_exponent_one_the_integral_is_the_law_of_the_averages(methods, threshold):
    true = methods.true_values(Truth(), threshold)
    by_law = methods.read_off(true["S_min"], true["B_prompt"], true["B_rollout"], 1.0)
    for name, value in by_law.items():
        assert value == pytest.approx(true[name], abs=1e-4), name


def test_the_true_cbs_doubles_the_least_steps_at_any_exponent(methods):
    from cbsbayes.truth import true_steps

    truth = Truth(alpha=0.5)
    true = methods.true_values(truth, 0.65)
    steps = true_steps(truth, np.exp(true["cbs_prompts(8)"]), 8, 0.65)
    assert steps == pytest.approx(2 * np.exp(true["S_min"]), rel=1e-3)


@pytest.mark.mcmc
def test_every_method_is_held_to_the_same_truth(methods):
    ds = simulate_sweep("all", 1, random_seed=5)
    found = methods.sweep_intervals(ds, get_law("two_axis"), 5)
    assert found.sampling["divergences"] == 0
    counts = found.intervals.groupby("method").size()
    assert counts.to_dict() == dict.fromkeys(
        ["posterior", "curve_fit", "log_fit_t", "log_fit_boot"], 6 * 8)
    assert (found.intervals.groupby(["quantity", "threshold"])["truth"].nunique() == 1).all()
    late = found.intervals.query("threshold == 0.65 and method != 'curve_fit'")
    assert ((late["estimate"] - late["truth"]).abs() < 1.5).all()
    known = late.dropna()
    assert ((known["lower"] <= known["estimate"]) & (known["estimate"] <= known["upper"])).all()


def test_counting(coverage):
    rows = pd.DataFrame({
        "method": "a", "quantity": "q", "threshold": [0.6, 0.7] * 2, "sweep": [0, 0, 1, 1],
        "truth": 0.0, "estimate": [0.1, 0.2, -0.3, np.inf], "lower": [-1, 0.1, -np.inf, np.nan],
        "upper": [1, 0.4, 0.5, np.nan]})
    table = coverage.summarise(rows).set_index("threshold")
    assert table.loc["all", ["n", "given", "log_bias"]].tolist() == [4, 0.75, pytest.approx(0.15)]
    assert table.loc["all", "coverage"] == pytest.approx(2 / 3)
    assert table.loc["all", "coverage_se"] == pytest.approx(np.std([0.5, 1], ddof=1) / np.sqrt(2))
    assert table.loc[0.6, "log_width"] == np.inf
    assert table.loc[0.7, ["n", "coverage"]].tolist() == [2, 0]
    assert "+0.15 / 0.67 ± 0.25" in coverage.markdown(coverage.summarise(rows))
