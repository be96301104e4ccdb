"""The clock's figures: what is marked, hatched and drawn as a band."""

from __future__ import annotations

import numpy as np
import pytest
from cbsbayes.plots.time_cost import front_of_draws
from matplotlib.patches import Rectangle
from timed_sweeps import timed_fit

from cbsbayes import plots
from cbsbayes.decisions.time_to_target import TYPICAL, Machine, times_of
from cbsbayes.errors import CBSDataError


@pytest.fixture(scope="module")
def fit():
    return timed_fit()


@pytest.fixture(scope="module")
def times(fit):
    return times_of(fit, Machine((8, 64)))


@pytest.fixture(autouse=True)
def closed():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def with_gid(ax, gid):
    return [artist for artist in ax.get_children() if artist.get_gid() == gid]


def test_the_map_marks_what_was_tried_and_hatches_what_was_not(fit, times):
    ax = plots.plot_clock_map(fit, times=times)
    assert len(with_gid(ax, "tried")) == (times.range == "tried").sum()
    hatched = [p for p in with_gid(ax, "extrapolated") if isinstance(p, Rectangle)]
    assert len(hatched) == (times.range == "extrapolated").sum()
    assert all(p.get_hatch() for p in hatched)


def test_the_map_shows_the_median_time_of_each_batch(fit, times):
    level = float(fit.thresholds[0])
    ax = plots.plot_clock_map(fit, times=times, threshold=level)
    shown, = (np.asarray(image.get_array()) for image in ax.images)
    median = np.median(times.hours[TYPICAL][:, 0, :, 0], axis=0)
    prompts, rollouts = (np.unique(times.batches[:, axis]) for axis in (0, 1))
    ratio = shown.T.ravel() / median
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-2)
    assert shown.shape == (len(rollouts), len(prompts))
    assert "GPU-hours" in " ".join(text.get_text() for text in ax.texts)


def test_without_gpus_the_map_has_lines_of_samples(fit):
    ax = plots.plot_clock_map(fit)
    texts = " ".join(text.get_text() for text in ax.texts)
    assert "samples" in texts
    assert "GPU" not in texts


def test_the_front_is_the_least_time_for_a_cost():
    cost = np.array([[1.0, 2.0, 4.0]])
    time = np.array([[9.0, 3.0, 5.0]])
    front = front_of_draws(cost, time, np.array([0.5, 1.0, 2.5, 9.0]))
    assert front.tolist() == [[np.inf, 9.0, 3.0, 3.0]]


def test_time_and_cost_are_open_where_they_are_extrapolated_or_bounds(fit, times):
    ax = plots.plot_time_cost(fit, times=times)
    assert len(with_gid(ax, "batch")) == times.inside.sum()
    assert len(with_gid(ax, "open")) == 2 * len(times.batches) - times.inside.sum()
    assert ax.get_xlabel() == "GPU-hours to the target"
    assert len(with_gid(ax, "front-band")) == 1


def test_on_one_number_of_gpus_the_cost_is_samples(fit):
    assert plots.plot_time_cost(fit).get_xlabel() == "Samples to the target"


def test_step_times_have_the_model_beside_them(fit):
    ax = plots.plot_step_time(fit)
    assert with_gid(ax, "clock")
    assert len(with_gid(ax, "clock")) == len(with_gid(ax, "clock-band"))


def test_one_axis_has_no_map_but_times():
    fit = timed_fit("p1", one_axis=True)
    with pytest.raises(CBSDataError, match="total batches only"):
        plots.plot_clock_map(fit)
    assert plots.plot_time_cost(fit).get_ylabel().startswith("Time to the target")
