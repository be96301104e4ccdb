"""Estimates side by side: points are tables' medians, bounds are never points."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawn import legend, points, texts, title
from fitted import changed

from cbsbayes import plots
from cbsbayes.errors import CBSDataError


def test_critical_batches_of_both_laws(fit):
    ax = plots.plot_cbs_against_threshold(fit, axis="prompts")
    own, *others = (table[(table["quantity"] == "cbs_prompts") & (table["at"] == "n_rollouts=8")
                          & (table["status"] == "identified")]["median"].tolist()
                    for table in (fit.cbs, *fit.others.values()))
    drawn = [line for line in ax.lines if line.get_gid() == "estimate"]
    assert len(drawn) == len(own) + sum(map(len, others)) > len(own) > 0
    filled = [line.get_ydata()[0] for line in drawn if line.get_markerfacecolor() != "#ffffff"]
    np.testing.assert_allclose(filled, own)
    assert {fit.law.name, *fit.others} <= {text.partition(",")[0] for text in legend(ax)}


def test_bounds_are_triangles_and_never_points(fit):
    cbs = fit.cbs[fit.cbs["quantity"] == "cbs_rollouts"]
    status = ["upper_bound", "lower_bound", "not_identified", *["identified"] * (len(cbs) - 3)]
    cbs = cbs.assign(status=status, ci_lower=2.0, ci_upper=9.0, median=4.0)
    alone = changed(fit, table_cbs=cbs, **{f"table_other_{name}": None for name in fit.others})
    ax = plots.plot_cbs_against_threshold(alone, axis="rollouts")
    assert points(ax, "upper_bound").tolist() == [[0.0, 9.0]]
    assert points(ax, "lower_bound").tolist() == [[1.0, 2.0]]
    assert len(points(ax, "estimate")) == len(cbs) - 3
    assert {"upper bound only", "lower bound only", "not identified"} <= set(legend(ax))


def test_what_is_not_in_the_tables_is_a_reason(one_axis, fit):
    with pytest.raises(CBSDataError, match="no critical batch size along total"):
        plots.plot_cbs_against_threshold(changed(one_axis, table_cbs=one_axis.cbs.iloc[:0], **{
            f"table_other_{name}": None for name in one_axis.others}))
    with pytest.raises(CBSDataError, match="nothing to compare along prompts"):
        plots.plot_comparison(changed(fit, table_comparison=fit.comparison.iloc[:0]))


def test_methods_stand_side_by_side_and_estimates_far_off_at_the_edge(fit):
    table = fit.comparison[(fit.comparison["axis"] == "prompts")
                           & (fit.comparison["at"] == "n_rollouts=8")].reset_index(drop=True)
    table[["B_noise", "ci_lower", "ci_upper"]] = [90.0, 60.0, 150.0]
    first, second = table.index[table["method"] == "log_least_squares"][:2]
    table.loc[first, ["B_noise", "ci_lower", "ci_upper"]] = [1e-9, 0.0, 1e3]
    table.loc[second, ["B_noise", "ci_upper"]] = np.inf
    ax = plots.plot_comparison(changed(fit, table_comparison=table), axis="prompts")
    assert legend(ax) == ["least squares", "log least squares", "posterior"]
    assert len(points(ax, "estimate")) == len(table) - 2
    assert len(points(ax, "upper_bound")) == len(points(ax, "lower_bound")) == 1
    low, high = ax.get_ylim()
    assert all(low < y < high for gid in ("estimate", "upper_bound", "lower_bound")
               for y in points(ax, gid)[:, 1])


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
