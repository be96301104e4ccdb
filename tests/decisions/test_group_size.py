"""The cheapest group size, with and without costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fitted import SETTINGS, quick_sampling

from cbsbayes.decisions.group_size import Costs, check_costs, group_size_table
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.tidy import CBS_COLUMNS
from cbsbayes.simulation.sweep import simulate_sweep


def test_without_costs_it_is_the_table_of_the_fit(fit):
    table = group_size_table(fit)
    assert list(table.columns) == CBS_COLUMNS
    same = fit.cbs[fit.cbs["quantity"] == "best_n_rollouts"].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, same)


def test_costs_are_met_at_the_least_cost(fit):
    """The formula is where N(G)/P is least at a fixed P (c_p + c_r G)."""
    table = group_size_table(fit, Costs(6.0, 2.0))
    rows = table[table["quantity"] == "best_n_rollouts_at_cost"]
    assert (rows["at"] == "prompt_over_rollout=3").all()
    draws = fit.posterior.isel(threshold=0)
    ratio = float((draws["B_rollout"] / draws["B_prompt"]).median())  # all that the best depends on
    grid = np.linspace(1.01, 60, 200_000)
    noise = get_law("two_axis").noise_in_prompts(grid, 1.0, ratio)
    best = grid[np.argmin(noise * (6.0 + 2.0 * grid))]
    assert rows["median"].iloc[0] == pytest.approx(best, rel=1e-3)
    assert rows["median"].iloc[0] > table["median"].iloc[0]


def test_a_plain_law_has_a_size_only_with_costs(sweep):
    with quick_sampling():
        plain = fit_sweep(sweep, law="two_axis_free_plain", sampler=SETTINGS, alternatives=False)
    assert group_size_table(plain).empty
    table = group_size_table(plain, Costs(1e-9, 1.0))
    assert set(table["quantity"]) == {"best_n_rollouts_at_cost"}
    draws = plain.posterior["B_rollout"] / plain.posterior["B_prompt"]
    dear = group_size_table(plain, Costs(4.0, 1.0))
    assert dear["median"].iloc[0] == pytest.approx(
        float(np.sqrt(4.0 * draws.isel(threshold=0).median())), rel=1e-6)


def test_one_axis_settles_none(prompts_sweep):
    with quick_sampling():
        total = fit_sweep(prompts_sweep, sampler=SETTINGS, alternatives=False)
        rollouts = fit_sweep(simulate_sweep("p2b", 1), sampler=SETTINGS, alternatives=False)
    assert group_size_table(total, Costs(1.0, 1.0)).empty
    table = group_size_table(rollouts, Costs(1.0, 1.0))
    assert (table["status"] == "not_identified").all()
    assert table[["median", "ci_lower", "ci_upper"]].isna().all(axis=None)


def test_costs_of_nothing_are_none():
    assert check_costs(None, None) is None
    assert check_costs(3.0, 2.0) == Costs(3.0, 2.0)
    assert Costs(3.0, 2.0).ratio == 1.5


@pytest.mark.parametrize(("prompt", "rollout", "said"), [
    (None, 1.0, "--rollout-cost was given without --prompt-cost; valid: both"),
    (1.0, None, "--prompt-cost was given without --rollout-cost; valid: both"),
    (0.0, 1.0, "--prompt-cost is 0; valid: positive"),
    (1.0, -2.0, "--rollout-cost is -2; valid: positive"),
    (float("nan"), 1.0, "--prompt-cost is nan"),
    (1.0, float("inf"), "--rollout-cost is inf")])
def test_costs_that_are_none(prompt, rollout, said):
    with pytest.raises(CBSDataError, match=said):
        check_costs(prompt, rollout)
