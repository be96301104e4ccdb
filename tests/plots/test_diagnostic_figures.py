"""Replicated against observed crossings, and the share of observations that is covered."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import points

from cbsbayes import plots
from cbsbayes.plots.diagnostics import interval_coverage


def test_marks_by_kind_are_counted_and_batches_named(fit):
    level = float(fit.thresholds[-1])
    ax = plots.plot_crossing_check(fit, threshold=level)
    status = fit.crossings["status"].sel(threshold=level)
    shown = [points(ax, f"crossing-{kind}") for kind in ("left", "interval", "right")]
    assert [len(marks) for marks in shown] == [int((status == code).sum()) for code in (0, 1, 2)]
    batches = zip(fit.crossings["n_prompts"].values, fit.crossings["n_rollouts"].values,
                  strict=True)
    assert {tick.get_text() for tick in ax.get_yticklabels()} == {
        f"{p:,d} × {g}" for p, g in batches}
    rows = np.concatenate(shown)[:, 1]
    assert len(set(rows)) == len(rows)


def test_censored_and_interval_observations_score_the_nominal_share():
    rng = np.random.default_rng(0)
    truth = rng.lognormal(size=4000)
    replicates = np.broadcast_to(rng.lognormal(size=(4000, 1)), (4000, 4000))
    grid = np.concatenate([[0.0], np.geomspace(0.3, 3.0, 7), [np.inf]])
    place = np.searchsorted(grid, truth)
    share = interval_coverage(replicates, grid[place - 1], grid[place], 0.9)
    assert share == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(("lower", "upper", "share"), [
    (5.0, 6.0, 0.0), (5.0, np.inf, 0.0), (1.45, 1.55, 1.0)])
def test_an_observation_far_off_counts_as_outside(lower, upper, share):
    replicates = np.linspace(1.0, 2.0, 101)[:, None]
    assert interval_coverage(replicates, np.array([lower]), np.array([upper]), 0.9) == share
