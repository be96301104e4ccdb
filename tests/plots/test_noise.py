"""Logged gradient noise: a line per run that logged, and what cannot stand on a log axis."""

from __future__ import annotations

import pytest
from drawn import lines, texts

from cbsbayes import plots
from cbsbayes.errors import CBSDataError


def test_one_line_per_run_that_logged(fit):
    ax = plots.plot_gradient_noise(fit)
    assert len(lines(ax, "run")) == 14
    assert ax.get_ylabel() == "B_noise estimate (samples)"


def test_values_that_are_not_positive_are_counted(fit):
    sweep = fit.sweep.copy(deep=True)
    sweep["noise_B_noise_estimate"][0, :3] = -5.0
    assert "3 values ≤ 0 not shown" in texts(plots.plot_gradient_noise(sweep))


def test_reasons(fit, one_axis):
    with pytest.raises(CBSDataError, match="no gradient noise was logged"):
        plots.plot_gradient_noise(one_axis)
    with pytest.raises(CBSDataError, match="'noise_x' was not logged; logged: noise_B_noise"):
        plots.plot_gradient_noise(fit, variable="noise_x")
