"""Fixtures that more than one test module needs."""

from __future__ import annotations

from pathlib import Path

import pytest
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

NO_DENSITY = ("crossings", "logs", "probe", "simulation", "sweep", "training")
ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take long: at the end one would leave a worker waiting.

    The second of two workers gets the second half: it begins with tests that need no density, and
    later finds compiled what the first compiled meanwhile.
    """
    long, light, others = [], [], []
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        into = long if marks & {"mcmc", "long"} else (
            light if item.path.parent.name in NO_DENSITY else others)
        into.append(item)
    half = max(len(items) // 2 - len(long), 0)
    items[:] = [*long, *others[:half], *light, *others[half:]]


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
