"""Sixteen defects of the notebook this package grew from; one test each that it has none of them.

The numbers are those of the list of defects. Where the fault belongs to the usual least squares
itself, `least_squares` shows it and the rest of the package does not.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from wandb_server import API_KEY, StoredRun, WandbServer

from cbsbayes.baselines import (
    fit_baselines,
    interval_midpoints,
    least_squares,
    log_least_squares,
)
from cbsbayes.crossings.intervals import (
    INTERVAL,
    LEFT,
    RIGHT,
    UNUSABLE,
    choose_thresholds,
    find_crossings,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.run_name import parse_name
from cbsbayes.logs.wandb_rows import history_from_wandb
from cbsbayes.logs.wandb_service import read_wandb_api
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.sweep.dataset import group_of, new_sweep
from cbsbayes.sweep.from_logs import build_sweep

GSM8K = "val-core/openai/gsm8k/acc/mean@1"
MATH = "val-core/DigitalLearningGmbH/MATH-lighteval/acc/mean@1"
PROMPTS = np.array([32, 64, 128, 256, 512, 1024])
QUICK = SamplerSettings(draws=500, tune=500, chains=2)


def accuracy(steps, batch, *, b_noise=400.0, start=0.60):
    """Return a noise-free curve that reaches 0.65 after 58 (1 + B_noise/B) updates."""
    progress = np.asarray(steps, dtype=float) / (1 + b_noise / batch)
    return start + (0.75 - start) * -np.expm1(-progress / 143.0)


def true_steps(threshold, batch, *, b_noise=400.0, start=0.60):
    share = (threshold - start) / (0.75 - start)
    return -143.0 * np.log1p(-share) * (1 + b_noise / np.asarray(batch, dtype=float))


def sweep_of(curves, n_prompts, n_rollouts=8, *, every=25, **settings):
    """Return a sweep of curves (run, evaluation), evaluated from step 0 on."""
    curves = np.asarray(curves)
    runs = {"run": [f"r{i}" for i in range(len(curves))], "n_prompts": n_prompts,
            "n_rollouts": np.broadcast_to(n_rollouts, len(curves)), **settings}
    return new_sweep(runs, accuracy=curves[:, None], step=every * np.arange(curves.shape[1]),
                     metric=["gsm8k"])


def exact_sweep(*, every=25, last=600, **noise):
    steps = np.arange(0, last + 1, every)
    return sweep_of([accuracy(steps, 8 * p, **noise) for p in PROMPTS], PROMPTS, every=every)


def wandb_run(name, *, batch=1024, first=1, last=400, key=GSM8K, before=True, **changes):
    """Return a run as wandb gives it: training rows, evaluation rows, one before training."""
    rows = [{"_step": 0, key: float(accuracy(0, batch))}] if before else []
    for step in range(first, last + 1):
        row = {"_step": step, "training/global_step": step, "critic/score/mean": 0.5}
        rows.append(row | ({key: float(accuracy(step, batch))} if step % 25 == 0 else {}))
    history, notes = history_from_wandb(rows)
    return RunLog(**{"id": f"{name}-{first}", "name": name, "source": "wandb", "history": history,
                     "notes": tuple(notes)} | changes)


def b_noise_of(ds, threshold, method, axis="total"):
    fits = fit_baselines(ds, find_crossings(ds, [threshold]), [threshold])
    return next(f for f in fits if f.method == method and f.axis == axis).B_noise


def posterior_row(ds, threshold, quantity="B_noise"):
    table = fit_sweep(ds, thresholds=[threshold], sampler=QUICK).cbs
    found, = table[table["quantity"] == quantity].to_dict("records")
    return found


def table_sweep(batch, upper, *, grid=1.0):
    """Return crossings known to lie in (upper - grid, upper]."""
    upper = np.asarray(upper, dtype=float)[:, None]
    runs = {"run": [f"r{i}" for i in range(len(upper))], "total_batch": batch}
    return new_sweep(runs, steps_lower=upper - grid, steps_upper=upper, threshold=[0.65])


def test_01_phase_is_read_from_long_names_and_phases_with_underscores():
    names = [f"cbs_p1_olmo1b_omi_np{p}_nr8" for p in PROMPTS]
    ds = build_sweep([wandb_run(name, batch=8 * p) for name, p in zip(names, PROMPTS, strict=True)])
    assert ds["phase"].values.tolist() == ["p1"] * 6
    assert sorted(ds["n_prompts"].values.tolist()) == PROMPTS.tolist()
    assert parse_name("cbs_p4_math_np128_nr8").phase == "p4_math"
    assert parse_name("cbs_p4_rpp_olmo1b_math_np128_nr8").phase == "p4_rpp"


@pytest.mark.parametrize("name", ["cbs_p1_olmo1b_nprompts_np32_nr8", "cbs_p1_np0_nr8",
                                  "cbs_p1_cbs_np32", "cbs_p1_olmo1b_nrm_np32_nr8"])
def test_02_odd_names_do_not_crash_and_are_not_misread(name):
    parsed = parse_name(name)
    if parsed is not None:
        assert (parsed.phase, parsed.n_prompts, parsed.n_rollouts) == ("p1", 32, 8)


def test_02_the_order_of_the_batch_in_a_name_does_not_matter():
    turned = parse_name("cbs_p1_nr8_np32")
    assert (turned.phase, turned.n_prompts, turned.n_rollouts) == ("p1", 32, 8)


def test_03_runs_that_differ_in_settings_are_not_pooled():
    suffixes = ["", "_lr1e-6", "_lr3e-6", "_ep4", "_s3"]
    ds = build_sweep([wandb_run(f"cbs_p1_olmo1b_omi_np128_nr8{s}", last=300 + 25 * i)
                   for i, s in enumerate(suffixes)])
    groups = dict(zip(ds["name"].values.tolist(), group_of(ds).values.tolist(), strict=True))
    base = "cbs_p1_olmo1b_omi_np128_nr8"
    assert groups[base] == groups[base + "_s3"]
    assert len(set(groups.values())) == 4
    assert set(ds["seed"].values.tolist()) == {-1, 3}


def test_04_runs_of_one_name_do_not_replace_each_other():
    name = "cbs_p1_np128_nr8"
    ds = build_sweep([wandb_run(name, last=437, created="2026-01-01T00:00:00Z", state="crashed"),
                   wandb_run(name, first=401, last=800, before=False,
                             created="2026-01-02T00:00:00Z")])
    assert ds.sizes["run"] == 1
    assert ds["attempts"].values.tolist() == [2]
    crossing = find_crossings(ds, [0.61])
    assert crossing["upper"].item() == 25  # the notebook: 425, from the tail alone
    tail = build_sweep([wandb_run(name, first=401, last=800, before=False)])
    assert tail["usable"].values.tolist() == [0]
    assert find_crossings(tail, [0.61])["status"].item() == UNUSABLE


def test_05_the_row_before_training_counts_as_step_0():
    ds = build_sweep([wandb_run("cbs_p1_np128_nr8")])
    assert ds["step"].values[0] == 0
    assert ds["accuracy"].values[0, 0, 0] == pytest.approx(0.60)
    crossing = find_crossings(ds, [0.58, 0.65])
    assert crossing["status"].values.tolist() == [[UNUSABLE, INTERVAL]]


def test_06_nan_strings_are_missing_values():
    rows = [{"_step": 25 * i, "training/global_step": 25 * i,
             GSM8K: "NaN" if i == 2 else float(accuracy(25 * i, 1024))} for i in range(12)]
    history, _ = history_from_wandb(rows)
    assert history[GSM8K].isna().tolist() == [i == 2 for i in range(12)]
    ds = build_sweep([RunLog("a", "cbs_p1_np128_nr8", "wandb", history)])
    assert np.isfinite(ds["accuracy"].dropna("step")).sum() == 11
    assert find_crossings(ds, [0.65])["upper"].item() == 100


def test_07_thresholds_at_or_below_the_start_are_never_fitted():
    ds = exact_sweep()
    upper = find_crossings(ds, [0.55], rule="first")["upper"].values
    assert np.isnan(upper).all()
    assert (find_crossings(ds, [0.55, 0.60])["status"].values == UNUSABLE).all()
    assert choose_thresholds(ds).min() > 0.60
    for fit in fit_baselines(ds, find_crossings(ds, [0.55]), [0.55]):
        assert math.isnan(fit.B_noise)
        assert (fit.n_used, fit.n_dropped) == (0, 6)


def test_07_such_thresholds_are_refused_or_passed_over_by_the_fit():
    with pytest.raises(CBSDataError, match="no run says anything about any threshold"):
        fit_sweep(exact_sweep(), thresholds=[0.55], sampler=QUICK)


@pytest.mark.mcmc
def test_07_without_an_evaluation_before_training_they_are_bounds_without_a_number():
    """All six runs are past .601 at their first evaluation: the notebook's B_noise is 0.0007."""
    ds = exact_sweep().isel(step=slice(1, None))
    late = ds.assign(accuracy=ds["accuracy"] + 0.1)
    assert (find_crossings(late, [0.601])["status"].values == LEFT).all()
    found = posterior_row(late, 0.601)
    assert found["status"] == "not_identified"
    assert np.isnan([found[name] for name in ("median", "mean", "ci_lower", "ci_upper")]).all()


def test_08_the_evaluation_grid_does_not_round_s_up():
    ds, thresholds = exact_sweep(), [0.65, 0.70]
    crossing = find_crossings(ds, thresholds)
    truth = np.stack([true_steps(t, ds["total_batch"].values) for t in thresholds], axis=1)
    interval = crossing["status"].values == INTERVAL
    assert interval.sum() == 12
    assert ((crossing["lower"] < truth) & (truth <= crossing["upper"])).values.all()
    assert b_noise_of(ds, 0.65, "least_squares") < 300  # the practice; the truth is 400
    midpoints = interval_midpoints(crossing["lower"], crossing["upper"])
    rounded = find_crossings(ds, thresholds, rule="first")["upper"].values
    assert np.abs(np.log(midpoints / truth)).mean() < 0.6 * np.log(rounded / truth).mean()
    fine = exact_sweep(every=1)
    assert b_noise_of(fine, 0.65, "log_least_squares") == pytest.approx(400, rel=0.02)


@pytest.mark.mcmc
@pytest.mark.parametrize("threshold", [0.65, 0.70])
def test_08_the_posterior_holds_the_truth_behind_the_grid(threshold):
    """The notebook's B_noise is 136 and 339 here, the truth 400."""
    found = posterior_row(exact_sweep(), threshold)
    assert found["status"] == "identified"
    assert found["ci_lower"] < 400 < found["ci_upper"]


def test_09_runs_that_never_reach_the_threshold_are_kept_as_bounds():
    ds = exact_sweep(last=125)
    crossing = find_crossings(ds, [0.65])
    reached = true_steps(0.65, ds["total_batch"].values) <= 125
    assert crossing["status"].values[:, 0].tolist() == np.where(reached, INTERVAL, RIGHT).tolist()
    assert reached.sum() == 5
    assert (crossing["lower"].values[~reached] == 125).all()
    assert np.isinf(crossing["upper"].values[~reached]).all()
    fits = fit_baselines(ds, crossing, [0.65])
    assert {(f.n_used, f.n_dropped) for f in fits} == {(reached.sum(), (~reached).sum())}


def test_10_validation_sets_are_not_mixed_in_one_fit():
    logs = [wandb_run(f"cbs_p1_np{p}_nr8", batch=8 * p, key=MATH if p == 32 else GSM8K)
            for p in PROMPTS]
    for order in (logs, logs[::-1]):
        ds = build_sweep(order)
        assert "gsm8k" in ds.attrs["metric"]
        crossing = find_crossings(ds, [0.65])
        unusable = crossing["n_prompts"].values[crossing["status"].values[:, 0] == UNUSABLE]
        assert unusable.tolist() == [32]
    half = [wandb_run(f"cbs_p1_np{p}_nr8", key=f"val-core/set{i % 2}/acc/mean@1")
            for i, p in enumerate(PROMPTS)]
    with pytest.raises(CBSDataError, match=r"set0.*set1"):
        build_sweep(half)


@pytest.mark.parametrize(("batch", "steps"), [
    (np.full(6, 2048.0), [212, 129, 73, 73, 62, 71]),
    (8.0 * PROMPTS, [30, 50, 75, 100, 150, 200]),
    (8.0 * PROMPTS, [50, 50, 50, 50, 50, 50]),
], ids=["one batch size", "rising", "flat"])
def test_11_what_the_data_cannot_say_is_no_plain_number(batch, steps):
    assert 0 < least_squares(batch, steps).B_noise < np.inf
    fit = log_least_squares(batch, steps)
    assert fit.B_noise == 0 or (math.isnan(fit.B_noise) and fit.note)
    assert np.isnan([fit.ci_t_lower, fit.ci_t_upper]).all()
    falling = log_least_squares(8.0 * PROMPTS, 1e6 / PROMPTS)
    assert (falling.S_min, falling.B_noise) == (0, np.inf)


@pytest.mark.mcmc
@pytest.mark.parametrize(("steps", "statuses"), [
    ([30, 50, 75, 100, 150, 200], {"upper_bound", "not_identified"}),
    ([50, 50, 50, 50, 50, 50], {"upper_bound"}),
    ((1e6 / PROMPTS).tolist(), {"lower_bound"}),
], ids=["rising", "flat", "one over B"])
def test_11_the_posterior_of_what_the_data_cannot_say_is_a_bound(steps, statuses):
    found = posterior_row(table_sweep(8.0 * PROMPTS, steps), 0.65)
    assert found["status"] in statuses
    assert np.isnan([found["median"], found["mean"], found["sd"]]).all()
    assert np.isnan([found["ci_lower"], found["ci_upper"]]).any()


def test_11_one_batch_size_is_not_fitted():
    ds = table_sweep(np.full(6, 2048.0), [212, 129, 73, 73, 62, 71])
    with pytest.raises(CBSDataError, match=r"1 batch size\(s\).*at least 3"):
        fit_sweep(ds, thresholds=[0.65], sampler=QUICK)


def test_12_the_order_of_runs_and_large_s_do_not_decide():
    batch = 8.0 * PROMPTS
    steps = true_steps(0.65, batch) * np.exp([0.4, 0.05, -0.1, 0.0, 0.1, -0.05])
    fits = [log_least_squares(batch[order], steps[order])
            for order in (np.arange(6), np.array([5, 2, 0, 4, 1, 3]))]
    assert fits[1].B_noise == pytest.approx(fits[0].B_noise, rel=1e-8)
    assert fits[0].ci_lower < fits[0].B_noise < fits[0].ci_upper
    shift = {}
    for fit in (least_squares, log_least_squares):
        moved = [fit(batch, steps * np.append(factor, np.ones(5))).B_noise for factor in (1, 1.2)]
        shift[fit.__name__] = abs(np.log(moved[1] / moved[0]))
    assert shift["log_least_squares"] < shift["least_squares"]


def test_13_the_rollout_axis_is_in_rollouts():
    rollouts = np.array([2, 4, 8, 16, 32, 64])
    steps = np.arange(0, 1201, 5)
    curves = [accuracy(steps, 128 * g, b_noise=128 * 6.0) for g in rollouts]
    ds = sweep_of(curves, np.full(6, 128), rollouts, every=5)
    assert b_noise_of(ds, 0.65, "log_least_squares", "rollouts") == pytest.approx(6, rel=0.1)
    assert b_noise_of(ds, 0.65, "log_least_squares") == pytest.approx(768, rel=0.1)


def test_14_one_lucky_evaluation_is_no_crossing():
    rng = np.random.default_rng(0)
    steps = np.arange(0, 601, 5)
    level = accuracy(steps, 256)
    curves = rng.binomial(1319, np.broadcast_to(level, (200, steps.size))) / 1319
    curves[:, 0] = level[0]
    ds = sweep_of(curves, np.full(200, 32), every=5)
    truth = true_steps(0.70, 256)
    early = {rule: np.log(find_crossings(ds, [0.70], rule=rule)["upper"].values / truth).mean()
             for rule in ("first", "isotonic")}
    assert early["first"] < -0.2
    assert abs(early["isotonic"]) < 0.3 * abs(early["first"])


def test_15_step_time_leaves_out_warm_up_checkpoints_and_validation():
    rows = []
    for step in range(1, 201):
        timed = {"timing_s/gen": 6.0, "timing_s/update_actor": 4.0, "perf/time_per_step": 10.0}
        if step == 1:
            timed["perf/time_per_step"] = 300.0
        if step % 25 == 0:
            timed |= {"timing_s/testing": 90.0, "perf/time_per_step": 100.0,
                      GSM8K: float(accuracy(step, 1024))}
        if step % 50 == 10:
            timed |= {"timing_s/save_checkpoint": 60.0, "perf/time_per_step": 70.0}
        rows.append({"_step": step, "training/global_step": step, **timed})
    history, _ = history_from_wandb(rows)
    assert history["perf/time_per_step"].mean() > 16
    ds = build_sweep([RunLog("a", "cbs_p1_np128_nr8", "wandb", history)])
    assert ds["step_time"].item() == pytest.approx(10.0)


def test_16_training_and_evaluation_rows_are_both_read(tmp_path, monkeypatch):
    rows = [{"_step": 0, GSM8K: 0.60}]
    for step in range(1, 51):
        rows.append({"_step": step, "training/global_step": step, "critic/score/mean": 0.5}
                    | ({GSM8K: float(accuracy(step, 1024))} if step % 25 == 0 else {}))
    for exported in (0, 30):
        with WandbServer() as server:
            monkeypatch.setenv("WANDB_BASE_URL", server.url)
            monkeypatch.setenv("WANDB_API_KEY", API_KEY)
            server.add(StoredRun("a", "cbs_p1_np128_nr8", rows, exported=exported))
            log, = read_wandb_api("ent/proj", cache_dir=tmp_path / str(exported))
        assert log.history[GSM8K].notna().sum() == 3
        assert log.history["critic/score/mean"].notna().sum() == 50


def test_left_censored_runs_are_bounds_too():
    """Without an evaluation before training, all that is known is S <= the first evaluation."""
    ds = exact_sweep().isel(step=slice(1, None))
    crossing = find_crossings(ds, [0.601])
    assert (crossing["status"].values[2:] == LEFT).all()
    assert (crossing["lower"].values[2:] == 0).all()
    log = next(f for f in fit_baselines(ds, crossing, [0.601]) if f.method == "log_least_squares")
    assert math.isnan(log.B_noise)
