"""The figures show what the fit holds: positions, counts, bounds, and reasons for gaps."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from cbsbayes.plots.gains import doubling_gain
from cbsbayes.plots.predictive import interval_coverage
from cbsbayes.plots.slices import choose_slice
from fit_fixture import crossings_of, make_fit, make_one_axis_fit
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes import plots
from cbsbayes.errors import CBSDataError
from cbsbayes.plots.marks import dodge
from cbsbayes.plots.reading import fixed_values
from cbsbayes.plots.scales import Log2Locator, plain_number
from cbsbayes.plots.style import detached, ordered_colours, plain_text, short_text


@pytest.fixture(scope="module")
def fit():
    return make_fit()


@pytest.fixture(scope="module")
def one_axis():
    return make_one_axis_fit()


@pytest.fixture(autouse=True)
def _no_pyplot():
    with detached():
        yield
    plt.close("all")


def lines(ax, gid):
    return [line for line in ax.lines if line.get_gid() == gid]


def points(ax, gid):
    return sum(len(line.get_xdata()) for line in lines(ax, gid))


def status_counts(fit, threshold, mask=None):
    at = fit.crossings["status"].sel(threshold=threshold).values
    return Counter(at[np.full(len(at), True) if mask is None else mask].tolist())


class TestSteps:
    def test_every_crossing_of_the_cut_is_drawn_once_by_kind(self, fit):
        ax = plots.plot_steps(fit, threshold=0.9, axis="prompts")
        expected = status_counts(fit, 0.9, fit.crossings["n_rollouts"].values == 8)
        assert expected[2] == 2  # two runs at four prompts never reach .9
        assert points(ax, "crossing-interval") == expected[1]
        assert points(ax, "crossing-right") == expected[2]

    def test_left_censored_triangle_points_down_at_the_upper_bound(self, fit):
        ax = plots.plot_steps(fit, threshold=0.5)
        (line,) = lines(ax, "crossing-left")
        assert line.get_marker() == "v"
        assert line.get_markerfacecolor() == "white"
        np.testing.assert_array_equal(line.get_ydata(), [24.0, 24.0])

    def test_right_censored_triangle_points_up_at_the_last_evaluation(self, fit):
        (line,) = lines(plots.plot_steps(fit, threshold=0.9), "crossing-right")
        assert line.get_marker() == "^"
        np.testing.assert_array_equal(line.get_ydata(), [300.0, 300.0])

    def test_median_line_is_the_posterior_median(self, fit):
        ax = plots.plot_steps(fit, threshold=0.8, axis="rollouts")
        (line,) = lines(ax, "median")
        x = line.get_xdata()
        assert x.min() == 2.0  # the law has no value below two rollouts
        steps = np.exp(fit.log_steps(np.full_like(x, 16.0), x, threshold=0.8))
        np.testing.assert_allclose(line.get_ydata(), steps.median("sample"))

    def test_one_threshold_has_two_bands_and_several_have_one(self, fit):
        one = {c.get_gid() for c in plots.plot_steps(fit, threshold=0.8).collections}
        several = {c.get_gid() for c in plots.plot_steps(fit).collections}
        assert {"band-50", "band-90"} <= one
        assert "band-90" in several
        assert "band-50" not in several

    def test_least_squares_is_dashed_and_s_min_is_the_posterior_median(self, fit):
        ax = plots.plot_steps(fit, threshold=0.7)
        (squares,) = lines(ax, "least-squares")
        row = fit.comparison.query("method == 'least_squares' and axis == 'prompts' "
                                   "and threshold == 0.7").iloc[0]
        np.testing.assert_allclose(squares.get_ydata(),
                                   row["S_min"] * (1 + row["B_noise"] / squares.get_xdata()))
        assert squares.is_dashed()
        (s_min,) = lines(ax, "s-min")
        assert s_min.get_ydata()[0] == pytest.approx(
            float(fit.posterior["S_min"].sel(threshold=0.7).median()))

    def test_cbs_bar_spans_the_table_interval(self, fit):
        ax = plots.plot_steps(fit, threshold=0.7, axis="prompts")
        (bar,) = lines(ax, "cbs-identified")
        row = fit.cbs.query("quantity == 'cbs_prompts' and threshold == 0.7").iloc[0]
        np.testing.assert_allclose(bar.get_xdata(), [row["ci_lower"], row["ci_upper"]])

    def test_a_bound_reaches_the_edge_and_has_no_median(self, fit):
        ax = plots.plot_steps(fit, threshold=0.7, axis="rollouts")
        (bar,) = lines(ax, "cbs-lower_bound")
        row = fit.cbs.query("quantity == 'cbs_rollouts' and threshold == 0.7").iloc[0]
        np.testing.assert_allclose(bar.get_xdata(), [row["ci_lower"], ax.get_xlim()[1]])
        assert not lines(ax, "cbs-median")

    def test_not_identified_cbs_is_not_drawn(self, fit):
        ax = plots.plot_steps(fit, threshold=0.8, axis="rollouts")
        assert not [line for line in ax.lines if (line.get_gid() or "").startswith("cbs-")]

    def test_total_axis_shows_every_fitted_run(self, fit):
        ax = plots.plot_steps(fit, threshold=0.8, axis="total")
        kinds = ("crossing-interval", "crossing-left", "crossing-right")
        assert sum(points(ax, kind) for kind in kinds) == fit.crossings.sizes["run"]
        assert "8 rollouts per prompt" in ax.get_xlabel()

    def test_one_axis_data_is_drawn_along_the_total_batch(self, one_axis):
        ax = plots.plot_steps(one_axis)
        assert points(ax, "crossing-interval") == 32
        assert [line.get_label() for line in lines(ax, "median")] == ["target ≤ 3", "target ≤ 3.2"]

    def test_colours_tell_thresholds_apart(self, fit):
        colours = [line.get_color() for line in lines(plots.plot_steps(fit), "median")]
        assert len(set(colours)) == 4

    def test_one_axis_has_no_prompts(self, one_axis):
        with pytest.raises(CBSDataError, match="total batch only"):
            plots.plot_steps(one_axis, axis="prompts")

    def test_unfitted_threshold_lists_the_fitted_ones(self, fit):
        with pytest.raises(CBSDataError, match=r"0\.65 was not fitted; .*0\.5, 0\.7, 0\.8, 0\.9"):
            plots.plot_steps(fit, threshold=0.65)

    def test_unvaried_cut_is_refused(self, fit):
        with pytest.raises(CBSDataError, match=r"1 value of n_prompts at n_rollouts=64|two are"):
            plots.plot_steps(fit, axis="prompts", n_rollouts=3)
        with pytest.raises(CBSDataError, match="unknown axis 'batch'"):
            plots.plot_steps(fit, axis="batch")


def test_samples_are_updates_times_the_batch(fit):
    steps = plots.plot_steps(fit, threshold=0.8, axis="prompts")
    samples = plots.plot_samples(fit, threshold=0.8, axis="prompts")
    for gid in ("median", "least-squares"):
        (s,), (e,) = lines(steps, gid), lines(samples, gid)
        np.testing.assert_allclose(e.get_ydata(), s.get_ydata() * 8 * s.get_xdata())
    runs = fit.crossings.sel(threshold=0.8)
    runs = runs.isel(run=(runs["n_rollouts"] == 8) & (runs["status"] == 1))
    expected = np.sqrt(runs["lower"] * runs["upper"]) * runs["total_batch"]
    (drawn,) = lines(samples, "crossing-interval")
    np.testing.assert_allclose(np.sort(drawn.get_ydata()), np.sort(expected.values))


class TestCrossingCheck:
    def test_marks_by_kind_are_counted(self, fit):
        ax = plots.plot_crossing_check(fit, threshold=0.9)
        expected = status_counts(fit, 0.9)
        assert points(ax, "crossing-interval") == expected[1]
        assert points(ax, "crossing-right") == expected[2]
        assert len(ax.get_yticks()) == len(set(zip(
            fit.crossings["n_prompts"].values.tolist(),
            fit.crossings["n_rollouts"].values.tolist(), strict=True)))

    def test_title_gives_the_coverage(self, fit):
        at = fit.crossings.sel(threshold=0.8)
        replicates = fit.predictive["steps"].sel(threshold=0.8, run=at["run"].values)
        share = interval_coverage(replicates.transpose("sample", "run").values,
                                  at["lower"].values, at["upper"].values, 0.9)
        title = plots.plot_crossing_check(fit, threshold=0.8).get_title(loc="left")
        assert f"{100 * share:.0f} % in the 90 % interval" in title

    def test_without_a_predictive_there_is_a_reason(self, fit):
        bare = make_fit()
        bare.predictive = None
        with pytest.raises(CBSDataError, match="no posterior predictive"):
            plots.plot_crossing_check(bare)


class TestCoverage:
    def test_censored_and_interval_observations_score_the_nominal_share(self):
        rng = np.random.default_rng(0)
        truth = rng.lognormal(size=4000)
        replicates = np.broadcast_to(rng.lognormal(size=(4000, 1)), (4000, 4000))
        grid = np.concatenate([[0.0], np.geomspace(0.3, 3.0, 7), [np.inf]])
        place = np.searchsorted(grid, truth)
        share = interval_coverage(replicates, grid[place - 1], grid[place], 0.9)
        assert share == pytest.approx(0.9, abs=0.02)

    def test_an_observation_far_off_counts_as_outside(self):
        replicates = np.linspace(1.0, 2.0, 101)[:, None]
        assert interval_coverage(replicates, np.array([5.0]), np.array([6.0]), 0.9) == 0.0
        assert interval_coverage(replicates, np.array([5.0]), np.array([np.inf]), 0.9) == 0.0
        assert interval_coverage(replicates, np.array([1.45]), np.array([1.55]), 0.9) == 1.0


class TestCBS:
    def test_identified_values_are_points_of_both_laws(self, fit):
        ax = plots.plot_cbs_against_threshold(fit, axis="prompts")
        assert points(ax, "estimate") == 8
        filled = [line for line in lines(ax, "estimate") if line.get_markerfacecolor() != "white"]
        rows = fit.cbs.query("quantity == 'cbs_prompts'")
        np.testing.assert_allclose([line.get_ydata()[0] for line in filled], rows["median"])

    def test_bounds_are_arrows_and_never_points(self, fit):
        alone = make_fit()
        alone.others = {}
        ax = plots.plot_cbs_against_threshold(alone, axis="rollouts")
        rows = alone.cbs.query("quantity == 'cbs_rollouts'").set_index("status")
        (upper,), (lower,) = lines(ax, "upper-bound"), lines(ax, "lower-bound")
        assert upper.get_ydata()[0] == rows.loc["upper_bound", "ci_upper"]
        assert lower.get_ydata()[0] == rows.loc["lower_bound", "ci_lower"]
        assert points(ax, "estimate") == 1
        assert len(ax.texts) == 2  # an arrow each

    def test_missing_axis_is_a_reason(self, one_axis):
        empty = make_one_axis_fit()
        empty.cbs = empty.cbs.iloc[:0]
        with pytest.raises(CBSDataError, match="no critical batch size along total"):
            plots.plot_cbs_against_threshold(empty)


class TestTraining:
    def test_seeds_are_thin_means_are_thick_and_single_rollouts_dotted(self, fit):
        ax = plots.plot_training_curves(fit, phase="p2b")
        assert len(lines(ax, "seed")) == 12
        assert len(lines(ax, "mean")) == 6
        assert len(lines(ax, "threshold")) == 4
        assert lines(ax, "mean")[0].is_dashed()
        assert not lines(ax, "mean")[1].is_dashed()

    def test_mean_stops_where_a_seed_stops(self, fit):
        sweep = fit.sweep.sel(run=fit.sweep["phase"] == "p1").copy(deep=True)
        sweep["accuracy"][0, 0, sweep["step"].values > 100] = np.nan
        mean = lines(plots.plot_training_curves(sweep, phase="p1"), "mean")[0]
        assert mean.get_xdata().max() == 100.0

    def test_samples_are_updates_times_the_batch(self, fit):
        ax = plots.plot_training_curves(fit.sweep, phase="p1", against="samples")
        batch = sorted(fit.sweep["total_batch"].values[:14])
        assert lines(ax, "mean")[0].get_xdata()[0] == 4.0 * batch[0]
        assert not lines(ax, "threshold")  # a sweep knows no thresholds

    def test_unusable_runs_are_left_out(self, fit):
        usable = fit.sweep["usable"].copy()
        usable[1] = 0
        sweep = fit.sweep.assign_coords(usable=usable)
        assert len(lines(plots.plot_training_curves(sweep, phase="p1"), "seed")) == 13

    @pytest.mark.parametrize(("kwargs", "match"), [
        ({"phase": "p9"}, "no evaluated runs of phase 'p9'; phases in the sweep: p1, p2b, p2c"),
        ({"against": "hours"}, "valid: updates, samples"),
        ({"metric": "math"}, "'math' is not in the sweep; metrics: tiny_add"),
        ({"colour_by": "seed"}, "unknown colouring 'seed'"),
    ])
    def test_bad_options_have_reasons(self, fit, kwargs, match):
        with pytest.raises(CBSDataError, match=match):
            plots.plot_training_curves(fit, **kwargs)

    def test_tables_of_crossings_have_no_curves(self, one_axis):
        with pytest.raises(CBSDataError, match="no training curves"):
            plots.plot_training_curves(one_axis)

    def test_phase_figure_has_updates_and_samples(self, fit):
        figure = plots.plot_training_phase(fit, "p1")
        assert [ax.get_xlabel() for ax in figure.axes] == [
            "Updates", "Samples (updates × batch size)"]


class TestIsoBatch:
    def test_curves_of_all_splits_of_the_most_split_batch(self, fit):
        ax = plots.plot_iso_batch(fit)
        expected = int((fit.sweep["total_batch"] == 256).sum())
        assert len(lines(ax, "seed")) == expected
        assert "256 samples" in ax.get_title(loc="left")

    def test_posterior_of_every_split_with_the_observed(self, fit):
        ax = plots.plot_iso_batch_steps(fit, threshold=0.7)
        (median,) = lines(ax, "median")
        g = median.get_xdata()
        steps = np.exp(fit.log_steps(256 / g, g, threshold=0.7).median("sample"))
        np.testing.assert_allclose(median.get_ydata(), steps)
        mask = fit.crossings["total_batch"].values == 256
        assert points(ax, "crossing-interval") == status_counts(fit, 0.7, mask)[1]
        labels = [tick.get_text() for tick in ax.get_xticklabels()]
        assert "32 × 8" in labels

    def test_reasons(self, fit, one_axis):
        with pytest.raises(CBSDataError, match="has no two splits; those that have"):
            plots.plot_iso_batch(fit, total_batch=4096)
        with pytest.raises(CBSDataError, match="iso-batch phase"):
            plots.plot_iso_batch(one_axis.sweep)
        with pytest.raises(CBSDataError, match="law total depends on the total batch alone"):
            plots.plot_iso_batch_steps(one_axis)


class TestGradientNoise:
    def test_one_line_per_run_that_logged(self, fit):
        ax = plots.plot_gradient_noise(fit)
        assert len(lines(ax, "run")) == 14
        assert ax.get_ylabel() == "B_noise estimate (samples)"
        assert len(plots.plot_gradient_noise_grid(fit).axes) == 2

    def test_values_that_are_not_positive_are_counted(self, fit):
        sweep = fit.sweep.copy(deep=True)
        sweep["noise_B_noise_estimate"][0, :3] = -5.0
        ax = plots.plot_gradient_noise(sweep)
        assert "3 values ≤ 0 not shown" in [text.get_text() for text in ax.texts]

    def test_reasons(self, fit, one_axis):
        with pytest.raises(CBSDataError, match="no gradient noise was logged"):
            plots.plot_gradient_noise(one_axis)
        with pytest.raises(CBSDataError, match="'noise_x' was not logged; logged: noise_B_noise"):
            plots.plot_gradient_noise(fit, variable="noise_x")


class TestWallClock:
    def test_time_is_posterior_updates_times_seconds(self, fit):
        ax = plots.plot_wall_clock(fit, threshold=0.7)
        assert "minutes" in ax.get_ylabel()
        drawn = np.concatenate([line.get_ydata() for line in lines(ax, "time")])
        fitted = {(p, g) for p, g in zip(fit.crossings["n_prompts"].values,
                                         fit.crossings["n_rollouts"].values, strict=True)}
        assert len(drawn) == len(fitted)
        steps = np.exp(fit.log_steps([16.0], [2.0], threshold=0.7).median())
        expected = float(steps) * (2.0 + 0.004 * 32) / 60
        assert np.isclose(drawn, expected).sum() == 1

    def test_updates_per_step_divide_the_step_time(self, fit):
        halved = make_fit()
        halved.sweep = halved.sweep.assign_coords(
            updates_per_step=("run", np.full(halved.sweep.sizes["run"], 2)))
        one, two = (np.concatenate([line.get_ydata() for line in
                                    lines(plots.plot_wall_clock(f, threshold=0.7), "time")])
                    for f in (fit, halved))
        np.testing.assert_allclose(one, 2 * two)

    def test_step_times_are_drawn_for_all_runs(self, fit):
        ax = plots.plot_step_time(fit.sweep)
        assert points(ax, "step-time") == fit.sweep.sizes["run"]

    def test_unknown_step_times_are_a_reason(self, one_axis):
        for plot in (plots.plot_wall_clock, plots.plot_step_time):
            with pytest.raises(CBSDataError, match="no step time is known"):
                plot(one_axis)


class TestComparison:
    def test_three_methods_at_every_threshold(self, fit):
        ax = plots.plot_comparison(fit, axis="prompts")
        values = sorted(line.get_ydata()[0] for line in lines(ax, "estimate"))
        np.testing.assert_allclose(values, np.sort(np.repeat([36.0, 54.0, 72.0], 4)))
        assert len(lines(ax, "beyond")) == 1  # the interval that goes to zero

    def test_missing_and_infinite_estimates(self, fit):
        odd = make_fit()
        rows = odd.comparison["axis"] == "prompts"
        first, second = odd.comparison.index[rows][:2]
        odd.comparison.loc[first, ["B_noise", "ci_lower", "ci_upper"]] = np.nan
        odd.comparison.loc[second, ["B_noise", "ci_upper"]] = np.inf
        ax = plots.plot_comparison(odd, axis="prompts")
        assert len(lines(ax, "no-fit")) == 1
        top = [line for line in lines(ax, "estimate") if line.get_marker() == "^"]
        assert [line.get_ydata()[0] for line in top] == [ax.get_ylim()[1]]

    def test_reason(self, one_axis):
        with pytest.raises(CBSDataError, match="nothing to compare along total"):
            plots.plot_comparison(one_axis)


def test_gains_are_ratios_of_posterior_updates(fit):
    ax = plots.plot_gains(fit, threshold=0.8, axis="prompts")
    (tried,) = lines(ax, "tried")
    assert len(tried.get_xdata()) == 6  # doubling 256 leaves the range tried
    p = np.array([4.0, 8, 16, 32, 64, 128])
    eights = np.full_like(p, 8.0)
    ratio = np.exp(fit.log_steps(2 * p, eights, 0.8) - fit.log_steps(p, eights, 0.8))
    np.testing.assert_allclose(tried.get_ydata(), ratio.median("sample"))
    assert [line.get_ydata()[0] for line in lines(ax, "reference")] == [1.0, 0.5]
    draws = doubling_gain(fit, choose_slice(fit, "rollouts"), np.array([2.0, 64.0]), 0.8)
    assert ((draws > 0.5 ** 1.5) & (draws < 1)).all()


def test_law_comparison_is_the_difference_to_the_best(fit):
    ax = plots.plot_law_comparison(fit)
    (good,), (bad,) = lines(ax, "law"), lines(ax, "law-unreliable")
    np.testing.assert_allclose(good.get_xdata(), [0.0, -2.5, -41.0])
    np.testing.assert_allclose(bad.get_xdata(), [-6.0])
    with pytest.raises(CBSDataError, match="fewer than two laws"):
        plots.plot_law_comparison(make_one_axis_fit())
    bare = make_fit()
    bare.law_table = bare.law_table.drop(columns="dse")
    with pytest.raises(CBSDataError, match="lacks dse; it has law, elpd"):
        plots.plot_law_comparison(bare)


class TestDiagnostics:
    def test_ranks_and_traces_have_one_line_per_chain_and_quantity(self, fit):
        assert sum(len(lines(ax, "chain")) for ax in plots.plot_trace(fit).axes) == 4 * 6
        ranks = plots.plot_ranks(fit, n_bins=10)
        stairs = [p for ax in ranks.axes for p in ax.patches if p.get_gid() == "ranks"]
        assert len(stairs) == 4 * 6
        np.testing.assert_allclose([p.get_data().values.sum() for p in stairs], 150)

    def test_quantities_past_a_limit_are_counted(self, fit):
        bad = make_fit()
        bad.cbs.loc[bad.cbs.index[:3], "r_hat"] = 1.05
        bad.cbs.loc[bad.cbs.index[5], "ess_bulk"] = 90.0
        ax = plots.plot_convergence(bad)
        assert points(ax, "bad") == 4
        assert points(ax, "good") == len(bad.cbs) - 4
        assert ax.get_title(loc="left").startswith("4 of 28")

    def test_energy(self, fit, one_axis):
        energy = fit.tree["sample_stats"]["energy"].values
        worst = ((np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)).min()
        assert f"{worst:.2f}" in plots.plot_energy(fit).get_title(loc="left")
        with pytest.raises(CBSDataError, match="no energy"):
            plots.plot_energy(one_axis)


def test_prior_and_posterior_have_a_density_each(fit):
    figure = plots.plot_prior_posterior(fit, threshold=0.8)
    assert len(figure.axes) == 5  # sigma_residual has no prior draws in the stand-in
    for ax in figure.axes:
        assert [len(lines(ax, gid)) for gid in ("prior", "posterior")] == [1, 1]
    b_prompt = figure.axes[1]
    peak = lines(b_prompt, "posterior")[0]
    assert peak.get_xdata()[peak.get_ydata().argmax()] == pytest.approx(90, rel=0.1)
    with pytest.raises(CBSDataError, match="no prior draws"):
        plots.plot_prior_posterior(make_one_axis_fit())


def test_run_effects_show_every_run_and_name_outliers(fit):
    odd = make_fit()
    odd.posterior["run_effect"][..., 4] += 0.6
    ax = plots.plot_run_effects(odd)
    drawn = np.concatenate([line.get_xdata() for line in lines(ax, "run")])
    expected = odd.posterior["run_effect"].median(("chain", "draw"))
    np.testing.assert_allclose(np.sort(drawn), np.sort(expected))
    named = [text.get_text() for text in ax.texts]
    assert str(odd.crossings["run"].values[4]) in named
    with pytest.raises(CBSDataError, match="no run effects"):
        plots.plot_run_effects(make_one_axis_fit())


class TestGallery:
    def test_every_figure_of_a_full_fit_is_drawn(self, fit):
        items = list(plots.all_figures(fit))
        slugs = [item.slug for item in items]
        assert len(slugs) == len(set(slugs))
        assert all(set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789_") for slug in slugs)
        for slug, title, caption, draw in items:
            assert title
            assert caption.endswith(".")
            if slug != "noise_against_fit":  # of sums, which the stand-in has none of
                assert isinstance(draw(), Figure)
        assert not plt.get_fignums()

    def test_what_cannot_be_drawn_gives_its_reason(self, one_axis):
        reasons = {}
        for item in plots.all_figures(one_axis):
            try:
                item.draw()
            except CBSDataError as reason:
                reasons[item.slug] = str(reason)
        assert set(reasons) == {"comparison_total", "laws", "iso_batch", "iso_batch_steps",
                                "split_choice", "training_1_all", "noise_against_fit",
                                "gradient_noise", "wall_clock", "clock_map", "time_cost",
                                "step_time", "run_effects", "prior_posterior", "energy"}
        assert not [reason for reason in reasons.values() if "\n" in reason]

    def test_hostile_names_are_text(self, fit):
        names = ["p1$\\frac{", "<b>p2\nb</b>", "p2c$x$"]
        odd = make_fit()
        phase = odd.sweep["phase"].values.astype(object)
        for old, new in zip(("p1", "p2b", "p2c"), names, strict=True):
            phase[phase == old] = new
        odd.sweep = odd.sweep.assign_coords(phase=("run", phase), metric=["a$_{b$"])
        odd.sweep.attrs["metric"] = "a$_{b$"
        runs = odd.sweep["run"].values.astype(object)
        kept = np.isin(odd.sweep["run"].values, odd.crossings["run"].values)
        odd.crossings = odd.crossings.assign_coords(phase=("run", phase[kept]))
        runs[kept] = [f"${run}$\n$" for run in runs[kept]]
        odd.posterior = odd.posterior.assign_coords(run=runs[kept])
        odd.crossings = odd.crossings.assign_coords(run=runs[kept])
        odd.posterior["run_effect"][..., 0] += 1.0
        drawn = [item for item in plots.all_figures(odd)
                 if item.slug.startswith(("training", "run_effects"))]
        assert len(drawn) == 4
        assert not [item for item in drawn if "\n" in item.title]
        named = [text.get_text() for text in plots.plot_run_effects(odd).texts]
        assert named == [rf"\${odd.crossings['name'].values[0]}\$\n\$"]
        for item in drawn:
            assert plots.figure_bytes(item.draw()).startswith(b"\x89PNG")


class TestStyle:
    def test_settings_of_the_caller_are_left_alone(self, fit):
        before = dict(mpl.rcParams)
        plots.plot_steps(fit)
        plots.figure_bytes(plots.plot_ranks(fit), "pdf")
        assert dict(mpl.rcParams) == before

    def test_axes_given_are_drawn_into_and_returned(self, fit):
        figure = Figure()
        ax = figure.subplots()
        singles = [plots.plot_steps, plots.plot_samples, plots.plot_gains, plots.plot_comparison,
                   plots.plot_crossing_check, plots.plot_cbs_against_threshold,
                   plots.plot_training_curves, plots.plot_iso_batch, plots.plot_iso_batch_steps,
                   plots.plot_gradient_noise, plots.plot_wall_clock, plots.plot_step_time,
                   plots.plot_law_comparison, plots.plot_convergence, plots.plot_energy,
                   plots.plot_run_effects]
        for plot in singles:
            ax.clear()
            assert plot(fit, ax=ax) is ax
            assert ax.has_data()

    def test_files_are_the_same_each_time(self, fit):
        for fmt, start in (("pdf", b"%PDF"), ("png", b"\x89PNG"), ("svg", b"<?xml")):
            files = [plots.figure_bytes(plots.plot_law_comparison(fit).figure, fmt)
                     for _ in range(2)]
            assert files[0].startswith(start)
            assert files[0] == files[1]

    def test_a_notebook_gets_a_figure_that_pyplot_shows(self, fit):
        import contextvars

        ax = contextvars.Context().run(plots.plot_law_comparison, fit)
        assert plt.get_fignums() == [ax.figure.number]

    @pytest.mark.parametrize(("value", "text"), [
        (32, "32"), (1024, "1,024"), (0.5, "0.5"), (0.375, "0.375"), (131072, "131,072"),
        (2**21, "2.1M"), (2.0**33, "8.59G"), (np.inf, ""), (1.5, "1.5"),
    ])
    def test_plain_numbers(self, value, text):
        assert plain_number(value) == text

    @pytest.mark.parametrize(("limits", "ticks"), [
        ((4, 256), [4, 8, 16, 32, 64, 128, 256]), ((3, 17), [3, 4, 6, 8, 12, 16]),
        ((1, 2**20), [1, 8, 64, 512, 4096, 32768, 262144]), ((0, 5), []),
    ])
    def test_ticks(self, limits, ticks):
        np.testing.assert_allclose(Log2Locator(8).tick_values(*limits), ticks)

    def test_text_is_text(self):
        assert plain_text("a$b\n\t") == r"a\$b\n\t"
        assert len(short_text("x" * 80)) == 36
        assert short_text("x" * 36) == "x" * 36

    def test_equal_positions_are_set_apart_and_single_ones_kept(self):
        moved = dodge(np.array([8.0, 16.0, 8.0]))
        assert moved[1] == 16.0
        assert moved[0] < 8.0 < moved[2]

    def test_ordered_colours_differ(self):
        assert len(set(ordered_colours(12))) == 12

    def test_at_is_read_as_numbers(self):
        assert fixed_values("n_prompts=128,n_rollouts=8") == {"n_prompts": 128, "n_rollouts": 8}
        assert fixed_values("") == fixed_values(np.nan) == {}


def test_names_are_lazy_and_complete():
    code = ("import sys, cbsbayes.plots as p; assert 'matplotlib' not in sys.modules; "
            "assert sorted(p.__all__) == dir(p); p.plot_steps; assert 'matplotlib' in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(callable(getattr(plots, name)) for name in plots.__all__)
    with pytest.raises(AttributeError, match="no attribute 'plot_nothing'"):
        plots.plot_nothing  # noqa: B018


def test_the_stand_in_has_all_kinds_of_crossings(fit):
    assert isinstance(crossings_of(fit.sweep, [0.7]), xr.Dataset)
    assert set(fit.crossings["status"].values.ravel()) == {0, 1, 2}
    assert isinstance(plots.plot_steps(fit), Axes)
