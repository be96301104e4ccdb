"""What is read off a fit that knows learning rates; its draws cost no sampling."""

from __future__ import annotations

import numpy as np
import pytest
from fitted import RATES, SETTINGS, few_figures, quick_sampling

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.plots import draw_figure, page_figures, plot_learning_rates
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.learning_rate import best_rates, lines, rate_table
from cbsbayes.posterior.tidy import CBS_COLUMNS
from cbsbayes.report.folder import write_fit
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.validation.families import family_sweep, get_family


@pytest.fixture(scope="module")
def one_rate_fit():
    with quick_sampling():
        return fit_sweep(simulate_sweep("lr", rates=RATES[:1], max_updates=1500),
                         thresholds=[0.65, 0.7], sampler=SETTINGS)


def rows(fit, quantity, threshold=0.7):
    table = rate_table(fit)
    return table[(table["quantity"] == quantity) & np.isclose(table["threshold"], threshold)]


def test_every_batch_has_its_best_rate_and_every_rate_its_cost(rate_fit):
    table = rate_table(rate_fit)
    assert list(table.columns) == CBS_COLUMNS
    assert rate_fit.law.name == "learning_rate_total"
    assert len(rows(rate_fit, "best_rate")) == len(rows(rate_fit, "steps_at_best")) == 5
    cost = rows(rate_fit, "rate_cost").set_index("at")
    assert len(cost) == 15
    for number in ("median", "ci_lower", "ci_upper"):
        assert (cost[number].dropna() >= 1 - 1e-9).all()
    for at, draws in ((at, best_rates(rate_fit, p, 8, 0.7)) for p in (32, 512)
                      for at in [f"n_prompts={p},n_rollouts=8"]):
        row = rows(rate_fit, "best_rate").set_index("at").loc[at]
        if row["status"] == "identified":
            assert row["median"] == pytest.approx(np.median(draws), rel=1e-6)
    assert (best_rates(rate_fit, 512, 8, 0.7) > best_rates(rate_fit, 32, 8, 0.7)).mean() > 0.95


def test_the_rules_share_the_probability(rate_fit):
    rule = rows(rate_fit, "p_rule")
    assert len(rule) == 3
    assert rule["median"].sum() == pytest.approx(1.0)
    stable = rows(rate_fit, "largest_stable_rate")["median"]
    assert set(stable.dropna()) <= set(RATES)


def test_s_at_a_rate_is_least_at_the_best_one(rate_fit):
    draws = rate_fit.log_steps(128, 8, 0.7)
    for rate in RATES:
        assert (rate_fit.log_steps(128, 8, 0.7, learning_rate=rate) >= draws - 1e-9).all()
    new = rate_fit.new_run(128, 8, 0.7, learning_rate=RATES[0])
    assert np.median(new) > np.median(draws)


@pytest.mark.mcmc
def test_the_slope_below_the_best_rate_is_found():
    sweep = family_sweep(get_family("rates_half"), get_law("learning_rate_total"), 0)
    fit = fit_sweep(sweep, thresholds=[0.6, 0.65, 0.7], alternatives=False)
    for name, true in (("slope_below", 0.5), ("steepness", 3.0), ("gamma", 0.5)):
        lower, upper = np.quantile(fit.posterior[name], [0.05, 0.95])
        assert lower < true < upper, name
    assert np.quantile(fit.posterior["slope_below"], 0.95) < 1.0


def test_the_page_shows_learning_rates_where_the_law_knows_them(rate_fit, one_rate_fit, tmp_path):
    with few_figures():
        write_fit(rate_fit, tmp_path / "several")
        write_fit(one_rate_fit, tmp_path / "one")
    assert (tmp_path / "several" / "learning_rate.csv").exists()
    page = (tmp_path / "several" / "index.html").read_text("utf-8")
    assert "What the learning rate does" in page
    assert "best learning rate is" in page
    assert "Numbers and curves that name no learning rate hold at the best one" in page
    assert not (tmp_path / "one" / "learning_rate.csv").exists()
    page = (tmp_path / "one" / "index.html").read_text("utf-8")
    assert "What the learning rate does" not in page
    assert "3 more runs, the smallest, a middle and the largest batch at 3 times the rate" in page


def test_a_fit_of_one_rate_has_no_table_of_them(one_rate_fit):
    assert rate_table(one_rate_fit).empty
    with pytest.raises(CBSDataError, match="'total' knows no learning rate; fit runs of several"):
        lines(one_rate_fit)
    with pytest.raises(CBSDataError, match="knows no learning rate"):
        plot_learning_rates(one_rate_fit)


def test_the_map_of_rates_marks_runs_and_the_best_rate(rate_fit):
    figure = draw_figure(plot_learning_rates, rate_fit, threshold=0.7)
    ax = figure.axes[0]
    points = np.vstack([c.get_offsets() for c in ax.collections if c.get_gid() == "tried"])
    assert len(points) == 15
    assert {round(float(y) * 1e7) for _, y in points} == {3, 10, 20}
    assert "learning_rate" in [item.slug for item in page_figures(rate_fit)]
