"""The diagnostics of many columns at once are arviz_stats' own, column by column."""

from __future__ import annotations

import numpy as np
import pytest
from arviz_stats.base import array_stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cbsbayes.inference.diagnostics import convergence


def reference(draws):
    columns = [np.ascontiguousarray(draws[:, :, k]) for k in range(draws.shape[2])]
    with np.errstate(all="ignore"):
        return np.array([[array_stats.rhat(c) for c in columns],
                         [array_stats.ess(c, method="bulk") for c in columns],
                         [array_stats.ess(c, method="tail", prob=(0.05, 0.95)) for c in columns]],
                        dtype=float)


def autoregressive(rng, shape, rho):
    noise = rng.normal(size=shape)
    out = noise.copy()
    for k in range(1, shape[1]):
        out[:, k] = rho * out[:, k - 1] + np.sqrt(1 - rho**2) * noise[:, k]
    return out


def check(draws):
    np.testing.assert_allclose(convergence(draws), reference(draws), rtol=1e-9)


@pytest.mark.parametrize("rho", [-0.9, -0.3, 0.0, 0.5, 0.95, 0.999])
@pytest.mark.parametrize(("chains", "draws"), [(4, 1000), (2, 50), (3, 501), (4, 4), (2, 7)])
def test_chains_of_any_memory(rho, chains, draws):
    rng = np.random.default_rng(draws)
    check(autoregressive(rng, (chains, draws, 5), rho))


def test_chains_that_disagree_in_place_or_in_width():
    draws = np.random.default_rng(1).normal(size=(4, 400, 2))
    draws[0, :, 0] += 1.5
    draws[0, :, 1] *= 4.0
    check(draws)
    assert (convergence(draws).r_hat > 1.05).all()


def test_heavy_tails_and_infinite_draws():
    draws = np.random.default_rng(2).standard_cauchy(size=(4, 300, 3))
    draws[1, 7, 0] = np.inf
    draws[2, 3:9, 1] = -np.inf
    check(draws)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(4, 120))
def test_ties(seed, chains, draws):
    check(np.random.default_rng(seed).integers(0, 4, size=(chains, draws, 3)).astype(float))


def test_draws_that_never_move_say_nothing_of_convergence():
    draws = np.zeros((4, 100, 2))
    draws[0, :, 1] = 1.0  # one chain stuck elsewhere
    found = convergence(draws)
    assert found.ess_bulk[0] == found.ess_tail[0] == 400
    assert np.isnan(found.r_hat[0])
    assert not found.r_hat[1] <= 1.01


def test_a_column_with_a_gap_is_not_judged_and_spoils_no_other():
    draws = np.random.default_rng(3).normal(size=(4, 200, 3))
    whole = np.array(convergence(draws))
    draws[2, 5, 1] = np.nan
    gap = np.array(convergence(draws))
    assert np.isnan(gap[:, 1]).all()
    np.testing.assert_array_equal(gap[:, [0, 2]], whole[:, [0, 2]])


def test_more_columns_than_are_worked_on_at_once():
    draws = np.random.default_rng(4).normal(size=(2, 60, 300))
    one_by_one = [np.array(convergence(draws[:, :, [k]])) for k in range(300)]
    np.testing.assert_allclose(convergence(draws), np.hstack(one_by_one), rtol=1e-12)


def test_too_few_draws_and_no_columns():
    assert np.isnan(convergence(np.zeros((2, 3, 1)))).all()
    assert np.shape(convergence(np.zeros((2, 50, 0)))) == (3, 0)
