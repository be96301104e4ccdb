"""What the crossing model is given: binding bounds only, log scale, no units."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import xarray as xr

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.errors import CBSDataError
from cbsbayes.models.crossing_data import FAR, crossing_data
from cbsbayes.models.laws import batch_axes, get_law
from cbsbayes.simulation.sweep import simulate_sweep

INF = np.inf
TOTAL, TWO_AXIS = get_law("total"), get_law("two_axis")


def crossings(bounds, thresholds, *, n_prompts=None, n_rollouts=8, direction="increasing", unit=1.0,
              batch_unit=1.0):
    """Return crossings as `find_crossings` gives them; NaN bounds are unusable."""
    bounds = np.asarray(bounds, dtype=float) * unit
    lower, upper = bounds[..., 0], bounds[..., 1]
    status = np.select([np.isnan(lower), np.isinf(upper), lower == 0], [-1, 2, 0], 1)
    n_runs = len(bounds)
    prompts = np.asarray(n_prompts if n_prompts is not None else 2 ** np.arange(4, 4 + n_runs))
    rollouts = np.broadcast_to(n_rollouts, n_runs)
    total = np.abs(prompts * rollouts) * batch_unit
    dims = ("run", "threshold")
    return xr.Dataset(
        {"lower": (dims, lower), "upper": (dims, upper), "status": (dims, status.astype(np.int8))},
        coords={"run": [f"r{k}" for k in range(n_runs)], "threshold": np.asarray(thresholds),
                "n_prompts": ("run", prompts), "n_rollouts": ("run", rollouts),
                "total_batch": ("run", total.astype(float))},
        attrs={"direction": direction})


def test_only_the_binding_bounds_of_curves_count():
    data = crossing_data(crossings(
        [[[0, 25], [0, 25], [50, 75], [600, INF], [600, INF]],     # two left, two right
         [[0, 25], [0, 25], [0, 25], [0, 25], [0, 25]],            # past all at once
         [[600, INF]] * 5,                                         # never past any
         [[np.nan] * 2, [0, 25], [25, 50], [50, 75], [75, 100]]],  # the first says nothing
        [0.5, 0.55, 0.6, 0.65, 0.7]), TWO_AXIS)
    np.testing.assert_array_equal(data.informative, np.array(
        [[0, 1, 1, 1, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 1, 1, 1, 1]], dtype=bool))


def test_a_bound_of_a_table_goes_only_where_another_is_as_tight():
    data = crossing_data(crossings(
        [[[0, 10], [0, 20], [100, INF], [80, INF]],
         [[0, 20], [0, 10], [80, INF], [100, INF]],
         [[10, 20]] * 4], [1.0, 2.0, 3.0, 4.0]), TWO_AXIS)
    np.testing.assert_array_equal(data.informative, np.array(
        [[1, 1, 1, 0], [0, 1, 1, 1], [1, 1, 1, 1]], dtype=bool))


def test_bounds_midpoints_and_links_by_hand():
    data = crossing_data(crossings(
        [[[0, 20], [20, 40], [40, 80], [80, INF]],
         [[10, 20], [np.nan, np.nan], [40, 80], [80, 160]]], [0.5, 0.6, 0.7, 0.8]), TWO_AXIS)
    middle = [np.log(20), np.log(800) / 2, np.log(3200) / 2, np.log(80), np.log(200) / 2,
              np.log(3200) / 2, np.log(12800) / 2]
    scale = np.mean(middle)
    assert data.log_steps_scale == pytest.approx(scale)
    np.testing.assert_allclose(data.log_lower[0], [-FAR, *np.log([20, 40, 80]) - scale])
    np.testing.assert_allclose(data.log_upper[0], [*np.log([20, 40, 80]) - scale, FAR])
    np.testing.assert_allclose(data.midpoint[0], [0, middle[1] - scale, middle[2] - scale, 0])
    np.testing.assert_allclose(data.log_lower[1, 1], -FAR)  # not measured: nothing known
    np.testing.assert_allclose(data.log_upper[1, 1], FAR)
    x = data.threshold_logit
    np.testing.assert_array_equal(data.previous, [[0, 0, 1, 2], [0, 0, 0, 2]])
    np.testing.assert_allclose(data.gap[0], [1e4, 1e4, x[2] - x[1], x[3] - x[2]])
    np.testing.assert_allclose(data.gap[1], [1e4, 1e4, x[2] - x[0], x[3] - x[2]])
    assert x.mean() == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(np.diff(x), np.diff(np.log([1, 1.5, 7 / 3, 4])))


def test_an_exact_crossing_gets_a_narrow_interval_around_it():
    data = crossing_data(crossings([[[100, 100]], [[50, 50]], [[25, 25]]], [0.5]), TWO_AXIS)
    np.testing.assert_allclose((data.log_upper - data.log_lower).ravel(), 2e-3)
    middle = (data.log_upper + data.log_lower).ravel() / 2 + data.log_steps_scale
    np.testing.assert_allclose(np.exp(middle), [100, 50, 25])
    assert data.informative.all()
    np.testing.assert_array_equal(data.threshold_logit, [0.0])
    assert (data.gap == 1e4).all()


def test_targets_that_fall_are_turned_from_easy_to_hard():
    data = crossing_data(crossings(
        [[[80, INF], [40, 80], [20, 40]]] * 2, [2.0, 3.0, 4.0], direction="decreasing"), TWO_AXIS)
    np.testing.assert_array_equal(data.threshold, [4.0, 3.0, 2.0])
    assert (np.diff(data.threshold_logit) > 0).all()
    # known crossings are a doubling apart; where no run crossed two, as far as elsewhere
    np.testing.assert_allclose(np.diff(data.threshold_logit), np.log(2.0))
    np.testing.assert_allclose(np.exp(data.log_upper[0, 0] + data.log_steps_scale), 40)
    np.testing.assert_array_equal(data.previous[0], [0, 0, 1])


@pytest.mark.parametrize("score", [lambda a: 3 * a - 2, lambda a: 100 * a, lambda a: 7 - 10 * a,
                                   lambda a: 5 * a - 40],
                         ids=["from -2 to 1", "percent", "falling", "negative"])
def test_the_unit_of_a_score_does_not_matter(score):
    sweep, targets = simulate_sweep("p1", 1), np.array([0.6, 0.64, 0.68, 0.72])
    rescaled = sweep.assign(accuracy=score(sweep["accuracy"]))
    if score(1.0) < score(0.0):
        rescaled.attrs["direction"] = "decreasing"
    other = sweep.assign(accuracy=10 * sweep["accuracy"])
    first, second = (crossing_data(find_crossings(ds, np.sort(of(targets))), TWO_AXIS)
                     for ds, of in ((rescaled, score), (other, lambda a: 10 * a)))
    for name in ("threshold_logit", "log_lower", "log_upper", "gap", "previous"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=1e-9)
    accuracy = crossing_data(find_crossings(sweep, targets), TWO_AXIS)
    np.testing.assert_allclose(first.log_upper, accuracy.log_upper, atol=1e-9)


def test_an_error_rate_is_as_hard_as_its_accuracy():
    sweep, targets = simulate_sweep("p1", 1), np.array([0.6, 0.65, 0.7])
    error = sweep.assign(accuracy=1 - sweep["accuracy"]).assign_attrs(direction="decreasing")
    first, second = (crossing_data(find_crossings(ds, at), TWO_AXIS)
                     for ds, at in ((sweep, targets), (error, np.sort(1 - targets))))
    np.testing.assert_allclose(first.threshold_logit, second.threshold_logit, atol=1e-12)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units_of_updates_and_batches_do_not_matter(unit):
    bounds = [[[0, 20], [20, 40], [40, 80]], [[10, 20], [21, 21], [80, INF]],
              [[np.nan] * 2, [7, 30], [30, 60]]]
    kwargs = {"thresholds": [0.5, 0.6, 0.7], "n_prompts": [-1, -1, -1], "n_rollouts": -1}
    one = crossing_data(crossings(bounds, **kwargs), TOTAL)
    other = crossing_data(crossings(bounds, unit=unit, batch_unit=unit, **kwargs), TOTAL)
    assert other.log_steps_scale - one.log_steps_scale == pytest.approx(np.log(unit))
    assert (other.log_batch_scale["B_noise"] - one.log_batch_scale["B_noise"]
            == pytest.approx(np.log(unit)))
    for name, value in asdict(one).items():
        if name not in ("log_steps_scale", "log_batch_scale", "n_prompts", "run", "noise"):
            np.testing.assert_allclose(getattr(other, name), value, rtol=1e-12, atol=1e-12)


def test_one_axis_data_have_the_total_batch_and_one_rollout():
    ds = crossings([[[10, 20]]] * 3, [0.5], n_prompts=[-1, -1, -1], n_rollouts=-1)
    ds["total_batch"] = ("run", [32.0, 64.5, 128.0])
    prompts, rollouts = batch_axes(ds)
    np.testing.assert_array_equal(prompts, [32.0, 64.5, 128.0])
    np.testing.assert_array_equal(rollouts, 1.0)


def test_middle_batches_of_each_law():
    ds = crossings([[[10, 20]]] * 2, [0.5], n_prompts=[16, 64], n_rollouts=[5, 3])
    assert crossing_data(ds, TOTAL).log_batch_scale == {
        "B_noise": pytest.approx(np.log(80 * 192) / 2)}
    assert crossing_data(ds, TWO_AXIS).log_batch_scale == {
        "B_prompt": pytest.approx(np.log(32)), "B_rollout": pytest.approx(np.log(64 * 128) / 2)}
    plain = crossing_data(ds, get_law("two_axis_plain")).log_batch_scale
    assert plain["B_rollout"] == pytest.approx(np.log(80 * 192) / 2)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(CBSDataError, match="no run says anything about any threshold given"):
        crossing_data(crossings([[[np.nan] * 2]] * 3, [0.5]), TWO_AXIS)
    single = crossings([[[10, 20]]] * 3, [0.5], n_rollouts=[1, 2, 4])
    with pytest.raises(CBSDataError, match=r"'two_axis' has no value at n_rollouts = 1; .*_plain"):
        crossing_data(single, TWO_AXIS)
    assert crossing_data(single, get_law("two_axis_plain")).informative.all()
