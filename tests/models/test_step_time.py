"""The density of step times: against its definition, and data that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats
from timed_tables import CELLS, TRUTH, table, terms

from cbsbayes.errors import CBSDataError
from cbsbayes.models import step_time
from cbsbayes.models.step_time import (
    log_density,
    log_step_time,
    parameters,
    prior_parameters,
    prior_scale,
    step_time_data,
)


@pytest.fixture(scope="module", params=[(0, 1, 2), (0, 2)])
def rows(request):
    seconds, rows = table(np.random.default_rng(0), sigma=0.05)
    return seconds, rows[:, list(request.param)]


def positions(data, n=6):
    center, sd = prior_scale(data)
    return center + sd * np.random.default_rng(1).normal(size=(n, len(center)))


def defined(position, seconds, rows, data):
    """Return the log posterior by the distributions of the module's docstring."""
    found = parameters(position, data)
    standard = found.coefficients * data.scale / data.unit
    residual = np.log(seconds) - log_step_time(found.coefficients, found.kappa, rows)
    value = (stats.t.logpdf(residual / found.sigma, found.nu) - np.log(found.sigma)).sum()
    value += stats.gamma.logpdf(standard, 0.5).sum() + stats.gamma.logpdf(found.nu - 1, 2, scale=10)
    value += stats.lognorm.logpdf(found.sigma - step_time.LEAST_SIGMA, 1.5, scale=0.1)

    def transformed(at):
        here = parameters(at, data)
        score = special.ndtri(np.sqrt((1 - here.kappa) / 0.9))  # standard normal in the prior
        return np.concatenate([here.coefficients, [here.sigma, here.nu, score]])

    value += stats.norm.logpdf(transformed(position)[-1])
    steps = 1e-5 * np.eye(len(position))
    jacobian = [(transformed(position + h) - transformed(position - h)) / 2e-5 for h in steps]
    return value + np.linalg.slogdet(np.array(jacobian))[1]


def test_the_density_is_that_of_its_definition(rows):
    data = step_time_data(*rows)
    off = [log_density(at, data)[0] - defined(at, *rows, data) for at in positions(data)]
    np.testing.assert_allclose(off, off[0], atol=1e-5)


def test_the_gradient_is_that_of_the_value(rows):
    data = step_time_data(*rows)
    for at in positions(data):
        steps = 1e-6 * np.eye(len(at))
        slope = [(log_density(at + h, data)[0] - log_density(at - h, data)[0]) / 2e-6
                 for h in steps]
        gradient = log_density(at, data)[1]
        np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6 * np.abs(slope).max())


def test_positions_of_the_prior_have_the_priors_parameters(rows):
    """Coefficients gamma(1/2), their sum known where shares are not; a fifth of κ above .96."""
    data = step_time_data(*rows)
    prior = prior_parameters(data, (20_000,), np.random.default_rng(1))
    standard = prior.coefficients * data.scale / data.unit
    assert stats.kstest(standard[:, 0], stats.gamma(0.5).cdf).pvalue > 0.01
    assert (prior.kappa > 0.96).mean() == pytest.approx(0.21, abs=0.01)
    assert prior.kappa.min() > 0.1


def test_near_kappa_0_the_larger_counts_and_at_1_the_sum():
    sums = terms(CELLS) @ TRUTH
    at = np.array([1.0, 0.1])
    found = np.exp(log_step_time(np.stack([TRUTH, TRUTH]), at, terms(CELLS)))
    np.testing.assert_allclose(found[0], sums)
    larger = np.maximum(TRUTH[0], sums - TRUTH[0])
    assert (found[1] >= larger).all()
    assert (found[1] <= 1.08 * larger).all()


def test_units_change_nothing():
    seconds, rows = table(np.random.default_rng(0))
    one, other = step_time_data(seconds, rows), step_time_data(seconds / 3600, rows * [1, 10, 10])
    at = positions(one, 1)[0]
    assert log_density(at, one)[0] == pytest.approx(log_density(at, other)[0])
    np.testing.assert_allclose(parameters(at, other).coefficients * [3600, 36000, 36000],
                               parameters(at, one).coefficients)


@pytest.mark.parametrize(("seconds", "terms", "message"), [
    ([1.0, 2.0], [[1, 1], [1, 2]], "2 step times are too few"),
    ([1.0, -2.0, 3.0], [[1, 1], [1, 2], [1, 3]], "a step time is -2; valid: finite and positive"),
    ([1.0, np.nan, 3.0], [[1, 1], [1, 2], [1, 3]], "a step time is nan"),
    ([1.0, 2.0, 3.0], [[1, 0], [1, 2], [1, 3]], "a term is 0; valid: finite and positive"),
    ([1.0, 2.0, 3.0], [[1], [1], [1]], "two terms and more"),
])
def test_rows_that_cannot_be_are_refused(seconds, terms, message):
    with pytest.raises(CBSDataError, match=message):
        step_time_data(np.array(seconds), np.array(terms, dtype=float))
