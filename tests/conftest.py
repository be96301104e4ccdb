"""Fixtures that more than one test module needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("PYTENSOR_FLAGS", "cxx=")  # else 15 s go into C parts that nothing here uses

from fitted import (  # noqa: F401
    fit,
    one_axis,
    pair,
    prompts_sweep,
    rate_fit,
    rollouts_alone,
    sweep,
    sweep_file,
    timed,
    written,
)
from hypothesis import settings

settings.register_profile("cbsbayes", deadline=None)  # a machine may be busy
settings.load_profile("cbsbayes")
pytest_plugins = ["wandb_server"]

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take long: at the end one would leave a worker waiting."""
    items.sort(key=lambda item: not any(item.iter_markers("mcmc"))
               and not any(item.iter_markers("long")))


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def public_data() -> Path:
    """Return the folder of public measurements that stays outside the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the public measurements lie beside the checkout only where it was made")
    return folder
