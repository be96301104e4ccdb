"""Averaging over laws: weights by left-out runs, mixtures that hold the doubt about the law."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from cbsbayes.inference.loo import law_weights
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.averaging import AVERAGE, averaged_table
from cbsbayes.posterior.quantities import Design, quantities

TRIED = Design({8: (64, 128)}, {128: (4, 8)}, (512.0, 1024.0), one_axis=False,
                     cells=((64, 8), (128, 4), (128, 8)))


def result(elpd):
    return SimpleNamespace(elpd_i=np.asarray(elpd, dtype=float))


def draws(law, level, n=1000, chains=2, seed=0, wide=0.1):
    rng = np.random.default_rng(seed)
    names = [*law.scales, "S_min"]
    dims = ("chain", "draw", "threshold")
    return xr.Dataset({name: (dims, level * np.exp(wide * rng.standard_normal((chains, n, 1))))
                       for name in names}, coords={"threshold": [0.7]})


def of(name, level, before=None, **kwargs):
    """Return a law and its quantities from draws around a level, and from wider prior ones."""
    law = get_law(name)
    prior = draws(law, before or level, seed=1, wide=3.0, **kwargs)
    return law, quantities(law, draws(law, level, **kwargs), TRIED), quantities(law, prior, TRIED)


def test_laws_that_predict_alike_share_the_weight():
    rng = np.random.default_rng(0)
    one = rng.normal(-1, 1, 40)
    weights = law_weights({"a": result(one), "b": result(one), "c": result(one - 1)})
    assert weights["a"] == pytest.approx(0.5, abs=1e-9)
    assert weights["a"] == weights["b"]
    assert weights["c"] < 1e-6
    assert sum(weights.values()) == pytest.approx(1)


def test_a_lead_that_hangs_on_one_run_takes_less_weight_than_the_sum_says():
    gain = np.zeros(20)
    gain[3] = 3.0
    weight = law_weights({"a": result(gain), "b": result(np.zeros(20))})["a"]
    assert 0.5 < weight < 1 / (1 + np.exp(-3.0))


def test_a_law_of_unknown_score_has_no_weight():
    weights = law_weights({"a": result([np.nan, -1.0]), "b": result([-2.0, -2.0])})
    assert weights == {"a": 0.0, "b": 1.0}
    assert law_weights({"a": result([np.nan])}) == {"a": 0.0}


def test_a_mixture_holds_both_laws():
    laws = {name: of(name, level, before=300.0)
            for name, level in (("two_axis", 100.0), ("two_axis_sqrt", 800.0))}
    table = averaged_table(laws, {"two_axis": 0.5, "two_axis_sqrt": 0.5}, group="g",
                           ci_prob=0.9).set_index(["quantity", "at"])
    assert set(table["law"]) == {AVERAGE}
    row = table.loc[("S_min", "")]
    assert row["ci_lower"] == pytest.approx(100 * np.exp(-0.128), rel=0.05)  # 10 % of each half
    assert row["ci_upper"] == pytest.approx(800 * np.exp(0.128), rel=0.05)
    assert "B_prompt" not in table.index.get_level_values(0)


def test_all_the_weight_on_one_law_gives_that_law():
    laws = {"two_axis": of("two_axis", 100.0), "two_axis_sqrt": of("two_axis_sqrt", 800.0)}
    alone = averaged_table({"two_axis": laws["two_axis"]}, {"two_axis": 1.0}, group="g",
                           ci_prob=0.9)
    both = averaged_table(laws, {"two_axis": 1.0, "two_axis_sqrt": 0.0}, group="g",
                          ci_prob=0.9)
    np.testing.assert_array_equal(both["median"], alone["median"])


def test_chains_of_different_length_are_mixed():
    laws = {"two_axis": of("two_axis", 100.0, n=800), "total": of("total", 300.0, n=200)}
    table = averaged_table(laws, {"two_axis": 0.7, "total": 0.3}, group="g", ci_prob=0.9)
    stated = set(table["quantity"])
    assert "best_n_rollouts" in stated  # by the two-axis law alone
    assert {"gain_prompts", "cbs_prompts", "S_min", "steps"} <= stated
