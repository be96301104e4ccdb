"""The figure of a plan shows every batch, what is planned, and what is marked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from drawn import points, texts, title

from cbsbayes.decisions.candidates import Request, TriedRuns
from cbsbayes.decisions.information import PlannedQuantity
from cbsbayes.decisions.next_runs import Plan
from cbsbayes.decisions.step_times import sample_cost
from cbsbayes.plots import plot_plan

QUANTITY = PlannedQuantity("cbs_prompts", "n_rollouts=8", "prompts", 0.9,
                           np.array([20.0, 22.0, 25.0]), "identified")


def made(one_axis=False, **changes):
    """Return a plan of four batches, the last beyond the budget, the third not resolved."""
    rollouts = [1, 1, 1, 1] if one_axis else [8, 8, 4, 16]
    table = pd.DataFrame({
        "rank": [1, 2, 3, 4], "n_prompts": [32.0, 64, 32, 64],
        "n_rollouts": np.array(rollouts, float), "updates": [100.0] * 4, "seed": [1] * 4,
        "cost": [25600.0, 51200, 12800, 102400], "cost_lower": np.nan,
        "cost_upper": np.nan, "cost_range": "", "runs_tried": [2, 0, 1, 9],
        "extrapolated": [False, True, False, False], "reach": [0.9] * 4,
        "information": [0.2, 0.3, 0.001, 0.4], "information_error": [0.01] * 4,
        "resolved": [True, True, False, True], "effective_draws": [500.0] * 4,
        "affordable": [True, True, True, False], "chosen": [2, 0, 0, 0]})
    if one_axis:
        table["n_prompts"] = [32.0, 64, 128, 256]
    table["total_batch"] = table["n_prompts"] * table["n_rollouts"]
    table["per_cost"] = table["information"] / table["cost"]
    table["per_cost_error"] = table["information_error"] / table["cost"]
    first = table.iloc[[0, 0]].assign(order=[1, 2], added=[0.2, 0.1], added_error=0.01,
                                      together=[0.2, 0.3], together_error=0.01,
                                      width_ratio=np.exp([-0.2, -0.3]),
                                      cost_so_far=[25600.0, 51200.0])
    batches = np.array([(32.0, 1.0 if one_axis else 8.0)])
    tried = TriedRuns(batches, np.array([1]), 25.0, 600.0)
    whole = Plan(table, first.reset_index(drop=True), QUANTITY, tried, sample_cost(),
                 Request(runs=2, budget=60000), 0.9)
    return replace(whole, **changes)


def scattered(ax, gid):
    return sorted(tuple(xy) for c in ax.collections if c.get_gid() == gid
                  for xy in np.asarray(c.get_offsets()).tolist())


def test_every_batch_says_its_worth_its_length_and_its_runs():
    ax = plot_plan(made(), title="CBS")
    assert title(ax) == "CBS"
    said = texts(ax)
    assert "1.00\n100 updates" in said
    assert "~0\n100 updates" in said  # 32 × 4 is lost in its error
    assert "••" in said
    assert "1, 2" in said
    assert scattered(ax, "inside") == [(32.0, 4.0), (32.0, 8.0)]
    assert scattered(ax, "extrapolated") == [(64.0, 8.0)]
    assert points(ax, "beyond-budget").tolist() == [[64.0, 16.0]]
    assert points(ax, "planned").tolist() == [[32.0, 8.0]]


def test_one_axis_is_drawn_as_information_over_the_batch():
    ax = plot_plan(made(one_axis=True))
    assert ax.get_xlabel() == "Samples per update"
    assert scattered(ax, "inside")[0] == (32.0, 1.0)
    assert ax.get_ylabel() == "Information per price"
