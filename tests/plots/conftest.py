"""Stand-in fits and times for figures, drawn without pyplot."""

from __future__ import annotations

import pytest
from fit_fixture import make_fit, make_one_axis_fit
from fitted import timed_fit

from cbsbayes.decisions.time_to_target import Machine, times_of
from cbsbayes.plots.style import detached


@pytest.fixture(scope="session")
def fit():
    return make_fit()


@pytest.fixture(scope="session")
def one_axis():
    return make_one_axis_fit()


@pytest.fixture(scope="session")
def timed():
    return timed_fit()


@pytest.fixture(scope="session")
def times(timed):
    return times_of(timed, Machine((8, 64)))


@pytest.fixture(autouse=True)
def _no_pyplot():
    with detached():
        yield
