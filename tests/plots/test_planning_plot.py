"""The figure of a plan shows the plan: every batch, what is planned, what is marked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from cbsbayes.decisions.candidates import TriedRuns
from cbsbayes.decisions.costs import sample_cost
from cbsbayes.decisions.plan_target import Target
from cbsbayes.decisions.planner import Plan, Request
from cbsbayes.plots import plot_plan
from cbsbayes.plots.style import detached
from cbsbayes.report.plan_words import per_cost_unit, sentences

TARGET = Target("cbs_prompts", "n_rollouts=8", "prompts", 0.9, np.log([20.0, 22.0, 25.0]), True,
                "identified")


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
    tried = TriedRuns(((32.0, 8.0),), (1,), one_axis, 25.0, 600.0)
    whole = Plan(table, first.reset_index(drop=True), TARGET, tried, sample_cost(),
                 Request(runs=2, budget=60000), 0.9)
    return replace(whole, **changes)


@pytest.fixture(autouse=True)
def _no_pyplot():
    with detached():
        yield


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_every_batch_says_its_worth_its_length_and_its_runs():
    ax = plot_plan(made())
    assert [label.get_text() for label in ax.get_xticklabels()] == ["32", "64"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["4", "8", "16"]
    said = texts(ax)
    assert "7.81" in said  # .2 nats for 25,600 samples, per million
    assert said.count("~0") == 1
    assert said.count("beyond\nbudget") == 1
    assert said.count("100 updates") == 3
    assert "••" in said
    assert "1, 2" in said


def test_batches_outside_are_hatched_and_planned_ones_framed():
    ax = plot_plan(made())
    patches = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    hatched = [patch for patch in patches if patch.get_hatch()]
    assert [patch.get_xy() for patch in hatched] == [(0.5, 0.5)]  # 64 × 8
    framed = [patch for patch in patches if patch.get_linewidth() > 2]
    assert [patch.get_xy() for patch in framed] == [(-0.47, 0.53)]


def test_colours_are_of_what_is_resolved_only():
    grid = plot_plan(made()).images[0].get_array()
    assert grid.shape == (3, 2)
    assert np.ma.getmaskarray(np.ma.masked_invalid(grid))[0].all()  # 32 × 4 is lost in its error


def test_one_axis_is_drawn_as_points():
    ax = plot_plan(made(one_axis=True))
    assert ax.get_xlabel() == "Batch size B (samples per update)"
    assert not ax.images
    x = ax.containers[0].lines[0].get_xdata()
    assert list(x) == [32, 64, 128, 256]


def test_the_unit_is_one_to_read():
    assert per_cost_unit(made()) == (1e6, "nats per 10^6 samples")
    none = made()
    assert per_cost_unit(replace(none, table=none.table.assign(per_cost=0.0)))[0] == 1.0


def test_sentences_say_what_is_planned_and_what_to_doubt():
    said = " ".join(sentences(made()))
    assert "Prompt CBS at 8 rollouts, threshold 0.9: 22 (" in said
    assert "Next: n_prompts 32, n_rollouts 8, 100 updates, seed 1 (25,600 samples): 0.2 ±" in said
    assert "narrows the interval by 18 %" in said
    assert "Together the 2 runs cost 51,200 samples and tell 0.3 ±" in said
    assert "less than twice their Monte Carlo error stand last: 1." in said
    assert "outside the ranges tried" not in said
    base = made()
    doubt = replace(base, runs=base.runs.assign(extrapolated=True, effective_draws=12.0))
    said = " ".join(sentences(doubt))
    assert "outside the ranges tried" in said
    assert "Rough: the set leaves 12 effective draws" in said
    assert "step time of a planned batch is extrapolated" not in said
    untimed = replace(base, runs=base.runs.assign(cost_range="extrapolated"),
                      cost=replace(base.cost, notes=("the clock misses a batch.",)))
    said = " ".join(sentences(untimed))
    assert "step time of a planned batch is extrapolated" in said
    assert "the clock misses a batch." in said
    alone = " ".join(sentences(replace(base, runs=base.runs.head(1))))
    assert "The budget has room for one run, not for 2." in alone
    nothing = replace(base, table=base.table.assign(resolved=False))
    assert "No candidate tells anything" in " ".join(sentences(nothing))
