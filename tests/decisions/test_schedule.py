"""Ramps of batch sizes: against noise of a known kind, and the draws."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.decisions.batches import COLUMNS
from cbsbayes.decisions.schedule import best_ramp, schedule_table
from cbsbayes.errors import CBSDataError

PROMPTS = 4 * 2.0 ** np.arange(0, 8, 0.5)


def updates_of(noise):
    """Return updates of stretches that take an endless batch one, for draws of N on each."""
    return 1 + noise[..., None] / PROMPTS


def test_noise_that_stays_the_same_leaves_one_batch():
    ramp, constant = best_ramp(updates_of(np.full((1, 5), 50.0)), 8 * PROMPTS, 7, 0.0)
    assert ramp.tolist() == [7] * 5
    assert constant == 7


@pytest.mark.parametrize("more", [0.0, 0.1])
def test_noise_that_grows_gives_its_square_root(more):
    noise = np.array([[4.0, 16, 64, 256, 1024]])
    updates, reference = updates_of(noise), 9
    ramp, _ = best_ramp(updates, 8 * PROMPTS, reference, more)
    limit, own = (1 + more) * updates[0, :, reference].sum(), updates[0, np.arange(5), ramp]
    batch = np.sqrt(noise[0]) * np.sqrt(noise).sum() / (limit - 5)  # P = √N/λ meets the limit
    least = 8 * (batch + noise[0]).sum()
    assert own.sum() <= limit * (1 + 1e-9)
    assert least * (1 - 1e-9) <= (own * 8 * PROMPTS[ramp]).sum() <= 1.03 * least
    assert (np.abs(np.log2(PROMPTS[ramp] / batch)) < 0.75).all()


def test_the_limit_holds_in_the_mean_of_draws_and_a_wider_one_saves_more():
    updates = updates_of(np.cumsum(np.random.default_rng(1).lognormal(3, 0.5, (200, 4)), axis=1))
    whole, before = updates[:, :, 9].sum(axis=1), 0.0
    for more in (0.0, 0.05, 0.2, 1.0):
        ramp, other = best_ramp(updates, PROMPTS, 9, more)
        own = updates[:, np.arange(4), ramp]
        for spent in (own, updates[:, :, other]):
            assert (spent.sum(axis=1) / whole).mean() <= 1 + more + 1e-9
        saved = (1 - own @ PROMPTS[ramp] / (whole * PROMPTS[9])).mean()
        assert saved >= before
        before = saved


def test_the_table_is_that_of_its_draws(fit):
    table = schedule_table(fit, (256.0, 8.0), 0.05)
    assert list(table.columns) == COLUMNS["schedule"]
    assert table["n_prompts"].is_monotonic_increasing
    assert np.isnan(table["from_threshold"].iloc[0])
    assert table["from_threshold"].iloc[1:].tolist() == table["to_threshold"].iloc[:-1].tolist()
    assert table["to_threshold"].iloc[-1] == fit.thresholds[-1]
    updates = samples = 0.0
    for row in table.itertuples():
        steps = np.exp(fit.log_steps(row.n_prompts, 8)).isel(batch=0)
        ends = [0.0 if np.isnan(t) else steps.sel(threshold=t) for t in
                (row.from_threshold, row.to_threshold)]
        assert float(np.median(ends[1] - ends[0])) == pytest.approx(row.updates, rel=0.02)
        updates, samples = updates + ends[1] - ends[0], samples + row.total_batch * (
            ends[1] - ends[0])
    whole = np.exp(fit.log_steps(256, 8, fit.thresholds[-1])).isel(batch=0)
    first = table.iloc[0]
    assert float(np.mean(1 - samples / (2048 * whole))) == pytest.approx(
        first["expected_saved"], abs=0.01)
    assert float(np.median(updates / whole - 1)) == pytest.approx(first["more_updates"], abs=0.01)
    assert first["saved_lower"] <= first["saved"] <= first["saved_upper"]
    assert first["saved"] >= first["other_saved"] - 0.01


def test_every_batch_has_a_rate_of_those_tried(rate_fit):
    table = schedule_table(rate_fit, (512.0, 8.0), 0.2)
    assert table["learning_rate"].between(3e-7, 2e-6).all()
    assert table["learning_rate"].is_monotonic_increasing


def test_one_axis_and_a_target(one_axis):
    total = float(np.unique(one_axis.crossings["total_batch"])[-1])
    level = one_axis.thresholds[-2]
    table = schedule_table(one_axis, (total, 1.0), 0.1, level)
    assert (table["n_rollouts"] == 1).all()
    assert table["to_threshold"].iloc[-1] == level


@pytest.mark.parametrize(("more", "threshold", "message"), [
    (-0.01, None, "--schedule is -1; valid: 0 and more"), (np.nan, None, "--schedule is nan"),
    (0.05, 0, "needs two fitted targets")])
def test_what_cannot_be_scheduled(fit, more, threshold, message):
    level = None if threshold is None else fit.thresholds[threshold]
    with pytest.raises(CBSDataError, match=message):
        schedule_table(fit, (256.0, 8.0), more, level)
