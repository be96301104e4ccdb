"""Facts of the fit that tests of reports share; what they hold is computed once."""

from __future__ import annotations

import pytest

from cbsbayes.report.facts import Facts


@pytest.fixture(scope="session")
def facts(fit):
    return Facts(fit)
