"""Noise scales from gradient norms: of known truth, of the shipped sweeps, and when not usable."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.models.measured_noise import noise_data
from cbsbayes.noise.beside_fit import noise_comparison
from cbsbayes.noise.norms import norms_at_accuracy, norms_in_ranges
from cbsbayes.posterior.fit import Fit
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.sweep.files import read_sweep

SIGNAL, BATCHES = 0.04, (8, 16, 32, 64, 128)
EDGES = np.array([0.3, 0.6, 0.8])
NOISE = (20.0, 60.0, 200.0)  # prompts, in the ranges that end at `EDGES`


def sweep_with_norms(rng, batches=BATCHES, seeds=3, dimensions=100, **columns):
    """Return runs whose batch gradients have the noise `NOISE`, evaluated every two updates."""
    runs = [(p, s) for p in batches for s in range(seeds)]
    step = np.arange(0.0, 61.0, 2.0)
    accuracy = np.broadcast_to(0.8 * step / step[-1], (len(runs), step.size))
    middle = np.append(np.nan, (accuracy[0, 1:] + accuracy[0, :-1]) / 2)
    noise = np.array([*NOISE, np.nan])[np.searchsorted(EDGES, np.nan_to_num(middle))]
    prompts = np.array([p for p, _ in runs], dtype=float)[:, None]
    signal = SIGNAL * np.exp(0.02 * rng.normal(size=(len(runs), 1)))
    scatter = rng.chisquare(dimensions, (len(runs), step.size)) / dimensions
    trace = noise * SIGNAL / prompts * scatter
    norms = np.where(np.isnan(middle), np.nan, signal + trace)
    return new_sweep(
        {"run": [f"p{p}s{s}" for p, s in runs], "n_prompts": prompts[:, 0], "n_rollouts": 8,
         "seed": [s for _, s in runs], "updates_per_step": 1, **columns},
        accuracy=accuracy[:, None], step=step, metric=["a"], grad_norm_sq=norms)


def ranges_of(norms, seed=0):
    return norms_in_ranges(norms, EDGES, size="n_prompts", n_draws=400,
                           rng=np.random.default_rng(seed))


def test_intervals_hold_a_known_scale():
    """In 40 sweeps, three ranges each; `benchmarks/gradient_norms.py` counts more of them."""
    held, widths = 0, []
    for seed in range(40):
        norms = norms_at_accuracy(sweep_with_norms(np.random.default_rng(seed)), None)
        for one, truth in zip(ranges_of(norms, seed), NOISE, strict=True):
            low, high = np.quantile(one.draws, [0.05, 0.95])
            held += low <= truth <= high
            widths.append(np.log(high / low))
    assert 0.83 * 120 <= held <= 118
    assert np.median(widths) < 0.5


def test_as_data_of_the_model_they_are_the_line_with_its_error():
    """Slope over intercept near the truth; a range with two batch sizes has no data."""
    norms = norms_at_accuracy(sweep_with_norms(np.random.default_rng(3)), None)
    kept = norms[(norms["level"] < 0.6) | norms["n_prompts"].isin([8, 128])]
    data = noise_data(kept, get_law("two_axis_free"), EDGES)
    assert (data.parts, data.n_rollouts, data.mix.tolist()) == (("N",), 8, [[1.0, 1 / 7]])
    assert data.known.tolist() == [True, True]
    assert data.freedom.tolist() == [13, 13]
    np.testing.assert_allclose(data.estimate[:, 0] / data.estimate[:, 1], NOISE[:2], rtol=0.2)
    np.testing.assert_allclose(data.estimate[:, 1], SIGNAL, rtol=0.1)
    assert data.resolved().all()
    with pytest.raises(CBSDataError, match="gradient norms of 3 batch sizes at one group size"):
        noise_data(kept[kept["n_prompts"] <= 16], get_law("two_axis_free"), EDGES)


def test_a_range_of_few_batch_sizes_is_joined_to_the_next():
    ds = sweep_with_norms(np.random.default_rng(1))
    norms = norms_at_accuracy(ds, None)
    few = norms[(norms["level"] > 0.3) | norms["n_prompts"].isin([8, 16])]
    assert [(one.first, one.last) for one in ranges_of(few)] == [(0, 1), (2, 2)]
    two = norms[norms["n_prompts"].isin([8, 16])]
    assert [one.draws.size for one in ranges_of(two)] == [0]


@pytest.mark.parametrize(("change", "reason"), [
    (lambda ds: ds.drop_vars("grad_norm_sq"), "no run logged gradient norms"),
    (lambda ds: ds.assign(grad_norm_sq=ds["grad_norm_sq"] * np.nan), "no run logged gradient"),
    (lambda ds: ds.assign_coords(updates_per_step=("run", np.full(ds.sizes["run"], 4))),
     "several updates"),
    (lambda ds: ds.assign(grad_norm_sq=ds["grad_norm_sq"].clip(max=0.05)), "after clipping")])
def test_norms_that_say_nothing_of_a_batch_are_refused(change, reason):
    with pytest.raises(CBSDataError, match=reason):
        norms_at_accuracy(change(sweep_with_norms(np.random.default_rng(2))), None)


@pytest.mark.parametrize(("name", "known"), [
    ("verl_tiny", {0.53: (26, 40), 0.69: (33, 76), 0.81: (109, 189), 0.88: (215, 397)}),
    ("tiny_grpo", {0.38: (36, 57), 0.69: (98, 147), 0.81: (156, 275), 0.85: (296, 511)})])
def test_shipped_sweeps_have_the_scales_measured_from_them_before(root, name, known):
    """The intervals of another implementation, which drew runs anew in another way."""
    ds = read_sweep(root / "data" / name / "sweep.nc")
    norms = norms_at_accuracy(ds, None)
    edges = {"verl_tiny": [0.3, 0.45, 0.6, 0.75, 0.85, 0.92],
             "tiny_grpo": [0.3, 0.45, 0.55, 0.65, 0.72, 0.78, 0.83, 0.87]}[name]
    found = norms_in_ranges(norms[norms["n_rollouts"] == 8], np.array(edges), size="n_prompts",
                            n_draws=1000, rng=np.random.default_rng(0))
    for accuracy, (low, high) in known.items():
        one = min(found, key=lambda measured: abs(measured.accuracy - accuracy))
        assert one.accuracy == pytest.approx(accuracy, abs=0.015)
        assert low < np.median(one.draws) < high


def test_norms_stand_beside_the_fit_with_probes_and_without(fit):
    ds = fit.sweep
    rng = np.random.default_rng(3)
    size, prompts = ds["n_rollouts"].values[:, None], ds["n_prompts"].values[:, None]
    scale = 60.0 + 300.0 / np.maximum(size - 1, 1)
    norms = SIGNAL * (1 + scale / prompts) * rng.chisquare(50, (len(size), ds.sizes["step"])) / 50
    tree = fit.tree.copy()
    tree["sweep"] = xr.DataTree(ds.drop_vars([n for n in ds if n.startswith("noise_")]).assign(
        grad_norm_sq=(("run", "step"), norms)))
    table = noise_comparison(Fit(tree))
    assert set(table["source"]) == {"norms"}
    assert set(table["quantity"]) == {"N"}
    assert set(table["at"]) == {"n_rollouts=8"}  # the group size of three and more batches
    rows = table[(table["measured_status"] == "resolved") & (table["average"] == "range")]
    truth = 60.0 + 300.0 / 7
    assert ((rows["measured_lower"] <= truth) & (truth <= rows["measured_upper"])).mean() > 0.6
    np.testing.assert_allclose(rows["measured"], truth, rtol=0.5)
