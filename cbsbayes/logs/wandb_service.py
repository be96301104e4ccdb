"""Runs of a wandb project, read with the genuine client and kept in a cache of our own.

The client's cache returns stale histories and keeps broken downloads, so it is not used; its
``keys=`` filters live rows but not exported ones, so all metrics are read. Sampled histories
are never used.
"""

from __future__ import annotations

import netrc
import os
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.bounded import run_bounded
from cbsbayes.logs.cache import HistoryCache, cache_folder, file_name
from cbsbayes.logs.history import listed
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.wandb_rows import history_from_wandb, import_wandb

__all__ = ["read_wandb_api"]

_PROJECT = re.compile(r"[^/\\#?%:\s][^/\\#?%:]*/[^/\\#?%:\s][^/\\#?%:]*")
_RETRIES = 4  # of one request, by the client, with waits of about 2, 5, 9 and 16 s
_ATTEMPTS = 3  # at one run, when its history came back short or broken
_PAUSE = 2.0  # seconds before the next attempt
_LIST_SECONDS = 45  # wall time for one page of the listing, repeats included
_RUN_SECONDS = 600.0  # wall time for one run: the client repeats a rate-limited scan for ever
_STATES = {
    "finished": "finished",
    "running": "running",
    "preempting": "running",
    "failed": "failed",
    "crashed": "crashed",
    "killed": "crashed",
    "preempted": "crashed",
}

type _History = tuple[pd.DataFrame, tuple[str, ...]]


def read_wandb_api(
    project: str,
    *,
    skip: Collection[str] = (),
    cache_dir: Path | None = None,
    workers: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> list[RunLog]:
    """Read every run of a wandb project.

    Histories are kept in a cache, one file per run, and are fetched again only when the
    service says that a run has moved on; a reading that was broken off goes on where it was.

    Parameters
    ----------
    project : str
        ``ENTITY/PROJECT``.
    skip : collection of str
        Names and ids of runs to leave out.
    cache_dir : Path, optional
        Folder of the cache; default ``cbsbayes/wandb`` in the user's cache folder.
    workers : int, default 4
        Runs fetched at one time.
    progress : callable, optional
        Called as ``progress(done, total)`` after each run.

    Returns
    -------
    list of RunLog
        One per run, in the order they were created.

    Raises
    ------
    CBSDataError
        If the wandb extra or an API key is missing, the service does not answer, the project
        is unknown or empty, or some runs could not be read (the others are then in the
        cache, and reading again fetches only those).
    """
    if not _PROJECT.fullmatch(project):
        raise CBSDataError(f"{project!r} names no wandb project; give ENTITY/PROJECT")
    wandb = import_wandb()
    _need_key(wandb)
    _bound_retries(wandb)
    runs = [run for run in _list_runs(wandb, project)
            if run.id not in skip and run.name not in skip]
    host = urlsplit(_base_url(wandb)).netloc.rpartition("@")[2]  # never a key in a path
    names = map(file_name, (host, *project.split("/")))
    folder = Path(cache_dir or cache_folder("wandb")).joinpath(*names)
    found = _histories(runs, HistoryCache(folder), workers, progress)
    histories = _all_or_error(project, runs, found)
    return [_run_log(run, *histories[run.id]) for run in runs]


def _base_url(wandb: Any) -> str:
    """Return the service's address as the client's `Api` finds it."""
    return os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url


def _need_key(wandb: Any) -> None:
    """Refuse to go on without credentials: the client would ask for them at the terminal."""
    host = _base_url(wandb)
    try:
        stored = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(host).hostname or "")
    except (OSError, netrc.NetrcParseError):
        stored = None
    if not (stored or os.environ.get("WANDB_API_KEY") or os.environ.get(
            "WANDB_IDENTITY_TOKEN_FILE")):
        raise CBSDataError(
            f"no wandb API key for {host}; set WANDB_API_KEY or run `wandb login`, then repeat"
        )


def _bound_retries(wandb: Any) -> None:
    """Let the client give up a request after some repeats, unless the user has set how many."""
    settings = wandb.setup().settings
    if settings.x_graphql_retry_max is None:
        settings.x_graphql_retry_max = _RETRIES


def _list_runs(wandb: Any, project: str) -> list[Any]:
    """Return the project's runs with their configurations.

    A client keeps listings for as long as it lives, so each reading makes its own.
    """
    host = _base_url(wandb)
    try:
        client = wandb.Api(timeout=_LIST_SECONDS)
        runs = list(client.runs(project, order="+created_at", lazy=False))
    except ValueError as error:
        raise CBSDataError(
            f"wandb at {host} has no project {project} that this API key may read; "
            "check ENTITY/PROJECT and the key"
        ) from error
    except Exception as error:  # the client's errors have no base class in common
        raise CBSDataError(
            f"cannot list the runs of {project} on wandb at {host}: {_reason(error)}; "
            "check the network, WANDB_BASE_URL and the API key, then repeat"
        ) from error
    if not runs:
        raise CBSDataError(f"the wandb project {project} at {host} holds no run; check its name")
    return runs


def _histories(
    runs: Sequence[Any],
    cache: HistoryCache,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, _History | Exception]:
    """Return each run's history from the cache or the service, or why there is none."""
    kept = {run.id: cache.load(run.id, _version(run)) for run in runs}
    found: dict[str, _History | Exception] = {id_: h for id_, h in kept.items() if h is not None}
    count = len(found)

    def tell(more: int = 1) -> None:
        nonlocal count
        count += more
        if progress is not None:
            progress(count, len(kept))

    tell(0)
    jobs = {run.id: partial(_fetch, run, cache) for run in runs if run.id not in found}
    return found | run_bounded(jobs, workers=workers, seconds=_RUN_SECONDS, done=tell)


def _version(run: Any) -> str:
    """Return what the listing says of a run's growth; the same text means the same history."""
    return f"{run.historyLineCount} rows, heartbeat {run.heartbeatAt}, {run.state}"


def _fetch(run: Any, cache: HistoryCache) -> _History:
    """Read a run's history and keep it, trying again while it comes back short or broken."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            history, notes = _scan(run)
            break
        except Exception as error:
            if attempt == _ATTEMPTS or "giving up after" in str(error):  # the client repeated it
                raise
            time.sleep(_PAUSE * attempt)
    cache.store(run.id, _version(run), history, notes)
    return history, notes


def _scan(run: Any) -> _History:
    rows = list(run.scan_history(use_cache=False))
    expected = run.historyLineCount or 0
    if len(rows) < expected:
        raise CBSDataError(f"{len(rows)} of {expected} history rows arrived")
    history, notes = history_from_wandb(rows, _step_metrics(run))
    return history, tuple(notes)


def _step_metrics(run: Any) -> list[tuple[str, str]]:
    """Return what ``define_metric`` said, from wandb's own part of the configuration.

    There ``1`` is a metric's name, ``2`` its name with a star, ``4`` the name of the metric that
    counts its steps and ``5`` that metric's place in the list, from 1.
    """
    own = run.rawconfig.get("_wandb")
    defined = own.get("m") if isinstance(own, Mapping) else None
    entries = [entry for entry in defined or [] if isinstance(entry, Mapping)]
    names = [str(entry.get("1") or entry.get("2") or "") for entry in entries]
    places = {str(place): name for place, name in enumerate(names, start=1)}
    counters = [str(entry.get("4") or places.get(str(entry.get("5")), "")) for entry in entries]
    return [(name, counter) for name, counter in zip(names, counters, strict=True) if counter]


def _all_or_error(
    project: str, runs: Sequence[Any], found: Mapping[str, _History | Exception]
) -> dict[str, _History]:
    """Return the histories, or raise an error that names every run without one."""
    histories = {key: value for key, value in found.items() if not isinstance(value, Exception)}
    failed = [
        f"{_one_line(run.name or run.id)} ({run.id}): {_reason(why)}"
        for run in runs
        if isinstance(why := found[run.id], Exception)
    ]
    if failed:
        raise CBSDataError(
            f"{len(failed)} of {len(found)} runs of {project} could not be read: "
            f"{listed(failed)}; the others are kept: repeat to fetch just these, or leave them "
            "out by --skip"
        )
    return histories


def _reason(error: Exception) -> str:
    """Return an error's message as part of a line."""
    text = _one_line(str(error)) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _run_log(run: Any, history: pd.DataFrame, notes: tuple[str, ...]) -> RunLog:
    return RunLog(
        id=run.id,
        name=run.name or run.id,
        source="wandb",
        history=history,
        config=run.config,
        state=_STATES.get(run.state, "unknown"),
        created=run.created_at or "",
        notes=notes,
    )
