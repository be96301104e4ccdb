"""Measured beside fitted noise: known truths come back, like is compared with like."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fieller import fieller
from fitted import changed, few_figures
from scipy.special import stdtrit

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.models.measured_noise import parts_of
from cbsbayes.noise.beside_fit import (
    FACTOR,
    NOISE_COLUMNS,
    Fitted,
    measured_average,
    noise_comparison,
    shown_rows,
    verdict_of,
)
from cbsbayes.noise.probes import MIN_PROBES, measured_in_ranges, probes_of_fit
from cbsbayes.plots import plot_noise_against_fit
from cbsbayes.plots.style import detached
from cbsbayes.report.facts import Facts
from cbsbayes.report.fit_page import fit_page
from cbsbayes.report.folder import write_fit

PROMPT, ROLLOUT, SIGNAL = 60.0, 300.0, 0.04  # B_prompt, B_rollout and |G|² of the noise added


def with_noise(fit, *, prompt=PROMPT, rollout=ROLLOUT, scatter=0.0, signal=SIGNAL, every=10):
    """Return the fit with a probe every so many updates in its sweep, of known noise scales."""
    ds = fit.sweep
    step = np.arange(1.0, ds["step"].values.max(), every)
    shape = (ds.sizes["run"], step.size)
    rng = np.random.default_rng(5)
    size = np.broadcast_to(ds["n_rollouts"].values[:, None].astype(float), shape)
    prompts = ds["n_prompts"].values[:, None]
    within = rollout * size / np.maximum(size - 1, 1) * signal
    group = prompt * signal + within / size  # of one prompt's mean gradient
    sums = {"g_sq": signal + scatter * rng.normal(size=shape), "tr_sigma": group * size,
            "tr_between": np.full(shape, prompt * signal), "tr_within": within,
            "n_samples": prompts * size, "gbar_sq": signal + group / prompts}
    probed = ds.assign({f"noise_{key}": (("run", "train_step"), value)
                        for key, value in sums.items()}).assign_coords(train_step=step)
    return changed(fit, sweep=probed)


@pytest.fixture(scope="module")
def noisy(fit):
    return with_noise(fit)


@pytest.fixture(scope="module")
def table(noisy):
    return noise_comparison(noisy)


def probes_at(rng, levels, *, signal, noise, samples):
    """Return probes whose estimate of |G|² scatters as the inverse of their samples."""
    size = len(levels)
    return pd.DataFrame({
        "run": [f"r{i % 5}" for i in range(size)], "n_rollouts": 8, "level": levels,
        "accuracy": levels, "total_batch": samples, "n_samples": samples,
        "g_sq": signal + 8 * rng.normal(size=size) / samples,
        "tr_sigma": 8 * noise * signal * (1 + 0.2 * rng.normal(size=size)),
        "tr_between": np.nan, "tr_within": np.nan})


LAW = get_law("two_axis_free")
WHOLE = parts_of(LAW, [8])[0]


def in_one_range(probes, n_draws=4000, seed=0):
    return measured_in_ranges(probes, WHOLE, np.array([1.0]), law=LAW, n_draws=n_draws,
                              rng=np.random.default_rng(seed))[0]


class TestMeasured:
    def test_intervals_of_weighted_averages_cover_the_truth(self):
        rng = np.random.default_rng(1)
        samples = np.repeat([32.0, 128.0, 512.0], 8)
        hits = 0
        for seed in range(400):
            probes = probes_at(rng, np.full(24, 0.5), signal=0.1, noise=50.0, samples=samples)
            low, high = np.quantile(in_one_range(probes, 1000, seed).draws, [0.05, 0.95],
                                    method="inverted_cdf")
            hits += low <= 50.0 <= high
        assert 0.86 <= hits / 400 <= 0.95  # binomial sd 1.5 %

    def test_equal_weights_give_fiellers_interval(self):
        rng = np.random.default_rng(2)
        probes = probes_at(rng, np.full(30, 0.5), signal=1.0, noise=50.0, samples=np.full(30, 32.0))
        draws = in_one_range(probes, 200_000).draws
        sums = np.stack([probes["tr_sigma"] / 8, probes["g_sq"]])
        exact = fieller(*sums.mean(axis=1), np.cov(sums) / 30, stdtrit(29, 0.95))
        assert np.quantile(draws, [0.05, 0.95]) == pytest.approx(exact, rel=0.01)

    def test_a_range_with_too_few_probes_is_joined_to_the_next(self):
        rng = np.random.default_rng(3)
        levels = np.array([0.1] * 9 + [0.3] * (MIN_PROBES - 1) + [0.5] * 9 + [0.95])
        probes = probes_at(rng, levels, signal=1.0, noise=5.0, samples=np.full(levels.size, 32.0))
        found = measured_in_ranges(probes, WHOLE, np.array([0.2, 0.4, 0.6, 0.8]), law=LAW,
                                   n_draws=50, rng=rng)
        assert [(m.first, m.last, m.n_probes) for m in found] == [
            (0, 0, 9), (1, 2, 9 + MIN_PROBES - 1), (3, 3, 0)]
        assert not found[-1].draws.size  # nothing between .6 and .8; .95 lies beyond

    def test_small_batches_beside_large_ones_count_for_little(self):
        rng = np.random.default_rng(4)
        levels = np.array([0.1] * 20 + [0.3] * 20)
        samples = np.where(np.arange(40) % 20 < 4, 512.0, 32.0)  # worth about four of 512 each
        probes = probes_at(rng, levels, signal=1.0, noise=5.0, samples=samples)
        found = measured_in_ranges(probes, WHOLE, np.array([0.2, 0.4]), law=LAW, n_draws=5,
                                   rng=rng)
        assert [(m.first, m.last, m.n_probes) for m in found] == [(0, 1, 40)]

    def test_probes_stand_at_the_accuracy_before_their_update(self, noisy):
        probes = probes_of_fit(noisy)
        assert set(probes["run"]) == set(noisy.crossings["run"].values)  # none of runs left out
        first = probes[probes["update"] == 1]
        start = noisy.sweep["accuracy"].sel(run=first["run"].values).isel(metric=0, step=0)
        assert first["accuracy"].to_numpy() == pytest.approx(start.values, abs=0.02)


class TestTable:
    def test_columns_rows_and_units(self, table, noisy):
        assert list(table.columns) == NOISE_COLUMNS
        assert set(table["law"]) == {"two_axis_free", "two_axis", "two_axis_sqrt"}
        assert set(table.loc[table["law"] != "two_axis_free", "average"]) == {"up_to"}
        units = dict(zip(table["quantity"], table["unit"], strict=True))
        assert units == {"N": "prompts", "B_prompt": "prompts",
                         "B_rollout": "prompts × (rollouts − 1)"}
        assert not table.duplicated(["law", "quantity", "at", "threshold", "average"]).any()

    def test_constant_noise_is_its_own_average_in_the_laws_units(self, table):
        held = table[table["measured_status"] == "resolved"]
        for quantity, truth in (("B_prompt", PROMPT), ("B_rollout", ROLLOUT)):
            assert held.loc[held["quantity"] == quantity, "measured"].to_numpy() == pytest.approx(
                truth)
        eight = held[held["at"] == "n_rollouts=8"]
        assert eight["measured"].to_numpy() == pytest.approx(PROMPT + ROLLOUT / 7)

    def test_fitted_side_is_the_table_of_the_fit(self, table, noisy):
        tables = {"two_axis_free": noisy.cbs, **noisy.others}
        for name, cbs in tables.items():
            if name not in ("two_axis_free", "two_axis", "two_axis_sqrt"):
                continue
            rows = table[(table["law"] == name) & (table["average"] == "up_to")
                         & (table["quantity"] == "B_prompt")]
            theirs = cbs[cbs["quantity"] == "B_prompt"].set_index("threshold")
            assert len(rows)
            for _, row in rows.iterrows():
                want = theirs.loc[row["threshold"]]
                assert row["fitted_status"] == want["status"]
                if want["status"] == "identified":  # others: draws from the table's interval
                    assert [row["fitted_lower"], row["fitted"], row["fitted_upper"]] == (
                        pytest.approx(want[["ci_lower", "median", "ci_upper"]].to_list(), rel=0.01))

    def test_single_ranges_make_up_the_average(self):
        """Σ over ranges of progress × momentary fitted noise is S_min B at the end, in draws."""
        rng = np.random.default_rng(0)
        scale, s_min = rng.uniform(1, 9, (7, 4)), np.cumsum(rng.uniform(1, 2, (7, 4)), axis=1)
        fitted = Fitted(scale, s_min, ["identified"] * 4)
        parts = [fitted.average(k, k)[0] * np.diff(s_min, axis=1, prepend=0)[:, k]
                 for k in range(4)]
        assert np.sum(parts, axis=0) / s_min[:, 3] == pytest.approx(scale[:, 3])

    def test_growing_noise_is_weighted_with_progress(self, fit):
        """Noise of 10 in the first range and 100 in the second: the average is what S_min says."""
        changed = with_noise(fit, every=1)
        first, second = (float(t) for t in fit.thresholds[:2])
        probes = probes_of_fit(changed)
        noise = np.where(probes["level"] <= first, 10.0, 100.0)
        probes = probes.assign(tr_sigma=8 * SIGNAL * noise, n_samples=64.0)
        found = measured_in_ranges(probes, WHOLE, np.array([first, second]), law=LAW,
                                   n_draws=3, rng=np.random.default_rng(0))
        s_min = np.tile([4.0, 10.0], (3, 1))
        assert [len(m.draws) for m in found] == [3, 3]
        assert measured_average(found, s_min) == pytest.approx(0.4 * 10 + 0.6 * 100)

    @pytest.mark.parametrize(("scatter", "signal"), [(1.0, 0.01), (0.0, -0.04)])
    def test_an_unresolved_denominator_gives_a_bound_and_no_number(self, fit, scatter, signal):
        rows = noise_comparison(with_noise(fit, scatter=scatter, signal=signal))
        rows = rows[rows["measured_status"] == "not_resolved"]
        assert len(rows)
        assert rows[["measured", "ratio"]].isna().all(axis=None)
        assert np.isinf(rows["measured_upper"]).all()
        assert signal > 0 or ((rows["measured_lower"] == 0).all()
                              and set(rows["verdict"]) == {"not_resolved"})

    def test_the_ratio_decides(self, fit):
        """Noise set to the fitted one agrees, a hundred times as much differs."""
        middle = fit.posterior[["B_prompt", "B_rollout"]].median()
        near = {"prompt": float(middle["B_prompt"]), "rollout": float(middle["B_rollout"])}
        agree, differ = (noise_comparison(with_noise(fit, **{k: f * v for k, v in near.items()}))
                         for f in (1, 100))
        for found, verdict in ((agree, {"agree", "not_resolved"}), (differ, {"differ"})):
            rows = found[(found["law"] == fit.law.name) & (found["at"] == "n_rollouts=8")
                         & (found["average"] == "up_to") & found["ratio"].notna()]
            assert len(rows) >= 2
            assert set(rows["verdict"]) <= verdict
        assert "agree" in set(agree["verdict"])

    def test_a_fit_without_probes_is_refused(self, fit):
        with pytest.raises(CBSDataError, match="no gradient noise was logged"):
            noise_comparison(fit)


@pytest.mark.parametrize(("lower", "upper", "verdict"), [
    (1 / FACTOR, FACTOR, "agree"), (1.5, 2.0, "agree"), (2.0, 4.0, "differ"),
    (0.1, 0.9, "differ"), (0.2, 2.0, "not_resolved"), (1.1, np.inf, "differ"),
    (0.4, np.inf, "not_resolved"), (np.nan, np.nan, "not_resolved")])
def test_verdicts(lower, upper, verdict):
    assert verdict_of(lower, upper) == verdict


def noise_section(fit):
    page = fit_page(Facts(fit), [])
    return next(section for section in page.sections if section.slug == "noise")


class TestShown:
    def test_the_page_shows_measured_beside_fitted(self, noisy, table):
        section = noise_section(noisy)
        rows = shown_rows(table, noisy)
        assert len(section.tables["noise"].rows) == (rows["average"] == "up_to").sum()
        assert "N" in [row[0].text for row in section.tables["noise"].rows]

    def test_one_sentence_says_that_nothing_was_logged(self, fit):
        section = noise_section(fit)
        reason = Facts(fit).noise
        assert section.sentences == [f"{reason[:1].upper()}{reason[1:]}."]
        assert section.tables == {}

    def test_the_file_is_written_and_goes_with_the_noise(self, noisy, fit, tmp_path):
        with few_figures(1):
            write_fit(noisy, tmp_path)
            held = pd.read_csv(tmp_path / "noise.csv", keep_default_na=True)
            write_fit(fit, tmp_path)
        assert list(held.columns) == NOISE_COLUMNS
        assert not (tmp_path / "noise.csv").exists()

    def test_figure_has_a_panel_per_scale_and_black_points_where_measured(self, noisy, table):
        with detached():
            figure = plot_noise_against_fit(noisy)
        assert [ax.get_title(loc="left") for ax in figure.axes] == ["N at 8 rollouts", "B_prompt",
                                                          "B_rollout"]
        rows = shown_rows(table, noisy)
        rows = rows[(rows["law"] == noisy.law.name) & (rows["average"] == "up_to")
                    & (rows["quantity"] == "B_prompt")]
        points = [line for line in figure.axes[1].get_lines()
                  if line.get_gid() == "estimate" and line.get_color() == "#1a1a1a"]
        assert [line.get_ydata()[0] for line in points] == pytest.approx(
            rows["measured"].dropna().to_list())
