"""The figures of splits and of the front show what their tables hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fit_fixture import make_fit, make_one_axis_fit
from matplotlib import pyplot as plt

from cbsbayes import plots
from cbsbayes.decisions.allocation import split_table
from cbsbayes.decisions.front import front_table
from cbsbayes.errors import CBSDataError
from cbsbayes.plots.style import detached


@pytest.fixture(scope="module")
def fit():
    return make_fit()


@pytest.fixture(autouse=True)
def _no_pyplot():
    with detached():
        yield
    plt.close("all")


def points(ax, gid):
    return sorted(tuple(xy) for line in ax.lines if line.get_gid() == gid
                  for xy in zip(line.get_xdata(), line.get_ydata(), strict=True))


class TestSplitChoice:
    def test_bars_are_the_probabilities(self, fit):
        table = split_table(fit, 256, [0.8])
        above, below = plots.plot_split_choice(fit, threshold=0.8, total_batch=256).axes
        for name, part in (("p_best", 0), ("p_close", 1)):
            bars = [bar for bar in above.patches if bar.get_gid() == name]
            assert len(bars) == len(table), part
            found = sorted((bar.get_x(), bar.get_height()) for bar in bars)
            np.testing.assert_allclose([height for _, height in found], table[name])
        assert "256 samples to accuracy ≥ 0.8" in above.get_title(loc="left")
        labels = [tick.get_text() for tick in below.get_xticklabels()]
        assert labels == [f"{p}\n× {256 // p}" for p in table["n_prompts"]]

    def test_points_are_the_regret_and_outside_is_open(self, fit):
        table = split_table(fit, 1024, [0.7])
        _, below = plots.plot_split_choice(fit, threshold=0.7, total_batch=1024).axes
        outside = (table["range"] == "extrapolated").to_numpy()
        assert 0 < outside.sum() < len(table)
        for gid, mask in (("regret", ~outside), ("regret-outside", outside)):
            np.testing.assert_allclose(points(below, gid),
                                       list(zip(np.flatnonzero(mask), 1 + table["regret"][mask],
                                                strict=True)))
        ((x, _),) = points(below, "chosen")
        assert table["chosen"].to_numpy()[int(x)]

    def test_hatched_bars_are_extrapolated(self, fit):
        table = split_table(fit, 1024, [0.7])
        above, _ = plots.plot_split_choice(fit, threshold=0.7, total_batch=1024).axes
        hatched = sum(bool(bar.get_hatch()) for bar in above.patches)
        assert hatched == 2 * (table["range"] == "extrapolated").sum()

    def test_reasons(self, fit):
        with pytest.raises(CBSDataError, match="total batch alone"):
            plots.plot_split_choice(make_one_axis_fit())
        with pytest.raises(CBSDataError, match=r"threshold 0\.3 was not fitted"):
            plots.plot_split_choice(fit, threshold=0.3)
        unsettled = make_fit()
        unsettled.cbs = unsettled.cbs[unsettled.cbs["quantity"] != "best_n_rollouts"]
        with pytest.raises(CBSDataError, match="do not settle B_rollout/B_prompt"):
            plots.plot_split_choice(unsettled)


class TestFront:
    def test_batches_are_filled_where_they_are_on_it(self, fit):
        table = front_table(fit, [0.7])
        tried = table[table["kind"] == "tried"]
        ax = plots.plot_front(fit, threshold=0.7)
        likely = tried["p_on_front"] >= 0.5
        for gid, mask in (("on-front", likely), ("off-front", ~likely)):
            expected = sorted(zip(tried["samples"][mask], tried["steps"][mask], strict=True))
            np.testing.assert_allclose(points(ax, gid), expected)
        named = [text.get_text() for text in ax.texts]
        assert len(named) == (tried["p_on_front"] >= 0.05).sum()
        assert all(name.partition(": ")[2] for name in named)
        assert ax.get_xscale() == ax.get_yscale() == "log"

    def test_the_curve_inside_the_range_is_solid(self, fit):
        table = front_table(fit, [0.7])
        inside = table[(table["kind"] == "curve") & (table["range"] != "extrapolated")]
        np.testing.assert_allclose(points(plots.plot_front(fit, threshold=0.7), "front"),
                                   sorted(zip(inside["samples"], inside["steps"], strict=True)))

    def test_one_axis(self):
        ax = plots.plot_front(make_one_axis_fit())
        assert len(points(ax, "on-front")) == 8
        assert pd.Series([text.get_text() for text in ax.texts]).str.endswith(">0.99").all()
