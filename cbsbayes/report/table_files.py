"""Every table of a page as files: ``tables/<name>.csv`` and ``tables/<name>.tex``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from cbsbayes.report.latex import latex_table
from cbsbayes.report.tables import Table
from cbsbayes.sweep.files import write_whole

__all__ = ["named_tables", "remove_tables", "table_csv", "write_tables"]

_PLAIN = ("tables", "table")  # parts of a name that say nothing
_KINDS = (".csv", ".tex")


def named_tables(context: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, Table]]:
    """Yield every table in what a page is made from, with a name from its place there.

    Tables of a list are numbered.
    """
    for key, value in context.items():
        parts = [part for part in (prefix, "" if key in _PLAIN else str(key)) if part]
        name = "_".join(parts)
        if isinstance(value, Table):
            yield name, value
        elif isinstance(value, Mapping):
            yield from named_tables(value, name)
        elif isinstance(value, list):
            yield from ((f"{name}_{k}", table) for k, table in enumerate(value, start=1)
                        if isinstance(table, Table))


def table_csv(table: Table) -> str:
    """Return a table as CSV: the text of its cells, and what stands below them beside it.

    A heading inside the table becomes a first column, ``part``.
    """
    parts = any(len(row) == 1 for row in table.rows)
    full = [row for row in table.rows if len(row) > 1]
    below = [any(row[k].below for row in full) for k in range(len(table.columns))]
    heads = ["part"] if parts else []
    for column, doubled in zip(table.columns, below, strict=True):
        heads += [column.label, f"{column.label}, below"] if doubled else [column.label]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heads)
    part = ""
    for row in table.rows:
        if len(row) == 1:
            part = f"{row[0].text} ({row[0].below})" if row[0].below else row[0].text
            continue
        cells = [part] if parts else []
        for cell, doubled in zip(row, below, strict=True):
            cells += [cell.text, cell.below] if doubled else [cell.text]
        writer.writerow(cells)
    return stream.getvalue()


def write_tables(context: Mapping[str, object], folder: Path) -> None:
    """Write every table of a page as CSV and LaTeX; those of an earlier page are removed.

    Parameters
    ----------
    context : mapping
        What the page is made from, tables anywhere in it.
    folder : Path
        Made where it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = set()
    for name, table in named_tables(context):
        write_whole(folder / f"{name}.csv", table_csv(table))
        write_whole(folder / f"{name}.tex", latex_table(table, name))
        kept.add(name)
    remove_tables(folder, keep=kept)


def remove_tables(folder: Path, keep: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Remove the files of tables that are not to be kept, and the folder where it is then empty."""
    if not folder.is_dir():
        return
    for old in folder.iterdir():
        if old.suffix in _KINDS and old.stem not in keep:
            old.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
