"""Training curves: seeds thin, their mean thick, single rollouts dotted."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import legend, lines, title

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


def test_samples_are_updates_times_the_batch(fit):
    ax = plots.plot_training_curves(fit.sweep, phase="p1", against="samples")
    assert lines(ax, "mean")[0].get_xdata()[0] == 4.0 * 4 * 8
    assert ax.get_xscale() == "log"


def test_splits_of_one_total_batch(fit):
    ax = plots.plot_training_curves(fit, total_batch=256)
    assert len(lines(ax, "seed")) == int((fit.sweep["total_batch"] == 256).sum())
    assert title(ax) == "Training curves, total batch 256"
    assert len({mean.get_color() for mean in lines(ax, "mean")}) == len(lines(ax, "mean"))


@pytest.mark.parametrize(("options", "match"), [
    ({"phase": "p9"}, "no evaluated runs of phase p9; phases in the sweep: p1, p2b, p2c"),
    ({"against": "hours"}, "valid: updates, samples"),
    ({"metric": "math"}, "'math' is not in the sweep; metrics: tiny_add")])
def test_bad_options_have_reasons(fit, options, match):
    with pytest.raises(CBSDataError, match=match):
        plots.plot_training_curves(fit, **options)


def test_tables_of_crossings_have_no_curves(one_axis):
    with pytest.raises(CBSDataError, match="no training curves"):
        plots.plot_training_curves(one_axis)
