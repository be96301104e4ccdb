"""The figures of splits, front, times and plans show what their tables hold."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import legend, lines, points, texts, title
from fitted import changed
from plan_fixture import make_plan

from cbsbayes import plots
from cbsbayes.decisions.batches import middle_threshold
from cbsbayes.decisions.front import front_table
from cbsbayes.decisions.splits import split_table
from cbsbayes.decisions.time_to_target import times_of
from cbsbayes.errors import CBSDataError


@pytest.mark.parametrize("total", [2048, 4096])
def test_splits_show_updates_and_probabilities(fit, total):
    level = float(fit.thresholds[1])
    table = split_table(fit, total, [level])
    above, below = plots.plot_split_choice(fit, threshold=level, total_batch=total).axes
    for name in ("p_best", "p_close"):
        bars = sorted((bar.get_x(), bar.get_height()) for bar in below.patches
                      if bar.get_gid() == name)
        np.testing.assert_allclose([height for _, height in bars], table[name])
    outside = (table["range"] == "extrapolated").to_numpy()
    for gid, mask in (("split", ~outside), ("split-outside", outside)):
        np.testing.assert_allclose(points(above, gid), np.stack(
            [np.flatnonzero(mask), table["steps"][mask]]).T)
    ((chosen, _),) = points(above, "chosen")
    assert table["chosen"].to_numpy()[int(chosen)]
    seen = fit.crossings.isel(run=fit.crossings["total_batch"].values == total)
    known = int((seen["status"].sel(threshold=level) == 1).sum())
    assert len(points(above, "crossing-interval")) == known > 0
    assert f"Splits of {total:,} samples" in title(above)
    labels = [tick.get_text() for tick in below.get_xticklabels()]
    assert labels == [f"{p:,d}\n× {total // p:,d}" for p in table["n_prompts"]]


def test_splits_that_cannot_be_told_have_a_reason(fit, one_axis):
    unsettled = changed(fit, table_cbs=fit.cbs[fit.cbs["quantity"] != "best_n_rollouts"])
    for given, options, message in (
            (one_axis, {}, "total batch alone"), (unsettled, {}, "do not settle B_rollout/B_pro"),
            (fit, {"threshold": 0.3}, r"threshold 0\.3 was not fitted")):
        with pytest.raises(CBSDataError, match=message):
            plots.plot_split_choice(given, **options)


def test_the_front_fills_and_names_likely_batches(fit):
    table = front_table(fit, [middle_threshold(fit)])
    tried = table[table["kind"] == "tried"]
    ax = plots.plot_front(fit)
    likely = tried["p_on_front"] >= 0.5
    for gid, mask in (("filled", likely), ("open", ~likely)):
        expected = tried.loc[mask, ["samples", "steps"]].to_numpy()
        np.testing.assert_allclose(points(ax, gid), expected[np.lexsort(expected.T[::-1])])
    assert len(texts(ax)) == (tried["p_on_front"] >= 0.05).sum()
    curve = table[(table["kind"] == "curve") & (table["range"] != "extrapolated")]
    (front,) = lines(ax, "front")
    np.testing.assert_allclose(front.get_xydata(), curve[["samples", "steps"]])


def test_batches_are_open_where_they_are_extrapolated_and_the_likely_named(timed):
    ax, times = plots.plot_time_cost(timed), times_of(timed)
    assert len(points(ax, "filled")) == times.inside.sum()
    assert len(points(ax, "open")) == len(times.batches) - times.inside.sum()
    named = [float(text.partition(": ")[2].strip(">")) for text in texts(ax)]
    assert 0.5 < sum(named) < 1.01
    assert legend(ax)


def scattered(ax, gid):
    return sorted(tuple(xy) for c in ax.collections if c.get_gid() == gid
                  for xy in np.asarray(c.get_offsets()).tolist())


def test_every_batch_says_its_worth_its_length_and_its_runs():
    ax = plots.plot_plan(make_plan(), title="CBS")
    assert title(ax) == "CBS"
    # 32 × 4 is lost in its error
    assert {"1.00\n100 updates", "~0\n100 updates", "••", "1, 2"} <= set(texts(ax))
    assert scattered(ax, "inside") == [(32.0, 4.0), (32.0, 8.0)]
    assert scattered(ax, "extrapolated") == [(64.0, 8.0)]
    assert points(ax, "beyond-budget").tolist() == [[64.0, 16.0]]
    assert points(ax, "planned").tolist() == [[32.0, 8.0]]
    one_axis = plots.plot_plan(make_plan(one_axis=True))
    assert one_axis.get_xlabel() == "Samples per update"
    assert scattered(one_axis, "inside")[0] == (32.0, 1.0)
    assert one_axis.get_ylabel() == "Information per price"
