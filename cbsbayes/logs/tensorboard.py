"""TensorBoard event files, read by TensorBoard's own reader.

Every folder that holds event files is one run; a resumed run adds a file there whose steps may
overlap. Values are float32 as the writers store them.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_log import NoRunsError, RunLog, history_from_rows
from cbsbayes.logs.run_name import run_name

__all__ = ["EVENT_FILES", "read_tensorboard"]

EVENT_FILES = "events.out.tfevents*"
_EVENT_FRAME = 16  # bytes of lengths and checksums around every event


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
    try:
        from tensorboard.backend.event_processing import event_accumulator as ea
        from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    except ImportError:
        raise CBSDataError(
            f"{folder} holds TensorBoard files, and tensorboard is not installed; "
            'install the extra: pip install "cbsbayes[tensorboard]"') from None
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    sizes = {name: 0 if name == "scalars" else 1 for name in ea.DEFAULT_SIZE_GUIDANCE}  # 0: all
    events = ea.EventAccumulator(str(folder), sizes, purge_orphaned_data=False).Reload()
    history, notes = history_from_rows((event.step, {tag: event.value})
                                       for tag in events.Tags()["scalars"]
                                       for event in events.Scalars(tag))
    if history.empty:
        raise NoRunsError(f"{folder} holds no scalar in its TensorBoard files; "
                          "they may be damaged, or the run ended before it logged")
    for path in sorted(folder.glob(EVENT_FILES)):
        whole = sum(len(raw) + _EVENT_FRAME for raw in RawEventFileLoader(str(path)).Load())
        if path.stat().st_size > whole:
            notes.append(f"{path.name}: its last {path.stat().st_size - whole} bytes are cut or "
                         "damaged, left out")
    started = datetime.fromtimestamp(events.FirstEventTimestamp(), tz=UTC)
    return RunLog(folder.relative_to(root).as_posix(), run_name(folder, root), "tensorboard",
                  history, created=started.isoformat(timespec="seconds"), notes=tuple(notes))
