"""The diagnostics of many columns at once: a number each, and none where nothing can be said."""

from __future__ import annotations

import numpy as np

from cbsbayes.inference.diagnostics import convergence


def test_chains_that_disagree_in_place_or_in_width():
    draws = np.random.default_rng(1).normal(size=(4, 400, 3))
    draws[0, :, 0] += 1.5
    draws[0, :, 1] *= 4.0
    found = convergence(draws)
    assert (found.r_hat[:2] > 1.05).all()
    assert found.r_hat[2] < 1.01
    assert found.ess_bulk[2] > 1000


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
