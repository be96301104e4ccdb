"""Every family has what its name says."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.models.parameters import PRIORS
from cbsbayes.simulation.truth import truth_of
from cbsbayes.validation.families import FAMILIES, family_sweep, get_family, prior_exponent

LAW = get_law("two_axis_free")


@pytest.fixture(scope="module")
def sweeps():
    return {name: family_sweep(family, LAW, 1) for name, family in FAMILIES.items()}


def accuracy(ds):
    return ds["accuracy"].isel(metric=0).values


def test_designs_and_seeds(sweeps):
    runs = {name: ds.sizes["run"] for name, ds in sweeps.items()}
    assert {name: runs[name] for name in ("base", "p1", "p2b", "p2c", "p1+p2b", "seeds_2",
                                          "seeds_3")} == {
        "base": 19, "p1": 6, "p2b": 7, "p2c": 6, "p1+p2b": 13, "seeds_2": 38, "seeds_3": 57}
    assert len(np.unique(sweeps["p1"]["n_rollouts"])) == 1
    assert len(np.unique(sweeps["p2b"]["n_prompts"])) == 1
    assert len(np.unique(sweeps["p2c"]["total_batch"])) == 1


def test_exponents(sweeps):
    assert {name: sweeps[name].attrs["true_alpha"] for name in ("base", "sqrt", "wander")} == {
        "base": 1.0, "sqrt": 0.5, "wander": 1.0}
    drawn = np.array([prior_exponent(seed) for seed in range(2000)])
    mean, sd, lower, upper = PRIORS.alpha
    assert drawn.mean() == pytest.approx(mean, abs=0.03)
    assert drawn.std() == pytest.approx(sd, abs=0.03)
    assert lower < drawn.min() < drawn.max() < upper
    assert sweeps["prior"].attrs["true_alpha"] == drawn[1]


def test_curves(sweeps):
    hill, ceiling = truth_of(sweeps["hill"]), truth_of(sweeps["ceiling"])
    assert (hill.form, hill.shape) == ("hill", 1.4)
    assert ceiling.reach(2) < ceiling.reach(8) < ceiling.reach(np.inf) == ceiling.gain
    assert truth_of(sweeps["total"]).law == "total"
    assert {name: float(np.diff(sweeps[name]["step"])[0]) for name in (
        "base", "sparse", "dense")} == {"base": 25, "sparse": 50, "dense": 5}
    plain = family_sweep(get_family("base"), get_law("two_axis_plain"), 0)
    assert truth_of(plain).law == "two_axis_plain"


def test_noise_rises_by_as_much_as_its_family_says():
    family = get_family("rising_noise")
    truths = [truth_of(family_sweep(family, LAW, seed)) for seed in range(20)]
    growth = [np.log(t.scales(t.start + t.gain)["B_prompt"] / t.scales(t.start)["B_prompt"])
              for t in truths]
    assert 0.3 < min(growth) < 0.6
    assert 1.2 < max(growth) < 1.5


def test_fixed_items(sweeps):
    truth = truth_of(sweeps["item_set"])
    assert len(truth.items) == 1319
    assert len(np.unique(accuracy(sweeps["item_set"])[:, 0])) == 1  # one set, one base checkpoint
    assert len(np.unique(accuracy(sweeps["base"])[:, 0])) > 5


def test_disturbances_are_the_only_difference_to_the_base(sweeps):
    calm = sweeps["base"]["true_run_effect"].values
    np.testing.assert_array_equal(sweeps["correlated"]["true_run_effect"], calm)
    np.testing.assert_array_equal(sweeps["wander"]["true_run_effect"], calm)
    effects = np.concatenate([family_sweep(get_family("heavy"), LAW, seed)["true_run_effect"]
                              for seed in range(40)])
    assert np.mean(np.abs(effects) > 4 * 0.08) > 0.01  # normal: 6e-5


def test_an_unknown_family_is_refused_with_the_list():
    with pytest.raises(CBSDataError, match="unknown family 'bass'; valid: all, base, sqrt"):
        get_family("bass")
