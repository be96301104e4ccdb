"""Rows of a raw dataset: jsonl, json and parquet files of a folder, or the hub.

A file belongs to a split by its name (``train.jsonl``, ``train-00000-of-00032.parquet``) or, where
every problem is a file, by a folder above it (``train/algebra/17.json``). Files are read in
natural order, so that the rows come in one order everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cbsbayes.errors import CBSDataError
from data.prepare.recipes import Recipe

__all__ = ["hub_rows", "local_rows"]

Row = tuple[str, dict[str, Any]]
"""Where a row stands, for messages, and its columns."""

_SUFFIXES = (".jsonl", ".json", ".parquet")
_SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}$")


def local_rows(source: Path, recipe: Recipe, split: str) -> Iterator[Row]:
    """Read a split of a dataset from its raw files.

    Parameters
    ----------
    source : Path
        The folder that holds the files, or a single file.
    recipe : Recipe
        The dataset.
    split : str
        The raw split, e.g. ``train`` or ``train_1M``.

    Yields
    ------
    where : str
        File and row.
    row : dict
        The recipe's columns.

    Raises
    ------
    CBSDataError
        If the folder or the split is missing, the split is there in two formats, or a file is
        damaged or lacks a column.
    """
    for file in _files_of(source, recipe, split):
        is_table = file.suffix == ".parquet"
        rows = _parquet_rows(file, recipe.columns) if is_table else _json_rows(file)
        for number, row in enumerate(rows, 1):
            where = f"{file}, row {number}"
            yield where, _checked(row, recipe.columns, where)


def _files_of(source: Path, recipe: Recipe, split: str) -> list[Path]:
    if not source.exists():
        raise CBSDataError(f"{source} does not exist; give the folder with the raw files "
                           "(--from), or leave it out to read from the hub")
    if source.is_file():
        return [source]
    folder = source / recipe.config if recipe.config else source
    folder = folder if folder.is_dir() else source
    known = [file for file in folder.rglob("*") if file.suffix in _SUFFIXES and file.is_file()]
    files = [file for file in known if _belongs(file.relative_to(folder), split)]
    kinds = sorted({file.suffix for file in files})
    if not files:
        names = sorted({_SHARD.sub("", file.stem) for file in known})
        raise CBSDataError(f"no raw files of split {split!r} in {folder}; wanted {split}.jsonl, "
                           f"{split}-*.parquet or {split}/…/*.json; found names: "
                           f"{', '.join(names[:8]) or 'none'}")
    if len(kinds) > 1:
        raise CBSDataError(f"split {split!r} is in {folder} as {' and as '.join(kinds)}; "
                           "give a folder or a file with one of them")
    return sorted(files, key=_natural)


def _belongs(file: Path, split: str) -> bool:
    name = _SHARD.sub("", file.stem)
    return name == split or (name.isdecimal() and split in file.parts[:-1])


def _natural(file: Path) -> list[tuple[int, str]]:
    """Sort 2.json before 10.json."""
    parts = re.split(r"([0-9]+)", file.as_posix())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _json_rows(file: Path) -> Iterator[Any]:
    try:
        with file.open(encoding="utf-8") as lines:
            if file.suffix == ".json":
                yield from _parsed(lines.read(), str(file))
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield from _parsed(line, f"{file}, line {number}")
    except UnicodeDecodeError as error:
        raise CBSDataError(f"{file} is not UTF-8 ({error.reason}); fetch it again") from None


def _parsed(text: str, where: str) -> list[Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise CBSDataError(f"{where}: no valid JSON ({error.msg}); the file is damaged or cut "
                           "off, fetch it again") from None
    return found if isinstance(found, list) else [found]


def _parquet_rows(file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as opened:
            present = [name for name in columns if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(columns=present):
                yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        first = str(error).splitlines()[0]
        raise CBSDataError(f"{file} is no readable parquet file ({first}); "
                           "fetch it again") from None


def _checked(row: Any, columns: Sequence[str], where: str) -> dict[str, Any]:
    """Return the wanted columns of a row, all of them there."""
    if not isinstance(row, dict):
        raise CBSDataError(f"{where}: {type(row).__name__} instead of an object with "
                           f"{', '.join(columns)}")
    missing = [name for name in columns if row.get(name) is None]
    if missing:
        raise CBSDataError(f"{where}: no {' and no '.join(missing)}; the raw rows have "
                           f"{', '.join(columns)}; found {', '.join(map(str, row))}")
    odd = [name for name in columns if not isinstance(row[name], str) and name != "level"]
    if odd:
        raise CBSDataError(f"{where}: {odd[0]} is {type(row[odd[0]]).__name__}, not text")
    return {name: row[name] for name in columns}


def hub_rows(recipe: Recipe, split: str, revision: str | None) -> Iterator[Row]:
    """Read a split of a dataset from the Hugging Face hub.

    Parameters
    ----------
    recipe : Recipe
        The dataset.
    split : str
        The split on the hub.
    revision : str or None
        A commit of the repository; None takes the newest.

    Yields
    ------
    where : str
        Repository, split and row.
    row : dict
        The recipe's columns.

    Raises
    ------
    CBSDataError
        If `datasets` is not installed, or the hub does not give the split.
    """
    try:
        import datasets
    except ImportError:
        raise CBSDataError("reading from the hub needs the package 'datasets' (pip install "
                           "datasets); or give the raw files with --from") from None
    try:
        table = datasets.load_dataset(recipe.hub, recipe.config, split=split, revision=revision)
    except Exception as error:  # the hub's client raises a dozen unrelated types
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CBSDataError(f"the hub did not give {recipe.hub}, split {split} ({first}); try "
                           "again, or give the raw files with --from") from error
    present = [name for name in recipe.columns if name in table.column_names]
    for number, row in enumerate(table.select_columns(present), 1):
        where = f"{recipe.hub}, split {split}, row {number}"
        yield where, _checked(row, recipe.columns, where)
