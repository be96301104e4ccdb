"""Fixtures that keep the genuine wandb client on this machine and away from the user's files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from wandb_server import API_KEY, WandbServer, child_environment

from cbsbayes.logs import wandb_service as wandb_api
from cbsbayes.logs.run_log import RunLog


@pytest.fixture(scope="module")
def wandb_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give wandb a home of its own and a fresh sidecar process."""
    wandb = pytest.importorskip("wandb")
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_"))]:
            patch.delenv(name)
        for name in ("HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(home))
        patch.setenv("NETRC", str(home / "netrc"))
        patch.setenv("WANDB_API_KEY", API_KEY)
        patch.setenv("WANDB_X_DISABLE_STATS", "true")
        _end_service(wandb)
        yield home
        _end_service(wandb)


def _end_service(wandb: Any) -> None:
    """End wandb's sidecar; killed where it has not heard of it.

    Where the client closes its connection while the sidecar still answers, the sidecar drops what
    it was told last, and the client would wait for its end without bound.
    """
    ending = threading.Thread(target=wandb.teardown, daemon=True)
    ending.start()
    ending.join(60.0)
    if ending.is_alive():
        for child in psutil.Process().children():
            if child.name() == "wandb-core":
                child.kill()
        ending.join()


@pytest.fixture
def server(wandb_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """Start a server and point the client at it."""
    with WandbServer() as started:
        monkeypatch.setenv("WANDB_BASE_URL", started.url)
        yield started


@pytest.fixture
def read(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[RunLog]]:
    """Return the reader with a cache of its own and without pauses between attempts."""
    monkeypatch.setattr(wandb_api, "_PAUSE", 0.0)

    def read(project: str = "ent/proj", **options: Any) -> list[RunLog]:
        return wandb_api.read_wandb_api(project, cache_dir=tmp_path / "cache", **options)

    return read


@pytest.fixture
def retries(wandb_home: Path) -> Iterator[Any]:
    """Return the client's settings, whose bound on retries is put back afterwards."""
    import wandb

    settings = wandb.setup().settings
    before = settings.x_graphql_retry_max
    yield settings
    settings.x_graphql_retry_max = before


@pytest.fixture
def run_python(wandb_home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs code in a process of its own, with nothing to read from."""

    def run(code: str, *args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *map(str, args)]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=check,
            timeout=900, env=child_environment(),
        )  # fmt: skip

    return run
