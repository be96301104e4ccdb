"""What tests of commands that read a fit share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def saved(fit, tmp_path_factory):
    """A fit as a file, alone in its folder."""
    return fit.save(tmp_path_factory.mktemp("fitted") / "fit.nc")
