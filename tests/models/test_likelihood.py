"""The interval likelihood against high precision, in both of its forms."""

from __future__ import annotations

from decimal import Decimal, getcontext

import numpy as np
import pytest

from cbsbayes.models.likelihood import FAR, LOGISTIC_SCALE, log_interval, log_interval_numpy

getcontext().prec = 60
CASES = [
    (-1.0, 1.0), (0.0, 1e-9), (3.0, 3.0 + 1e-6), (-40.0, -39.9), (39.9, 40.0), (200.0, 201.0),
    (-701.0, -700.0), (-600.0, 0.3), (-0.3, 600.0), (-600.0, 600.0), (12.0, 12.0 + 2e-3),
    (-1e-3, 1e-3), (650.0, 900.0),
]


def exact(a, b):
    """Return log(σ(b) − σ(a)) with sixty digits, the ends taken as the floats they are."""
    low, high = Decimal(a), Decimal(b)
    # both tails as small numbers: σ(b) − σ(a) = (e^−a − e^−b) σ(a) σ(b)
    below, above = (-low).exp(), (-high).exp()
    return float((below - above).ln() - (1 + below).ln() - (1 + above).ln())


@pytest.mark.parametrize(("a", "b"), CASES)
def test_numpy_against_sixty_digits(a, b):
    found = float(log_interval_numpy(np.float64(a), np.float64(b)))
    assert found == pytest.approx(exact(a, b), rel=1e-12, abs=1e-12)


def test_pytensor_agrees_and_has_finite_slopes():
    import pytensor
    import pytensor.tensor as pt

    a, b = pt.dvector("a"), pt.dvector("b")
    value = log_interval(a, b)
    graph = [value, *pytensor.grad(value.sum(), [a, b])]
    compiled = pytensor.function([a, b], graph, mode="FAST_COMPILE")
    low, high = (np.array(ends) for ends in zip(*CASES, strict=True))
    found, by_low, by_high = compiled(low, high)
    np.testing.assert_allclose(found, [exact(*case) for case in CASES], rtol=1e-12, atol=1e-12)
    assert np.isfinite(by_low).all()
    assert np.isfinite(by_high).all()


def test_far_ends_stand_for_none():
    scale = 0.3 * LOGISTIC_SCALE
    right = log_interval_numpy(np.array(1.0 / scale), np.array(FAR / scale))
    assert right == pytest.approx(-np.logaddexp(0, 1.0 / scale), rel=1e-12)
    left = log_interval_numpy(np.array(-FAR / scale), np.array(1.0 / scale))
    assert left == pytest.approx(-np.logaddexp(0, -1.0 / scale), rel=1e-12)


def test_intervals_add_up_to_one():
    ends = np.concatenate([[-FAR], np.linspace(-4, 4, 33), [FAR]]) * 3
    assert np.exp(log_interval_numpy(ends[:-1], ends[1:])).sum() == pytest.approx(1, rel=1e-12)


def test_scale_of_a_logistic_of_standard_deviation_one():
    x = np.linspace(-60, 60, 240_001)
    density = np.exp(-x / LOGISTIC_SCALE - 2 * np.logaddexp(0, -x / LOGISTIC_SCALE))
    assert np.trapezoid(x**2 * density / LOGISTIC_SCALE, x) == pytest.approx(1.0, rel=1e-6)
