"""Estimates side by side: points are tables' medians, bounds are never points."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawn import legend, points, texts, title
from fit_fixture import make_fit, make_one_axis_fit

from cbsbayes import plots
from cbsbayes.errors import CBSDataError


def test_critical_batches_of_both_laws(fit):
    ax = plots.plot_cbs_against_threshold(fit, axis="prompts")
    assert len(points(ax, "estimate")) == 8
    filled = [line.get_ydata()[0] for line in ax.lines if line.get_gid() == "estimate"
              and line.get_markerfacecolor() != "#ffffff"]
    np.testing.assert_allclose(filled, fit.cbs.query("quantity == 'cbs_prompts'")["median"])
    assert {text.partition(",")[0] for text in legend(ax)} == {"two_axis_free", "two_axis"}


def test_bounds_are_triangles_and_never_points():
    alone = make_fit()
    alone.others = {}
    ax = plots.plot_cbs_against_threshold(alone, axis="rollouts")
    rows = alone.cbs.query("quantity == 'cbs_rollouts'").set_index("status")
    assert points(ax, "upper_bound")[:, 1].tolist() == [rows.loc["upper_bound", "ci_upper"]]
    assert points(ax, "lower_bound")[:, 1].tolist() == [rows.loc["lower_bound", "ci_lower"]]
    assert len(points(ax, "estimate")) == 1
    assert {"upper bound only", "lower bound only", "not identified"} <= set(legend(ax))


def test_a_missing_critical_batch_is_a_reason():
    empty = make_one_axis_fit()
    empty.cbs = empty.cbs.iloc[:0]
    with pytest.raises(CBSDataError, match="no critical batch size along total"):
        plots.plot_cbs_against_threshold(empty)


def test_methods_stand_side_by_side_and_estimates_far_off_at_the_edge():
    odd = make_fit()
    table = odd.comparison.copy()
    rows = (table["axis"] == "prompts") & (table["method"] == "log_least_squares")
    table.loc[table.index[rows][0], ["B_noise", "ci_lower", "ci_upper"]] = [1e-9, 0.0, 1e3]
    table.loc[table.index[rows][1], ["B_noise", "ci_upper"]] = np.inf
    odd.comparison = table
    ax = plots.plot_comparison(odd, axis="prompts")
    assert legend(ax) == ["least squares", "log least squares", "posterior"]
    assert len(points(ax, "estimate")) == 10
    assert len(points(ax, "upper_bound")) == len(points(ax, "lower_bound")) == 1
    low, high = ax.get_ylim()
    assert all(low < y < high for gid in ("estimate", "upper_bound", "lower_bound")
               for y in points(ax, gid)[:, 1])
    odd.comparison = table[table["axis"] == "total"]
    with pytest.raises(CBSDataError, match="nothing to compare along prompts"):
        plots.plot_comparison(odd, axis="prompts")


def compared(**changes):
    """Return a comparison of two fits at two targets."""
    row = {"first": "a", "second": "b $x$", "quantity": "B_prompt", "at": "", "unit": "prompts",
           "first_median": 20.0, "first_lower": 15.0, "first_upper": 30.0,
           "first_status": "identified", "second_median": 40.0, "second_lower": 30.0,
           "second_upper": 60.0, "second_status": "upper_bound", "ratio": 0.5, "ratio_lower": 0.3,
           "ratio_upper": 0.8, "status": "identified"} | changes
    return pd.DataFrame([row | {"threshold": level} for level in (0.5, 0.7)])


def test_a_forest_has_values_and_ratios_of_every_quantity():
    figure = plots.plot_forest(compared(), {"Noise scale": ("B_prompt", ""), "gone": ("x", "")})
    left, right = figure.axes
    assert title(left) == "Noise scale"
    assert points(left, "estimate")[:, 0].tolist() == [20.0, 20.0]
    assert points(left, "upper_bound")[:, 0].tolist() == [60.0, 60.0]
    assert points(right, "estimate")[:, 0].tolist() == [0.5, 0.5]
    assert legend(left) == ["a", r"b \$x\$"]
    unlike = plots.plot_forest(compared(status="not_comparable"), {"B": ("B_prompt", "")})
    assert texts(unlike.axes[1]) == ["laws differ: not compared"]
    with pytest.raises(CBSDataError, match="none of the quantities"):
        plots.plot_forest(compared(), {"gone": ("x", "")})
