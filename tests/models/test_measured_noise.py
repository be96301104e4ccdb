"""From probes to the model's noise data: parts, moderated errors, refusals, snapshots."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.models.measured_noise import (
    MIN_ROLLOUTS,
    PRIOR_FREEDOM,
    SNAPSHOT_COLUMNS,
    noise_data,
)

FREE, PLAIN, TOTAL = (get_law(n) for n in ("two_axis_free", "two_axis_free_plain", "total"))
EDGES = np.array([0.5, 0.6, 0.7, 0.8])
BETWEEN, WITHIN, SIGNAL = 40.0, 280.0, 2.0


def probes(levels, rng=None, *, rollouts=8, sd=0.0, samples=512.0):
    """Probes at levels; their |G|² scatters with `sd`."""
    n = len(levels)
    rng = rng or np.random.default_rng(0)
    within = WITHIN * (1 + 0.05 * rng.normal(size=n) * (sd > 0))
    between = BETWEEN * (1 + 0.05 * rng.normal(size=n) * (sd > 0))
    return pd.DataFrame({
        "run": [f"r{i % 3}" for i in range(n)], "n_rollouts": rollouts, "level": levels,
        "accuracy": levels, "total_batch": samples, "n_samples": samples,
        "g_sq": SIGNAL + sd * rng.normal(size=n), "tr_between": between, "tr_within": within,
        "tr_sigma": rollouts * between + within})


def test_both_parts_in_the_laws_units():
    found = noise_data(probes(np.array([0.4, 0.45, 0.55, 0.56, 0.57, 0.9])), FREE, EDGES)
    assert found.parts == ("B_prompt", "B_rollout")
    assert found.n_ranges == 2  # none between .6 and .8; .9 lies beyond the last threshold
    assert found.n_probes.tolist() == [2, 3]
    ratio = found.estimate[:, :2] / found.estimate[:, 2:]
    assert ratio == pytest.approx(np.array([[BETWEEN / SIGNAL, WITHIN * 7 / 8 / SIGNAL]] * 2))
    assert found.total == pytest.approx([1.0, 1 / 7])
    plain = noise_data(probes(np.full(5, 0.4)), PLAIN, EDGES)
    assert plain.estimate[0, 1] == pytest.approx(WITHIN)
    assert plain.total == pytest.approx([1.0, 1 / 8])


def test_small_groups_give_their_whole_noise_and_one_axis_its_own():
    few = noise_data(probes(np.full(5, 0.4), rollouts=MIN_ROLLOUTS - 2), FREE, EDGES)
    assert few.parts == ("N",)
    assert few.n_rollouts == 2
    assert few.mix == pytest.approx(np.array([[1.0, 1.0]]))
    assert few.estimate[0] == pytest.approx([BETWEEN + WITHIN / 2, SIGNAL])
    total = noise_data(probes(np.full(5, 0.4)), TOTAL, EDGES)
    assert total.parts == ("B_noise",)
    assert total.estimate[0] == pytest.approx([8 * BETWEEN + WITHIN, SIGNAL])


def test_without_parts_the_whole_is_used():
    table = probes(np.full(6, 0.4)).assign(tr_between=np.nan, tr_within=np.nan)
    assert noise_data(table, FREE, EDGES).parts == ("N",)


def test_a_range_in_between_without_probes_stays_without_data():
    found = noise_data(probes(np.array([0.4, 0.41, 0.42, 0.43, 0.75])), FREE, EDGES)
    assert found.freedom.tolist() == pytest.approx([PRIOR_FREEDOM * 0.75 + 3, 0, 0, 3])
    assert np.isnan(found.estimate[1:3]).all()
    assert (found.precision()[1:3] == 0).all()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_errors_of_ranges_with_few_probes_hold_the_truth(size):
    """90 % t-intervals of |G|² in a range of `size` probes, beside ranges of others."""
    rng, hits, tried = np.random.default_rng(size), 0, 200
    levels = np.concatenate([np.full(size, 0.4), np.full(3, 0.55), np.full(4, 0.65)])
    for _ in range(tried):
        found = noise_data(probes(levels, rng, sd=1.5), FREE, EDGES)
        quantile = student.ppf(0.95, found.freedom[0])
        away = abs(found.estimate[0, 2] - SIGNAL)
        hits += away < quantile * np.sqrt(found.covariance[0, 2, 2])
    assert 0.84 <= hits / tried <= 0.97


def test_large_batches_count_for_more():
    samples = np.array([32.0, 32.0, 32.0, 320.0])
    table = probes(np.full(4, 0.4), samples=samples).assign(g_sq=[1.0, 1.0, 1.0, 3.0])
    assert noise_data(table, FREE, EDGES).estimate[0, 2] == pytest.approx(3.0, abs=0.1)


def test_too_few_probes_are_refused_with_a_remedy():
    with pytest.raises(CBSDataError, match="too few to tell their scatter; probe more"):
        noise_data(probes(np.array([0.4, 0.41, 0.55, 0.56])), FREE, EDGES)
    nothing = probes(np.full(5, 0.4)).assign(tr_between=np.nan, tr_sigma=np.nan)
    with pytest.raises(CBSDataError, match="no probe of gradient noise has numerators"):
        noise_data(nothing, FREE, EDGES)


def snapshots(levels):
    n = len(levels)
    return pd.DataFrame({"level": levels, "n_rollouts": 8, "g_sq": np.linspace(2.0, 1.0, n),
                         "g_sq_se": 0.3, "tr_between": BETWEEN, "tr_between_se": 4.0,
                         "tr_within": WITHIN, "tr_within_se": 8.0})


def test_snapshots_are_averaged_with_their_standard_errors():
    found = noise_data(snapshots([0.3, 0.4, 0.65, 0.95]), FREE, EDGES)
    assert found.n_probes.tolist() == [2, 0, 1]
    assert found.n_runs == 0
    assert np.sqrt(found.covariance[0, 2, 2]) == pytest.approx(0.3 / np.sqrt(2))
    assert np.sqrt(found.covariance[2, 1, 1]) == pytest.approx(8.0 * 7 / 8)
    assert found.estimate[0, 1] == pytest.approx(WITHIN * 7 / 8)


def test_snapshots_that_cannot_be_used_are_refused():
    with pytest.raises(CBSDataError, match="has no column 'tr_within_se'"):
        noise_data(snapshots([0.4]).drop(columns="tr_within_se"), FREE, EDGES)
    with pytest.raises(CBSDataError, match="use a two_axis law"):
        noise_data(snapshots([0.4]), TOTAL, EDGES)
    with pytest.raises(CBSDataError, match="no snapshot"):
        noise_data(snapshots([0.9]), FREE, EDGES)
    assert set(SNAPSHOT_COLUMNS) <= set(snapshots([0.4]).columns)
