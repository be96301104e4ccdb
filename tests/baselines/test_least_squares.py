"""Common practice reproduced with its faults."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from scipy import optimize

from cbsbayes.baselines.least_squares import least_squares
from cbsbayes.baselines.log_space import log_least_squares
from cbsbayes.errors import CBSDataError

BATCH = np.array([1024, 128, 256, 4096, 512, 2048], dtype=float)


@pytest.mark.parametrize(("steps", "s_min", "b_noise", "r2"), [
    ([75, 175, 125, 50, 75, 50], 48.75621880531807, 343.32361630700257, 0.9723549738989781),
    ([50, 300, np.nan, 50, 100, 75], 38.991306946186675, 849.429944411476, 0.9803177121224369),
    ([50, 50, 50, 50, 50, 50], 49.999999522668595, 3.724094171441641e-06, 0.0),
])
def test_least_squares_gives_what_the_notebook_gave(steps, s_min, b_noise, r2):
    fit = least_squares(BATCH, steps)
    assert fit.S_min == pytest.approx(s_min, rel=1e-6)
    # a flat S leaves B_noise at rounding of 0, which differs between processors
    assert fit.B_noise == pytest.approx(b_noise, rel=1e-5, abs=1e-4)
    assert fit.r2 == pytest.approx(r2, abs=1e-9)
    assert (fit.n_used, fit.n_dropped) == (np.isfinite(steps).sum(), np.isnan(steps).sum())
    assert np.isnan([fit.ci_lower, fit.ci_upper]).all()


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_is_the_nonnegative_linear_regression_on_one_over_b(seed):
    batch = np.repeat(BATCH, 3)
    noise = np.random.default_rng(seed).normal(0, 0.1, batch.size)
    steps = 50 * (1 + 700 / batch) * np.exp(noise)
    (s_min, e_min), _ = optimize.nnls(np.column_stack([np.ones(batch.size), 1 / batch]), steps)
    fit = least_squares(batch, steps)
    assert fit.S_min == pytest.approx(s_min, rel=1e-3)
    assert fit.E_min == pytest.approx(e_min, rel=1e-3)
    np.testing.assert_allclose(fit.predict([100.0, 1e4]), s_min + e_min / np.array([1e2, 1e4]),
                               rtol=1e-3)


def test_least_squares_needs_three_crossings():
    for method in (least_squares, log_least_squares):
        fit = method([64, 128, 256], [50, np.inf, 40])
        assert np.isnan(fit.B_noise)
        assert fit.note == "2 of 3 runs have a crossing to fit; three are needed"


def test_least_squares_that_does_not_converge_says_so(monkeypatch):
    def give_up(*args, **kwargs):
        raise RuntimeError("Optimal parameters not found")

    monkeypatch.setattr(import_module("cbsbayes.baselines.least_squares"), "curve_fit", give_up)
    fit = least_squares(BATCH, [50, 300, np.nan, 50, 100, 75])
    assert np.isnan([fit.S_min, fit.B_noise, fit.r2]).all()
    assert "did not converge" in fit.note
    assert (fit.n_used, fit.n_dropped) == (5, 1)


@pytest.mark.parametrize("fit", [least_squares, log_least_squares])
@pytest.mark.parametrize(("batch", "steps", "message"), [
    ([64, 0, 256], [3, 2, 1], r"batch holds 0; only positive numbers"),
    ([64, -128, 256], [3, 2, 1], r"batch holds -128"),
    ([64, 128, 256], [3, 2, 0], r"steps holds 0"),
    ([64, 128], [3, 2, 1], r"shapes \(2,\) and \(3,\)"),
])
def test_bad_numbers_are_refused(fit, batch, steps, message):
    with pytest.raises(CBSDataError, match=message):
        fit(batch, steps)
