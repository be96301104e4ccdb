"""Curves show crossings where they are, the posterior, least squares and critical batches."""

from __future__ import annotations

import re

import numpy as np
import pytest
from drawn import legend, lines, points, texts
from fitted import changed, labelled

from cbsbayes import plots
from cbsbayes.decisions.batches import find_row
from cbsbayes.errors import CBSDataError


@pytest.fixture(scope="module")
def level(fit):
    return float(fit.thresholds[2])


def test_every_crossing_of_the_cut_stands_at_its_batch_once_by_kind(fit, level):
    runs = fit.crossings.copy(deep=True)
    for run, ends in enumerate(((0.0, 25.0, 0), (600.0, np.inf, 2))):  # the first two along prompts
        for name, value in zip(("lower", "upper", "status"), ends, strict=True):
            runs[name].loc[{"threshold": level, "run": runs["run"][run]}] = value
    ax = plots.plot_steps(changed(fit, crossings=runs), threshold=level, axis="prompts")
    runs = runs.sel(threshold=level).isel(run=runs["n_rollouts"].values == 8)
    between = runs.isel(run=runs["status"].values == 1)
    expected = np.stack([between["n_prompts"], np.sqrt(between["lower"] * between["upper"])]).T
    np.testing.assert_allclose(points(ax, "crossing-interval"),
                               expected[np.lexsort(expected.T[::-1])])
    for code, gid, marker, value in ((0, "crossing-left", "v", 25),
                                     (2, "crossing-right", "^", 600)):
        assert len(points(ax, gid)) == int((runs["status"] == code).sum()) > 0
        (line,) = lines(ax, gid)
        assert (line.get_marker(), line.get_markerfacecolor()) == (marker, "#ffffff")
        assert value in line.get_ydata()


@pytest.mark.parametrize(("axis", "fixed"), [("prompts", 8), ("rollouts", 128)])
def test_lines_are_the_posterior_median_and_least_squares(fit, level, axis, fixed):
    ax = plots.plot_steps(fit, threshold=level, axis=axis)
    (median,) = lines(ax, "median")
    x = median.get_xdata()
    batch = (x, np.full_like(x, fixed)) if axis == "prompts" else (np.full_like(x, fixed), x)
    expected = np.exp(fit.log_steps(*batch, threshold=level)).median("sample")
    np.testing.assert_allclose(median.get_ydata(), expected)
    assert axis == "prompts" or x.min() == 2.0  # the law has no value below two rollouts
    (squares,) = lines(ax, "least-squares")
    row = fit.comparison[(fit.comparison["axis"] == axis) & (fit.comparison["threshold"] == level)
                         & (fit.comparison["method"] == "least_squares")].iloc[0]
    np.testing.assert_allclose(squares.get_ydata(),
                               row["S_min"] * (1 + row["B_noise"] / squares.get_xdata()))
    assert squares.is_dashed()


def test_one_threshold_has_two_bands_and_several_have_one_and_a_name_each(fit, level):
    one = {c.get_gid() for c in plots.plot_steps(fit, threshold=level).collections}
    ax = plots.plot_steps(fit)
    several = {c.get_gid() for c in ax.collections}
    assert {"band-50", "band-90"} <= one
    assert "band-90" in several
    assert "band-50" not in several
    assert texts(ax) == [f"≥ {t:g}" for t in fit.thresholds]
    heights = [text.get_position()[1] for text in ax.texts]
    assert (np.diff(heights) > 0.05).all()  # as high as a line of text
    assert len({line.get_color() for line in lines(ax, "median")}) == len(fit.thresholds)


def test_the_critical_batch_is_a_diamond_on_the_curve_and_a_bound_a_triangle(fit, level):
    ax = plots.plot_steps(fit, threshold=level, axis="prompts")
    row = find_row(fit.cbs, "cbs_prompts", level, "n_rollouts=8")
    ((x, y),) = points(ax, "estimate")
    (median,) = lines(ax, "median")
    assert x == row["median"]
    assert y == pytest.approx(np.interp(x, *median.get_xydata().T), rel=1e-2)
    assert "critical batch size" in legend(ax)
    for status, ends in (("lower_bound", [[10.0]]), ("not_identified", [])):
        cbs = fit.cbs.assign(status=status, ci_lower=10.0)
        ax = plots.plot_steps(changed(fit, table_cbs=cbs), threshold=level, axis="rollouts")
        assert points(ax, "lower_bound")[:, :1].tolist() == ends
        assert not len(points(ax, "estimate"))


def test_samples_are_updates_times_the_batch(fit, level):
    steps = plots.plot_steps(fit, threshold=level, axis="prompts")
    samples = plots.plot_samples(fit, threshold=level, axis="prompts")
    for gid in ("median", "least-squares", "crossing-interval"):
        s, e = points(steps, gid), points(samples, gid)
        np.testing.assert_allclose(e[:, 1], s[:, 1] * 8 * s[:, 0])
    assert plots.plot_samples(fit, ax=steps, threshold=level) is steps


def test_ticks_are_powers_of_two_or_decimal(fit, level):
    ax = plots.plot_steps(fit, threshold=level)
    ax.figure.canvas.draw()
    prompts = np.log2(ax.get_xticks())
    np.testing.assert_array_equal(prompts, prompts.round())
    assert {str(tick)[0] for tick in ax.get_yticks()} <= set("12357")
    assert "at 8 rollouts per prompt" in ax.get_xlabel()


def test_one_axis_data_is_drawn_along_the_total_batch(one_axis):
    ax = plots.plot_steps(labelled(one_axis, direction="decreasing"))
    assert len(points(ax, "crossing-interval")) == int((one_axis.crossings["status"] == 1).sum())
    assert texts(ax)[0] == f"≤ {one_axis.thresholds[0]:g}"
    with pytest.raises(CBSDataError, match="total batch only"):
        plots.plot_steps(one_axis, axis="prompts")


@pytest.mark.parametrize(("options", "match"), [
    ({"threshold": 0.123}, r"0\.123 was not fitted; fitted: 0\.\d+, "),
    ({"axis": "prompts", "fixed": 3}, "0 value of n_prompts at n_rollouts=3; two are needed"),
    ({"axis": "total"}, "prompts and rollouts are known"),
    ({"axis": "batch"}, "unknown axis 'batch'")])
def test_what_cannot_be_drawn_has_a_reason(fit, options, match):
    with pytest.raises(CBSDataError, match=match):
        plots.plot_steps(fit, **options)


def test_gains_are_ratios_at_the_batches_tried(fit, level):
    ax = plots.plot_gains(fit, threshold=level, axis="prompts")
    tried = points(ax, "tried")
    assert tried[:, 0].tolist() == [32, 128, 256, 512]  # 64 was not usable
    log_steps = [fit.log_steps(x, np.full_like(x, 8.0), threshold=level)
                 for x in (2 * tried[:, 0], tried[:, 0])]
    ratio = np.exp(log_steps[0] - log_steps[1]).median("sample")
    np.testing.assert_allclose(tried[:, 1], ratio)
    assert {"nothing bought", "half the updates"} <= set(texts(ax))


def test_the_pointer_is_told_steps_and_interval_at_every_batch_tried(fit, level):
    ax = plots.plot_steps(fit, threshold=level, axis="prompts")
    runs = fit.crossings
    tried = sorted(set(runs["n_prompts"].values[runs["n_rollouts"].values == 8].tolist()))
    tips = lines(ax, f"tip-{level}")
    assert [float(tip.get_xdata()[0]) for tip in tips] == tried
    low, middle, high = np.exp(fit.log_steps(tried, [8] * len(tried), level)).quantile(
        [0.05, 0.5, 0.95], "sample").values
    np.testing.assert_allclose([tip.get_ydata()[0] for tip in tips], middle)
    for k, tip in enumerate(tips):
        unit, _, numbers = tip.get_label()[1:].partition(f", ≥ {level:g}: ")
        assert unit.startswith(f"{tried[k]:g} ")
        found = [float(x.replace(",", "")) for x in re.findall(r"[\d.,]+", numbers)]
        assert found == pytest.approx([middle[k], low[k], high[k]], rel=0.01)
