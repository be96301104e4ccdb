"""Figures are drawn without pyplot."""

from __future__ import annotations

import pytest

from cbsbayes.plots.style import detached


@pytest.fixture(autouse=True)
def _no_pyplot():
    with detached():
        yield
