"""What runs logged of gradient noise: known truths come back from probes and from norms."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fieller import fieller
from fitted import changed
from scipy.special import stdtrit

from cbsbayes.errors import CBSDataError
from cbsbayes.ingest import ingest
from cbsbayes.models.laws import get_law
from cbsbayes.models.measured_noise import noise_data, parts_of
from cbsbayes.noise.beside_fit import noise_comparison
from cbsbayes.noise.logged import (
    MIN_PROBES,
    measured_in_ranges,
    norms_at_accuracy,
    norms_in_ranges,
    probes_of,
)
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.sweep.files import read_sweep

LAW = get_law("two_axis_free")
WHOLE = parts_of(LAW, [8])[0]
SIGNAL, BATCHES = 0.04, (8, 16, 32, 64, 128)
EDGES = np.array([0.3, 0.6, 0.8])
NOISE = (20.0, 60.0, 200.0)  # prompts, in the ranges that end at `EDGES`

# Probes ---------------------------------------------------------------------------------


def sweep_of(probes, **coords):
    """Make a sweep from logged sums, key to array (run, probe)."""
    n_runs, n_probes = next(iter(probes.values())).shape
    runs = {"run": [f"r{i}" for i in range(n_runs)], "n_prompts": 32, "n_rollouts": 8, **coords}
    return new_sweep(runs, accuracy=np.full((n_runs, 1, 2), 0.5), step=[0, 100],
                     metric=["m"], noise=probes, train_step=np.arange(n_probes) * 10.0)


def test_probes_of_usable_runs_with_the_unbiased_signal_derived_where_not_logged():
    above, biased = np.random.default_rng(0).uniform(1, 9, (2, 2, 5))
    ds = sweep_of({"grad_noise/tr_sigma": above, "grad_noise/gbar_sq": biased,
                   "grad_noise/n_samples": np.full_like(above, 256)}, usable=[1, 0])
    probes = probes_of(ds)
    assert set(probes["run"]) == {"r0"}
    np.testing.assert_allclose(probes["g_sq"], biased[0] - above[0] / 256)


@pytest.mark.parametrize("prefix", ["", "actor/"])
def test_probes_from_a_file_as_verl_writes_it(tmp_path, prefix):
    above, below = np.random.default_rng(0).normal(5, 2, (2, 12))
    lines = [{"step": 0, "data": {"val-core/openai/gsm8k/acc/mean@1": 0.1}}]
    for i in range(12):
        lines.append({"step": i + 1, "data": {
            "training/global_step": i + 1, "val-core/openai/gsm8k/acc/mean@1": 0.2,
            f"{prefix}grad_noise/tr_sigma": above[i], f"{prefix}grad_noise/g_sq": below[i]}})
    (tmp_path / "cbs_p1_m_d_np64_nr8.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines))
    probes = probes_of(ingest([str(tmp_path)]))
    np.testing.assert_allclose(probes[["tr_sigma", "g_sq"]], np.column_stack([above, below]))
    assert probes["update"].tolist() == list(range(1, 13))


def test_what_cannot_be_measured_is_refused():
    bare = new_sweep({"run": ["a"], "n_prompts": 8, "n_rollouts": 8},
                     accuracy=[[[0.1, 0.2]]], step=[0, 10], metric=["m"])
    with pytest.raises(CBSDataError, match="no gradient noise was logged"):
        probes_of(bare)
    ratios = sweep_of({"grad_noise/B_noise_estimate": np.ones((1, 5))})
    with pytest.raises(CBSDataError, match="noise_B_noise_estimate but no probe with tr_sigma"):
        probes_of(ratios)


def probes_at(rng, levels, *, signal, noise, samples):
    """Return probes whose estimate of |G|² scatters as the inverse of their samples."""
    size = len(levels)
    return pd.DataFrame({
        "run": [f"r{i % 5}" for i in range(size)], "n_rollouts": 8, "level": levels,
        "accuracy": levels, "total_batch": samples, "n_samples": samples,
        "g_sq": signal + 8 * rng.normal(size=size) / samples,
        "tr_sigma": 8 * noise * signal * (1 + 0.2 * rng.normal(size=size)),
        "tr_between": np.nan, "tr_within": np.nan})


def in_ranges(probes, edges, n_draws=5, seed=0):
    return measured_in_ranges(probes, WHOLE, np.array(edges), law=LAW, n_draws=n_draws,
                              rng=np.random.default_rng(seed))


def test_intervals_of_weighted_averages_cover_the_truth():
    rng = np.random.default_rng(1)
    samples = np.repeat([32.0, 128.0, 512.0], 8)
    hits = 0
    for seed in range(400):
        probes = probes_at(rng, np.full(24, 0.5), signal=0.1, noise=50.0, samples=samples)
        low, high = np.quantile(in_ranges(probes, [1.0], 1000, seed)[0].draws, [0.05, 0.95],
                                method="inverted_cdf")
        hits += low <= 50.0 <= high
    assert 0.86 <= hits / 400 <= 0.95  # binomial sd 1.5 %


def test_equal_weights_give_fiellers_interval():
    rng = np.random.default_rng(2)
    probes = probes_at(rng, np.full(30, 0.5), signal=1.0, noise=50.0, samples=np.full(30, 32.0))
    draws = in_ranges(probes, [1.0], 200_000)[0].draws
    sums = np.stack([probes["tr_sigma"] / 8, probes["g_sq"]])
    exact = fieller(*sums.mean(axis=1), np.cov(sums) / 30, stdtrit(29, 0.95))
    assert np.quantile(draws, [0.05, 0.95]) == pytest.approx(exact, rel=0.01)


def test_a_range_with_too_few_probes_is_joined_to_the_next():
    levels = np.array([0.1] * 9 + [0.3] * (MIN_PROBES - 1) + [0.5] * 9 + [0.95])
    probes = probes_at(np.random.default_rng(3), levels, signal=1.0, noise=5.0,
                       samples=np.full(levels.size, 32.0))
    found = in_ranges(probes, [0.2, 0.4, 0.6, 0.8])
    assert [(m.first, m.last, m.n_probes) for m in found] == [
        (0, 0, 9), (1, 2, 9 + MIN_PROBES - 1), (3, 3, 0)]
    assert not found[-1].draws.size  # nothing between .6 and .8; .95 lies beyond


def test_small_batches_beside_large_ones_count_for_little():
    levels = np.array([0.1] * 20 + [0.3] * 20)
    samples = np.where(np.arange(40) % 20 < 4, 512.0, 32.0)  # worth about four of 512 each
    probes = probes_at(np.random.default_rng(4), levels, signal=1.0, noise=5.0, samples=samples)
    assert [(m.first, m.last, m.n_probes) for m in in_ranges(probes, [0.2, 0.4])] == [(0, 1, 40)]


# Gradient norms -------------------------------------------------------------------------


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


def test_norms_stand_beside_the_fit_where_there_are_no_probes(fit):
    ds = fit.sweep
    rng = np.random.default_rng(3)
    size, prompts = ds["n_rollouts"].values[:, None], ds["n_prompts"].values[:, None]
    scale = 60.0 + 300.0 / np.maximum(size - 1, 1)
    norms = SIGNAL * (1 + scale / prompts) * rng.chisquare(50, (len(size), ds.sizes["step"])) / 50
    table = noise_comparison(changed(fit, sweep=ds.assign(grad_norm_sq=(("run", "step"), norms))))
    assert set(table["source"]) == {"norms"}
    assert set(table["quantity"]) == {"N"}
    assert set(table["at"]) == {"n_rollouts=8"}  # the group size of three and more batches
    rows = table[(table["measured_status"] == "resolved") & (table["average"] == "range")]
    truth = 60.0 + 300.0 / 7
    assert ((rows["measured_lower"] <= truth) & (truth <= rows["measured_upper"])).mean() > 0.6
    np.testing.assert_allclose(rows["measured"], truth, rtol=0.5)
