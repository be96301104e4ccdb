"""The priors at one threshold and at several."""

import pytest

from cbsbayes.models.parameters import PRIORS


def test_at_one_threshold_the_residual_takes_what_the_run_effect_leaves():
    one = PRIORS.at(1)
    assert one.sigma_run < 0.02
    assert one.sigma_residual == pytest.approx((PRIORS.sigma_run**2
                                                + PRIORS.sigma_residual**2) ** 0.5)
    assert PRIORS.at(2) is PRIORS
