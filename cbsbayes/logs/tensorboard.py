"""TensorBoard event files, read by TensorBoard's own reader.

Every folder that holds event files is one run; a resumed run adds a file there whose steps may
overlap. Values are float32 as the writers store them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.history import NoRunsError, history_from_rows
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.run_name import run_name

__all__ = ["EVENT_FILES", "read_tensorboard"]

EVENT_FILES = "events.out.tfevents*"
_FRAME = 16  # bytes of lengths and checksums around every record


def read_tensorboard(folder: Path, root: Path) -> RunLog:
    """Read one run from a folder of event files.

    Parameters
    ----------
    folder : Path
        The folder that holds the event files themselves.
    root : Path
        The folder given by the user: ids are relative to it.

    Returns
    -------
    RunLog
        Scalars under their canonical keys; where files overlap, the later value wins.

    Raises
    ------
    CBSDataError
        Where tensorboard is not installed.
    NoRunsError
        Where the folder holds no scalar.
    """
    accumulator = _load(folder)
    history, notes = history_from_rows(_rows(accumulator))
    if history.empty:
        raise NoRunsError(
            f"{folder} holds no scalar in its TensorBoard files; "
            "they may be damaged, or the run ended before it logged"
        )
    started = datetime.fromtimestamp(accumulator.FirstEventTimestamp(), tz=UTC)
    return RunLog(
        id=folder.relative_to(root).as_posix(),
        name=run_name(folder, root),
        source="tensorboard",
        history=history,
        created=started.isoformat(timespec="seconds"),
        notes=(*notes, *_damage(folder)),
    )


def _load(folder: Path) -> Any:
    try:
        from tensorboard.backend.event_processing import event_accumulator as ea
    except ImportError:
        raise CBSDataError(
            f"{folder} holds TensorBoard files, and tensorboard is not installed; "
            'install the extra: pip install "cbsbayes[tensorboard]"'
        ) from None
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    sizes = {name: 0 if name == "scalars" else 1 for name in ea.DEFAULT_SIZE_GUIDANCE}  # 0: all
    return ea.EventAccumulator(str(folder), size_guidance=sizes, purge_orphaned_data=False).Reload()


def _rows(accumulator: Any) -> Iterator[tuple[float, dict[str, object]]]:
    """Yield every event; where a restart wrote a step again, its event comes later."""
    for tag in accumulator.Tags()["scalars"]:
        for event in accumulator.Scalars(tag):
            yield float(event.step), {tag: event.value}


def _damage(folder: Path) -> list[str]:
    """Return notes on event files that TensorBoard's reader gave up on before their end."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    notes = []
    for path in sorted(folder.glob(EVENT_FILES)):
        whole = sum(len(raw) + _FRAME for raw in RawEventFileLoader(str(path)).Load())
        rest = path.stat().st_size - whole
        if rest > 0:
            notes.append(f"{path.name}: its last {rest} bytes are cut or damaged, left out")
    return notes
