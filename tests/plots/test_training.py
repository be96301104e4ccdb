"""What runs logged: training curves, gradient noise, step times."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import legend, lines, points, texts

from cbsbayes import plots
from cbsbayes.errors import CBSDataError


def test_seeds_means_and_thresholds(fit):
    ax = plots.plot_training_curves(fit, phase="p2b")
    assert len(lines(ax, "seed")) == 12
    means = lines(ax, "mean")
    assert len(means) == len(legend(ax)) == 6
    assert len(lines(ax, "threshold")) == 4
    assert [mean.is_dashed() for mean in means] == [True, *[False] * 5]  # one rollout first
    assert not lines(plots.plot_training_curves(fit.sweep, phase="p2b"), "threshold")


def test_a_mean_stops_where_a_seed_stops_and_unusable_runs_are_left_out(fit):
    sweep = fit.sweep.sel(run=fit.sweep["phase"] == "p1").copy(deep=True)
    sweep["accuracy"][0, 0, sweep["step"].values > 100] = np.nan
    assert lines(plots.plot_training_curves(sweep), "mean")[0].get_xdata().max() == 100.0
    usable = sweep["usable"].copy()
    usable[1] = 0
    ax = plots.plot_training_curves(sweep.assign_coords(usable=usable))
    assert len(lines(ax, "seed")) == 13


@pytest.mark.parametrize(("options", "match"), [
    ({"phase": "p9"}, "no evaluated runs of phase p9; phases in the sweep: p1, p2b, p2c"),
    ({"metric": "math"}, "'math' is not in the sweep; metrics: tiny_add")])
def test_bad_options_have_reasons(fit, options, match):
    with pytest.raises(CBSDataError, match=match):
        plots.plot_training_curves(fit, **options)


def test_tables_of_crossings_have_no_curves(one_axis):
    with pytest.raises(CBSDataError, match="no training curves"):
        plots.plot_training_curves(one_axis)


def test_one_line_per_run_that_logged(fit):
    ax = plots.plot_gradient_noise(fit)
    assert len(lines(ax, "run")) == 14
    assert ax.get_ylabel() == "B_noise estimate (samples)"


def test_values_that_are_not_positive_are_counted(fit):
    sweep = fit.sweep.copy(deep=True)
    sweep["noise_B_noise_estimate"][0, :3] = -5.0
    assert "3 values ≤ 0 not shown" in texts(plots.plot_gradient_noise(sweep))


def test_reasons_of_gradient_noise(fit, one_axis):
    with pytest.raises(CBSDataError, match="no gradient noise was logged"):
        plots.plot_gradient_noise(one_axis)
    with pytest.raises(CBSDataError, match="'noise_x' was not logged; logged: noise_B_noise"):
        plots.plot_gradient_noise(fit, variable="noise_x")


def test_every_timed_run_is_a_point_and_every_group_size_a_line(timed):
    ax = plots.plot_step_time(timed)
    shown = points(ax, "step-time")
    runs = np.stack([timed.sweep["total_batch"], timed.sweep["step_time"]]).T
    np.testing.assert_allclose(shown, runs[np.lexsort(runs.T[::-1])])
    assert lines(ax, "median")
    assert ax.get_ylabel() == "Seconds per trainer step"


def test_without_step_times_there_is_a_reason(one_axis):
    with pytest.raises(CBSDataError, match="no step time is known in any run"):
        plots.plot_step_time(one_axis)
