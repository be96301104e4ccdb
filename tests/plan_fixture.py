"""A plan of four batches: the first chosen twice, the third not resolved, the last too dear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import COLUMNS
from cbsbayes.decisions.candidates import Request, TriedRuns
from cbsbayes.decisions.information import PlannedQuantity
from cbsbayes.decisions.next_runs import Plan
from cbsbayes.decisions.step_times import Cost

QUANTITY = PlannedQuantity("cbs_prompts", "n_rollouts=8", "prompts", 0.9,
                           np.array([20.0, 22.0, 25.0]), "identified")


def make_plan(one_axis=False, **changes):
    table = pd.DataFrame({
        "rank": [1, 2, 3, 4], "n_prompts": [32.0, 64, 128, 256] if one_axis else [32.0, 64, 32, 64],
        "n_rollouts": [1.0] * 4 if one_axis else [8.0, 8, 4, 16], "learning_rate": 1e-6,
        "updates": 100.0, "seed": 1,
        "cost": [25600.0, 51200, 12800, 102400], "cost_lower": np.nan, "cost_upper": np.nan,
        "cost_range": "", "runs_tried": [2, 0, 1, 9], "extrapolated": [False, True, False, False],
        "reach": 0.9, "information": [0.2, 0.3, 0.001, 0.4], "information_error": 0.01,
        "resolved": [True, True, False, True], "width_ratio": 0.8, "effective_draws": 500.0,
        "affordable": [True, True, True, False], "chosen": [2, 0, 0, 0]})
    table["total_batch"] = table["n_prompts"] * table["n_rollouts"]
    table["per_cost"] = table["information"] / table["cost"]
    table["per_cost_error"] = table["information_error"] / table["cost"]
    runs = table.iloc[[0, 0]].assign(
        order=[1, 2], added=[0.2, 0.1], added_error=0.01, together=[0.2, 0.3], together_error=0.01,
        width_ratio=np.exp([-0.2, -0.3]), cost_so_far=[25600.0, 51200.0])
    tried = TriedRuns(np.array([(32.0, 1.0 if one_axis else 8.0)]), np.array([1e-6]), np.array([1]),
                      25.0, 600.0)
    return replace(Plan(table, runs.reset_index(drop=True),
                        pd.DataFrame(columns=COLUMNS["second_rate"]), QUANTITY, tried,
                        Cost(), Request(runs=2, budget=60000), 0.9), **changes)
