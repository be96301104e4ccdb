"""Runs of a wandb project, read with the genuine client and kept in a cache of our own.

The client's cache returns stale histories and keeps broken downloads, so it is not used; its
``keys=`` filters live rows but not exported ones, so all metrics are read. Sampled histories
are never used. The cache holds one Parquet file per run, written whole or not at all.
"""

from __future__ import annotations

import netrc
import os
import re
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pandas as pd

from cbsbayes.errors import CBSDataError, listed
from cbsbayes.logs.run_log import Origin, RunLog
from cbsbayes.logs.wandb_offline import history_from_wandb, import_wandb

__all__ = ["read_wandb_api"]

_PROJECT = re.compile(r"[^/\\#?%:\s][^/\\#?%:]*/[^/\\#?%:\s][^/\\#?%:]*")
_RETRIES = 4  # of one request, by the client, with waits of about 2, 5, 9 and 16 s
_ATTEMPTS = 3  # at one run, when its history came back short or broken
_WORKERS = 4  # runs fetched at one time
_PAUSE = 2.0  # seconds before the next attempt
_LIST_SECONDS = 45  # wall time for one page of the listing, repeats included
_RUN_SECONDS = 600.0  # wall time for one run: the client repeats a rate-limited scan for ever
_TOTAL_SECONDS = 4 * 3600.0  # wall time for a project; what was read is kept
_FORMAT = 3  # of the cache; one more whenever the reading of rows or their keys changes
_STATES = {"finished": "finished", "running": "running", "preempting": "running",
           "failed": "failed", "crashed": "crashed", "killed": "crashed", "preempted": "crashed"}

type _History = tuple[pd.DataFrame, tuple[str, ...]]


def read_wandb_api(
    project: str,
    *,
    skip: Collection[str] = (),
    cache_dir: Path | None = None,
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
    progress : callable, optional
        Called as ``progress(done, total)`` while runs come in.

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
    host = _host_with_key(wandb)
    settings = wandb.setup().settings
    if settings.x_graphql_retry_max is None:  # else the user has set it
        settings.x_graphql_retry_max = _RETRIES
    runs = [run for run in _list_runs(wandb, project, host)
            if run.id not in skip and run.name not in skip]
    folder = _cache_folder(cache_dir, host, *project.split("/"))
    found = _run_bounded({run.id: partial(_history, run, folder) for run in runs}, progress)
    logs, failed = [], []
    for run in runs:
        outcome = found[run.id]
        if isinstance(outcome, BaseException):
            failed.append(f"{_in_short(run.name or run.id)} ({run.id}): {_in_short(outcome)}")
        else:
            logs.append(RunLog(
                run.id, run.name or run.id, "wandb", outcome[0],
                (Origin("configuration", run.config),), state=_STATES.get(run.state, "unknown"),
                created=run.created_at or "", notes=outcome[1]))
    if failed:
        raise CBSDataError(
            f"{len(failed)} of {len(found)} runs of {project} could not be read: "
            f"{listed(failed)}; the others are kept: repeat to fetch just these, or leave them "
            "out by --skip")
    return logs


def _host_with_key(wandb: Any) -> str:
    """Return the service's host as the client's `Api` finds it, never a key in it.

    Without credentials the client would ask for them at the terminal, so that is refused.
    """
    address = urlsplit(os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url)
    host = address.netloc.rpartition("@")[2]
    try:
        stored = netrc.netrc(os.environ.get("NETRC")).authenticators(address.hostname or "")
    except (OSError, netrc.NetrcParseError):
        stored = None
    if not (stored or os.environ.get("WANDB_API_KEY")
            or os.environ.get("WANDB_IDENTITY_TOKEN_FILE")):
        raise CBSDataError(f"no wandb API key for {host}; set WANDB_API_KEY or run `wandb login`, "
                           "then repeat")
    return host


def _list_runs(wandb: Any, project: str, host: str) -> list[Any]:
    """Return the project's runs with their configurations.

    A client keeps listings for as long as it lives, so each reading makes its own.
    """
    try:
        client = wandb.Api(timeout=_LIST_SECONDS)
        runs = list(client.runs(project, order="+created_at", lazy=False))
    except ValueError as error:
        raise CBSDataError(
            f"wandb at {host} has no project {project} that this API key may read; "
            "check ENTITY/PROJECT and the key") from error
    except Exception as error:  # the client's errors have no base class in common
        raise CBSDataError(
            f"cannot list the runs of {project} on wandb at {host}: {_in_short(error)}; "
            "check the network, WANDB_BASE_URL and the API key, then repeat") from error
    if not runs:
        raise CBSDataError(f"the wandb project {project} at {host} holds no run; check its name")
    return runs


def _cache_folder(given: Path | None, *parts: str) -> Path:
    """Return the folder of a project's histories, for this user alone.

    Raises
    ------
    CBSDataError
        If it cannot be made or written to.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = (base if base.is_absolute() else Path.home() / ".cache") / "cbsbayes" / "wandb"
    folder = Path(given or base).joinpath(*map(_file_name, parts))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError:
        raise CBSDataError(f"the download cache {folder} cannot be written; set XDG_CACHE_HOME to "
                           "a folder that can") from None
    return folder


def _file_name(text: str) -> str:
    """Return any text as the name of a file or folder, distinct for distinct texts."""
    return quote(text, safe="").replace(".", "%2E")


def _run_bounded[T](
    jobs: Mapping[str, Callable[[], T]], progress: Callable[[int, int], None] | None
) -> dict[str, T | BaseException]:
    """Run jobs in threads, give each and all of them a bounded time, and return what came of each.

    The threads are daemons, because a request that its client repeats without end cannot be
    broken off: an overdue job is given up, its thread is left behind and the next job begins.
    """
    waiting = deque(jobs)
    running: dict[Future[T], tuple[float, str]] = {}  # until when, and which job
    outcomes: dict[str, T | BaseException] = {}
    until = time.monotonic() + _TOTAL_SECONDS
    while waiting or running:
        if progress is not None:
            progress(len(outcomes), len(jobs))
        while waiting and len(running) < _WORKERS:
            key, now = waiting.popleft(), time.monotonic()
            future: Future[T] = Future()
            if now < until:
                threading.Thread(target=_work, args=(future, jobs[key]), daemon=True).start()
            running[future] = min(now + _RUN_SECONDS, until), key
        overdue = min(running, key=lambda future: running[future][0])
        left = running[overdue][0] - time.monotonic()
        for future in wait(running, max(left, 0.0), FIRST_COMPLETED).done or {overdue}:
            _, key = running.pop(future)
            outcomes[key] = (future.exception() or future.result()) if future.done() else (
                TimeoutError(f"not done after {_RUN_SECONDS:g} s" if time.monotonic() < until else
                             "not done when the whole download had taken "
                             f"{_TOTAL_SECONDS:g} s"))
    return outcomes


def _work[T](future: Future[T], job: Callable[[], T]) -> None:
    try:
        future.set_result(job())
    except Exception as error:
        future.set_exception(error)


def _history(run: Any, folder: Path) -> _History:
    """Return a run's history and notes from the cache or the service.

    What the listing says of a run's growth is its version: the same text means the same history.
    """
    path = folder / f"{_file_name(run.id)}.parquet"
    version = f"{_FORMAT}: {run.historyLineCount} rows, heartbeat {run.heartbeatAt}, {run.state}"
    return _load(path, version) or _fetch(run, path, version)


def _load(path: Path, version: str) -> _History | None:
    """Return a run's history and notes, or None unless this version of it is kept whole."""
    try:  # without partitioning a folder called a=b would become a column
        history = pd.read_parquet(path, engine="pyarrow", partitioning=None,
                                  page_checksum_verification=True)
        history.columns = history.columns.astype(object)
        notes = tuple(history.attrs.pop("notes"))
        return (history, notes) if history.attrs.pop("version") == version else None
    except Exception:  # whatever is damaged about it: it is fetched again
        return None


def _fetch(run: Any, path: Path, version: str) -> _History:
    """Read a run's history and keep it, trying again while it comes back short or broken."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            rows = list(run.scan_history(use_cache=False))
            if len(rows) < (run.historyLineCount or 0):
                raise CBSDataError(f"{len(rows)} of {run.historyLineCount} history rows arrived")
            history, notes = history_from_wandb(rows, _step_metrics(run))
            break
        except Exception as error:
            if attempt == _ATTEMPTS or "giving up after" in str(error):  # the client repeated it
                raise
            time.sleep(_PAUSE * attempt)
    kept = history.copy()
    kept.attrs = {"version": version, "notes": notes}
    kept.to_parquet(path.with_suffix(".tmp"), engine="pyarrow", write_page_checksum=True)
    path.with_suffix(".tmp").replace(path)
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


def _in_short(text: object) -> str:
    """Return a name or an error's message as part of a line."""
    return textwrap.shorten(str(text) or type(text).__name__, 300, placeholder="…")
