"""Figures of a validation: what is drawn where, and the envelope's meaning."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from cbsbayes.validation.coverage import coverage_table
from cbsbayes.validation.figures import _band, plot_coverage, plot_ranks


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def ranks(n, power=1.0):
    rng = np.random.default_rng(2)
    return pd.DataFrame({"quantity": "q", "threshold": 0.6, "pit": rng.random(n) ** power})


def test_coverage_is_drawn_a_panel_per_quantity_and_a_line_at_the_nominal():
    rows = pd.DataFrame([
        {"method": method, "quantity": quantity, "threshold": 0.6, "sweep": sweep, "truth": 0.0,
         "estimate": 0.0, "lower": -1.0, "upper": 1.0 if sweep % 2 else -0.5}
        for method in ("posterior", "log_fit_t") for quantity in ("S_min", "alpha")
        for sweep in range(4)])
    table = pd.concat([coverage_table(rows).assign(family=name) for name in ("base", "hill")])
    figure = plot_coverage(table, "family")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["S_min", "alpha"]
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["base", "hill"]
    at = [line.get_xdata() for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(at, [[0.5, 0.5]] * 2)
    assert any(line.get_xdata()[0] == 0.9 for line in ax.lines if len(line.get_xdata()) == 2)


@pytest.mark.parametrize(("power", "inside"), [(1.0, True), (2.0, False)])
def test_uniform_ranks_stay_inside_the_envelope_and_others_do_not(power, inside):
    rows = ranks(200, power)
    (ax,) = plot_ranks(rows).axes
    curve = ax.lines[0]
    at, lower, upper = _band(200)
    within = (curve.get_ydata() >= lower - at) & (curve.get_ydata() <= upper - at)
    assert within.all() == inside


def test_one_sweep_is_drawn_without_an_envelope():
    (ax,) = plot_ranks(ranks(1)).axes
    assert len(ax.lines) == 2
