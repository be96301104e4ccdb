"""A plan in words: what is planned, and what to doubt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fit_fixture import make_fit

from cbsbayes.decisions.candidates import Request, TriedRuns
from cbsbayes.decisions.information import PlannedQuantity
from cbsbayes.decisions.next_runs import Plan
from cbsbayes.decisions.step_times import sample_cost
from cbsbayes.report.facts import Facts
from cbsbayes.report.plan import candidates_table, plan_notes, plan_sentences


@pytest.fixture
def plan():
    """A plan of three batches, the third not resolved, the first chosen twice."""
    table = pd.DataFrame({
        "rank": [1, 2, 3], "n_prompts": [32.0, 64, 32], "n_rollouts": [8.0, 8, 4],
        "updates": 100.0, "seed": 1, "cost": [25600.0, 51200, 12800], "cost_lower": np.nan,
        "cost_upper": np.nan, "cost_range": "", "runs_tried": [2, 0, 1],
        "extrapolated": [False, True, False], "reach": 0.9, "information": [0.2, 0.3, 0.001],
        "information_error": 0.01, "resolved": [True, True, False], "width_ratio": 0.8,
        "effective_draws": 500.0, "chosen": [2, 0, 0]})
    table["total_batch"] = table["n_prompts"] * table["n_rollouts"]
    table["per_cost"] = table["information"] / table["cost"]
    table["per_cost_error"] = table["information_error"] / table["cost"]
    runs = table.iloc[[0, 0]].assign(order=[1, 2], added=[0.2, 0.1], added_error=0.01,
                                     together=[0.2, 0.3], together_error=0.01,
                                     width_ratio=np.exp([-0.2, -0.3]),
                                     cost_so_far=[25600.0, 51200.0])
    quantity = PlannedQuantity("cbs_prompts", "n_rollouts=8", "prompts", 0.9,
                               np.array([20.0, 22.0, 25.0]), "identified")
    tried = TriedRuns(np.array([(32.0, 8.0)]), np.array([1]), 25.0, 600.0)
    return Plan(table, runs.reset_index(drop=True), quantity, tried, sample_cost(),
                Request(runs=2, budget=60000), 0.9)


def notes(plan):
    return " ".join(plan_notes(plan, Facts(make_fit())))


def test_sentences_say_what_is_planned(plan):
    text = " ".join(plan_sentences(plan))
    assert text.startswith("Next: n_prompts 32, n_rollouts 8, 100 updates, seed 1 (25,600 samples)")
    assert "Prompt CBS at 8 rollouts, threshold 0.9: 22" in text
    assert "narrows the interval by 18" in text
    assert "Together the 2 runs cost 51,200 samples and say 0.3 ±" in text
    alone = " ".join(plan_sentences(replace(plan, runs=plan.runs.head(1))))
    assert "The budget has room for one run, not for 2." in alone
    bound = replace(plan, quantity=replace(plan.quantity, status="upper_bound"))
    assert "only its upper end is known" in " ".join(plan_sentences(bound))


def test_notes_say_what_to_doubt(plan):
    text = notes(plan)
    assert "less than twice their Monte Carlo error stand last: 1." in text
    assert "outside the range tried" not in text
    doubt = replace(plan, runs=plan.runs.assign(extrapolated=True, effective_draws=12.0))
    assert "outside the range tried" in notes(doubt)
    assert "Rough: the set leaves 12 effective draws" in notes(doubt)
    untimed = replace(plan, runs=plan.runs.assign(cost_range="extrapolated"))
    assert "step time of a planned batch is extrapolated" in notes(untimed)
    assert "No candidate says anything" in notes(
        replace(plan, table=plan.table.assign(resolved=False)))


def test_the_unit_of_a_price_is_one_to_read(plan):
    assert candidates_table(plan).columns[-1].label == "nats per 10^6 samples"
    nothing = replace(plan, table=plan.table.assign(per_cost=0.0))
    assert candidates_table(nothing).columns[-1].label == "nats per samples"
