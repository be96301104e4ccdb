"""The maps show what was tried, what pays, the best split and the batch advised."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import legend, lines, texts, title

from cbsbayes import plots
from cbsbayes.decisions.batches import middle_threshold
from cbsbayes.decisions.time_to_target import HOURS, times_of
from cbsbayes.errors import CBSDataError
from cbsbayes.plots.marks import tips_of
from cbsbayes.plots.style import plain_number
from cbsbayes.posterior.surface import steps_ratio


def contours(ax, colour):
    """Return the segments of the contour lines of a colour."""
    from matplotlib.colors import to_hex
    from matplotlib.contour import ContourSet

    return [(level, segment) for lines in ax.collections if isinstance(lines, ContourSet)
            and not lines.filled and to_hex(lines.get_edgecolor()[0]) == colour
            for level, segments in zip(lines.levels, lines.allsegs, strict=True)
            for segment in segments if len(segment)]


@pytest.fixture(scope="module")
def level(fit):
    return middle_threshold(fit)


@pytest.fixture(scope="module")
def ax(fit):
    return plots.draw_figure(plots.plot_map, fit).axes[0]


def test_contours_are_the_median_of_updates_and_labelled(fit, ax, level):
    found = contours(ax, "#0072b2")
    assert len(found) >= 4
    for value, segment in found:
        steps = np.exp(fit.log_steps(*segment.T, threshold=level)).median("sample")
        np.testing.assert_allclose(steps, value, rtol=0.02)
    labels = {text for text in texts(ax) if not text.startswith("B=")}
    assert labels
    assert labels <= {plain_number(value) for value, _ in found}
    assert title(ax) == f"Updates to accuracy ≥ {level:g}"


def test_the_critical_batch_is_where_the_fit_solves_for_it(fit, ax, level):
    ((_, segment),) = contours(ax, "#d55e00")
    for prompts, rollouts in segment[::8]:
        solved = fit.solve(steps_ratio(2.0), "prompts", float(rollouts), threshold=level)
        assert float(np.median(solved)) == pytest.approx(prompts, rel=0.05)


def test_points_are_all_batches_tried_and_none_is_cut(fit, ax):
    assert "advised" not in " ".join(legend(ax))
    ax = plots.plot_map(fit, advice=(64, 4))
    (tried,) = (c for c in ax.collections if c.get_gid() == "tried")
    runs = np.stack([fit.crossings["n_prompts"], fit.crossings["n_rollouts"]]).T
    np.testing.assert_array_equal(np.asarray(tried.get_offsets()), np.unique(runs, axis=0))
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    assert ((runs > low) & (runs < high)).all()
    ((star,),) = ([line.get_xydata()[0].tolist() for line in lines(ax, "advice")],)
    assert star == [64, 4]
    assert "advised: 64 × 4" in legend(ax)


def test_the_best_split_has_the_least_steps_of_its_total(fit, ax, level):
    (line,) = lines(ax, "best-split")
    prompts, rollouts = line.get_xydata()[len(line.get_xydata()) // 2]
    total = prompts * rollouts
    others = np.array([rollouts / 2, rollouts, 2 * rollouts])
    steps = np.exp(fit.log_steps(total / others, others, threshold=level)).median("sample")
    assert int(steps.argmin("batch")) == 1


def test_one_axis_has_no_map(one_axis):
    for plot in (plots.plot_map, plots.plot_clock_map):
        with pytest.raises(CBSDataError, match="total batch only"):
            plot(one_axis)


def test_tips_tell_values_at_the_batches_tried(fit, ax):
    tips = {line.get_label().partition(":")[0].strip("_"): line for line in lines(ax, "tip")}
    runs = fit.crossings["n_prompts"].values, fit.crossings["n_rollouts"].values
    assert {f"{p:g} × {g:g}" for p, g in zip(*runs, strict=True)} <= set(tips)
    made = int(((runs[0] == 128) & (runs[1] == 8)).sum())
    assert tips["128 × 8"].get_label().endswith(f"samples; runs: {made}")
    ax.figure.canvas.draw()
    width, height = 72 * ax.figure.get_size_inches()
    assert all(0 < x < width and 0 < y < height for x, y, *_ in tips_of(ax.figure))
    assert len(tips_of(ax.figure)) == len(tips)


def test_the_clock_map_has_times_and_samples(timed, level):
    ax = plots.plot_clock_map(timed)
    hours = np.median(times_of(timed).amount(HOURS, level)[..., 0], axis=0)
    levels = [value for value, _ in contours(ax, "#0072b2")]
    unit, _, cost = legend(ax)
    per = {"hours": 1, "minutes": 60, "seconds": 3600}[unit]
    assert per * hours.min() <= min(levels) <= max(levels) <= per * hours.max()
    assert cost == "samples"
