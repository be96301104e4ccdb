"""What runs logged: training curves, gradient noise, step times."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import legend, lines, points, texts
from fitted import changed

from cbsbayes import plots
from cbsbayes.errors import CBSDataError
from cbsbayes.simulation.noise import with_gradient_noise
from cbsbayes.simulation.sweep import simulate_sweep


@pytest.fixture(scope="module")
def probed():
    """A sweep whose runs logged gradient noise."""
    return with_gradient_noise(simulate_sweep("p1", 1))


def test_seeds_means_and_thresholds(fit):
    ax = plots.plot_training_curves(fit, phase="p2b")
    means = lines(ax, "mean")
    assert len(lines(ax, "seed")) == len(means) == len(legend(ax)) == 7
    assert len(lines(ax, "threshold")) == len(fit.thresholds)
    assert [mean.is_dashed() for mean in means] == [True, *[False] * 6]  # one rollout first
    assert not lines(plots.plot_training_curves(fit.sweep, phase="p2b"), "threshold")


def test_a_mean_stops_where_a_seed_stops_and_unusable_runs_are_left_out(fit):
    sweep = fit.sweep.sel(run=fit.sweep["phase"] == "p1").copy(deep=True)
    sweep["accuracy"][0, 0, sweep["step"].values > 100] = np.nan
    ax = plots.plot_training_curves(sweep)
    assert lines(ax, "mean")[0].get_xdata().max() == 100.0
    assert len(lines(ax, "seed")) == int(sweep["usable"].sum()) < sweep.sizes["run"]


@pytest.mark.parametrize(("options", "match"), [
    ({"phase": "p9"}, "no evaluated runs of phase p9; phases in the sweep: p1, p2b"),
    ({"metric": "math"}, "no metric 'math'; choose one of: simulated/accuracy")])
def test_bad_options_have_reasons(fit, options, match):
    with pytest.raises(CBSDataError, match=match):
        plots.plot_training_curves(fit, **options)


def test_what_was_not_logged_has_a_reason(fit, probed):
    for plot, given, options, message in (
            (plots.plot_training_curves, fit.sweep.drop_vars("accuracy"), {}, "no training curves"),
            (plots.plot_gradient_noise, fit, {}, "no gradient noise was logged"),
            (plots.plot_gradient_noise, probed, {"variable": "noise_x"},
             "'noise_x' was not logged; logged: noise_g_sq"),
            (plots.plot_step_time, changed(fit, sweep=fit.sweep.assign(
                step_time=fit.sweep["step_time"] * np.nan)), {},
             "no step time is known in any run")):
        with pytest.raises(CBSDataError, match=message):
            plot(given, **options)


def test_one_line_per_run_that_logged_and_values_not_positive_are_counted(probed):
    ax = plots.plot_gradient_noise(probed)
    assert len(lines(ax, "run")) == probed.sizes["run"]
    assert ax.get_ylabel() == "|G|², unbiased"
    hidden = int((probed["noise_g_sq"] <= 0).sum())
    assert f"{hidden} values ≤ 0 not shown" in texts(ax)
    assert hidden > 0


def test_every_timed_run_is_a_point_and_every_group_size_a_line(timed):
    ax = plots.plot_step_time(timed)
    shown = points(ax, "step-time")
    runs = np.stack([timed.sweep["total_batch"], timed.sweep["step_time"]]).T
    np.testing.assert_allclose(shown, runs[np.lexsort(runs.T[::-1])])
    assert lines(ax, "median")
    assert ax.get_ylabel() == "Seconds per trainer step"
