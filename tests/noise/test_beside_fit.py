"""Measured beside fitted noise: known truths come back, like is compared with like."""

from __future__ import annotations

import numpy as np
import pytest
from fitted import changed
from noise_tables import noise_section

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
from cbsbayes.noise.logged import measured_in_ranges, probes_at_accuracy
from cbsbayes.plots import plot_noise_against_fit
from cbsbayes.plots.style import detached
from cbsbayes.report.facts import Facts

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


LAW = get_law("two_axis_free")
WHOLE = parts_of(LAW, [8])[0]


def logged(fit):
    """Return the probes of the runs fitted."""
    return probes_at_accuracy(fit.sweep.sel(run=fit.crossings["run"].values), None)


def test_probes_stand_at_the_accuracy_before_their_update(noisy):
    probes = logged(noisy)
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
        first, second = (float(t) for t in fit.thresholds[:2])
        probes = logged(with_noise(fit, every=1))
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
