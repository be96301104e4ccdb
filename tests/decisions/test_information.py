"""Expected information: a linear-normal case whose answer is known, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
from fitted import changed

from cbsbayes.decisions.information import (
    expected_information,
    normal_scores,
    planned_quantity,
    posterior_moments,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.learning_rate import rate_table
from cbsbayes.posterior.quantities import design_of, quantities

LOADING = np.array([0.5, 1.0])  # y = θ·LOADING + noise; the quantity is θ_2


def log_weights(noise, rng, n_draws=2000, n_data=128, repeats=1):
    """Return draws, and log p of simulated data under each, `repeats` data added up."""
    draws, truths = rng.normal(size=(n_draws, 2)), rng.normal(size=(n_data, 2))
    total = np.zeros((n_data, n_draws))
    for _ in range(repeats):
        y = truths @ LOADING + noise * rng.normal(size=n_data)
        total -= 0.5 * ((y[:, None] - draws @ LOADING) / noise) ** 2
    return draws[:, 1], total


def information(values, weights):
    scores = normal_scores(values)
    nothing = posterior_moments(np.zeros_like(weights), scores)
    return expected_information(nothing, posterior_moments(weights, scores))


def exact(noise, repeats=1):
    variance = 1.0 - 1.0 / (LOADING @ LOADING + noise**2 / repeats)
    return -0.5 * np.log(variance)


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_the_linear_normal_case(noise):
    found = [information(*log_weights(noise, np.random.default_rng(k))) for k in range(12)]
    nats = np.array([info.nats for info in found])
    errors = np.array([info.error for info in found])
    assert nats.mean() == pytest.approx(exact(noise), abs=4 * errors.mean() / np.sqrt(12))
    assert 0.5 < nats.std(ddof=1) / errors.mean() < 2.0  # the error printed is the error made


@pytest.mark.parametrize("asked", [
    "cbs_at_rate@n_rollouts=8,learning_rate=3e-7", "steepness", "apparent_exponent@n_rollouts=8,"
    "learning_rate=1e-6", "steps_at_best@n_prompts=32,n_rollouts=8"])
def test_rows_of_learning_rates_can_be_asked_for(rate_fit, asked):
    quantity = planned_quantity(rate_fit, asked, 0.7)
    table = rate_table(rate_fit)
    row = table[(table["quantity"] == quantity.name) & (table["at"] == quantity.at)
                & table["threshold"].isin([quantity.threshold, np.nan])].iloc[0]
    assert quantity.status == row["status"]
    if row["status"] == "identified":
        assert np.median(quantity.values) == pytest.approx(row["median"], rel=0.05)


def test_units_and_logarithms_change_nothing():
    values, weights = log_weights(1.0, np.random.default_rng(1))
    plain = information(values, weights)
    for other in (np.exp(values), 1000.0 * values + 7.0, np.exp(3 * values)):
        assert information(other, weights) == plain
    assert information(-values, weights).nats == pytest.approx(plain.nats)


def test_data_about_something_else_tell_nothing_of_the_quantity():
    rng = np.random.default_rng(4)
    draws, truths = rng.normal(size=(4000, 2)), rng.normal(size=(128, 2))
    y = truths[:, 0] + 0.3 * rng.normal(size=128)
    weights = -0.5 * ((y[:, None] - draws[:, 0]) / 0.3) ** 2
    info = information(draws[:, 1], weights)
    assert abs(info.nats) < 3 * info.error
    assert info.effective < 2500  # though they tell a lot of the other parameter


def test_repeated_data_saturate():
    one, two, eight = (information(*log_weights(1.0, np.random.default_rng(5), repeats=k)).nats
                       for k in (1, 2, 8))
    assert one < two < eight
    assert two < 2 * one
    # θ_2 stays unknown by what θ_1 hides, however often the same is measured
    assert eight < -0.5 * np.log(1 - 1 / (LOADING @ LOADING))
    assert eight == pytest.approx(exact(1.0, 8), rel=0.15)


class TestPlannedQuantity:
    def test_by_default_the_prompt_cbs_at_the_usual_group_and_hardest_identified(self, fit):
        found = planned_quantity(fit)
        assert (found.name, found.at) == ("cbs_prompts", "n_rollouts=8")
        rows = fit.cbs.query("quantity == 'cbs_prompts' and at == 'n_rollouts=8'")
        known = rows[rows["status"] == "identified"]["threshold"]
        assert (found.threshold, found.status) == (known.max(), "identified")
        median = rows[rows["threshold"] == found.threshold]["median"].iloc[0]
        assert np.median(found.values) == pytest.approx(median, rel=1e-6)

    def test_every_quantity_of_the_table_can_be_asked_for(self, fit):
        for quantity in quantities(fit.law, fit.posterior, design_of(fit.crossings)):
            asked = f"{quantity.name}@{quantity.at}" if quantity.at else quantity.name
            found = planned_quantity(fit, asked)
            assert (found.name, found.at) == (quantity.name, quantity.at)

    def test_a_group_size_that_was_not_tried(self, fit):
        found = planned_quantity(fit, "cbs_prompts@n_rollouts=12")
        assert (found.at, found.status) == ("n_rollouts=12", "")

    def test_where_nothing_is_identified_the_hardest_bound_is_taken(self, fit):
        found = planned_quantity(changed(fit, table_cbs=fit.cbs.assign(status="not_identified")))
        assert (found.threshold, found.status) == (fit.thresholds[-1], "not_identified")

    @pytest.mark.parametrize(("asked", "threshold", "message"), [
        ("cbs", None, "unknown quantity 'cbs'; this fit has .*cbs_prompts"),
        ("cbs_prompts@n_rollouts", None, "is not of the form n_rollouts=8"),
        ("cbs_prompts@n_rollouts=-3", None, "is not of the form n_rollouts=8"),
        ("cbs_prompts@n_prompts=32", None,
         "is not stated at n_prompts=32; valid: cbs_prompts@n_roll"),
        ("steps", None, "is not stated at no batch; valid:"),
        (None, 0.99, r"threshold 0.99 was not fitted; fitted: 0\.")])
    def test_what_cannot_be_planned_for(self, fit, asked, threshold, message):
        with pytest.raises(CBSDataError, match=message):
            planned_quantity(fit, asked, threshold)
