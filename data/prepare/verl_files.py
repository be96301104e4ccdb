"""verl's parquet rows, read and written; files whole or not at all.

All datasets share one schema, because verl concatenates the files of a list and refuses columns
that differ. Unknown details are empty text.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes.errors import CBSDataError
from data.prepare.recipes import Problem
from data.prepare.unique import key_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["problem_keys", "to_table", "write_all"]

DETAILS = ("level", "subject", "derived_from")


def to_table(rows: Iterable[tuple[int, Problem]], split: str) -> pa.Table:
    """Return the table that verl reads.

    Parameters
    ----------
    rows : iterable of (int, Problem)
        Raw row numbers, kept as ``extra_info.index``, and problems.
    split : str
        ``train`` or ``test``.

    Returns
    -------
    pyarrow.Table
        Columns ``data_source, prompt, ability, reward_model, extra_info``.
    """
    import pyarrow as pa

    text = pa.string()
    info = [("split", text), ("index", pa.int64()), ("question", text),
            *((name, text) for name in DETAILS)]
    schema = pa.schema([
        ("data_source", text),
        ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
        ("ability", text),
        ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
        ("extra_info", pa.struct(info)),
    ])
    return pa.Table.from_pylist([_row(number, problem, split) for number, problem in rows], schema)


def _row(number: int, problem: Problem, split: str) -> dict[str, Any]:
    return {"data_source": problem.data_source,
            "prompt": [{"role": "user", "content": problem.prompt}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {"split": split, "index": number, "question": problem.text,
                           **dict.fromkeys(DETAILS, ""), **dict(problem.details)}}


def problem_keys(file: Path) -> set[bytes]:
    """Return the keys of the problems in a file that `write_all` wrote.

    Raises
    ------
    CBSDataError
        If the file is missing, or no such file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if not file.is_file():
        raise CBSDataError(f"there is no validation file {file}; prepare it first, e.g. "
                           "python -m data.prepare gsm8k -o DIR")
    try:
        rows = parquet.read_table(file, columns=["extra_info"])["extra_info"].to_pylist()
        return {key_of(row["question"]) for row in rows}
    except (pa.ArrowInvalid, KeyError, TypeError):
        raise CBSDataError(f"{file} was not written by python -m data.prepare (no "
                           "extra_info.question); prepare the validation set with it") from None


def write_all(folder: Path, tables: Mapping[str, pa.Table], report: Mapping[str, Any], *,
              overwrite: bool = False) -> None:
    """Write ``<name>.parquet`` for each table, and ``prepare.json`` when all of them are there.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    tables : mapping of str to Table
    report : mapping
        Counts and origin, as JSON.
    overwrite : bool
        Whether a file with other content may be replaced.

    Raises
    ------
    CBSDataError
        If a file with other content is there.
    OSError
        If the disk refuses; files that were there are then untouched.
    """
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    contents = {}
    for name, table in tables.items():
        buffer = pa.BufferOutputStream()
        parquet.write_table(table, buffer, compression="zstd")
        contents[f"{name}.parquet"] = buffer.getvalue().to_pybytes()
    for name, content in contents.items():
        old = folder / name
        if not overwrite and old.exists() and old.read_bytes() != content:
            raise CBSDataError(f"{old} is there with other content; choose another folder, or "
                               "replace it with --overwrite")
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    _replace_all(folder, {**contents, "prepare.json": text.encode()})


def _replace_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write every file under a temporary name, flush, and only then give all their names."""
    mark = uuid.uuid4().hex
    pending = {folder / f".{name}.{mark}.tmp": folder / name for name in contents}
    try:
        for temporary, name in pending.items():
            with temporary.open("wb") as out:
                out.write(contents[name.name])
                out.flush()
                os.fsync(out.fileno())
        for temporary, name in pending.items():
            temporary.replace(name)
    finally:
        for temporary in pending:
            temporary.unlink(missing_ok=True)
