"""JSON files that hold a whole history: the Hugging Face Trainer's state, or records of a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from cbsbayes.logs.columns import Table
from cbsbayes.logs.history import NoRunsError, history_from_rows
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.run_name import run_name
from cbsbayes.logs.tables import logs_of
from cbsbayes.logs.text import open_bytes
from cbsbayes.logs.verl import row_of

__all__ = ["read_trainer_state"]


def read_trainer_state(path: Path, root: Path) -> tuple[list[RunLog], list[str]]:
    """Read a ``.json`` file: ``trainer_state.json`` with its ``log_history``, or records.

    Raises
    ------
    NoRunsError
        Where the file holds neither.
    OSError
        Where the file cannot be read.
    """
    try:
        with open_bytes(path) as file:
            tree: Any = json.load(file)
    except (ValueError, RecursionError, EOFError) as error:
        raise NoRunsError(f"{path} is no whole JSON file ({error})") from None
    rows = tree.get("log_history") if isinstance(tree, dict) else tree
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise NoRunsError(f"{path} holds no history: neither the log_history of a trainer's state "
                          "nor a list of records")
    if "run" in rows[0]:
        return logs_of(Table(pd.DataFrame(rows, dtype=object), str(path)), path, root)
    history, notes = history_from_rows(row for entry in rows if (row := row_of(entry)))
    if history.empty:
        raise NoRunsError(f"{path} holds no row with a step and a number")
    return [RunLog(id=path.relative_to(root).as_posix(), name=run_name(path, root),
                   source="history", history=history, notes=tuple(notes))], []
