"""One row per problem, none of them in a validation set, and the same choice every time.

Two problems are the same where their texts agree without white space, dollar signs and case. That
finds copies, not paraphrases.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields

from data.prepare.recipes import Problem

__all__ = ["Counts", "choose", "key_of", "select"]


@dataclass
class Counts:
    """What became of the raw rows of a split.

    Attributes
    ----------
    read : int
        Rows read.
    left_out : int
        Rows that derive from a set that was not asked for.
    without_answer : int
        Rows without an answer that their rule can check.
    repeated : int
        Rows whose problem was there before, with the same answer.
    contradicted : int
        Rows of problems that come with different answers; all of them are dropped.
    in_validation : int
        Problems dropped because a validation set holds them.
    not_chosen : int
        Problems dropped because fewer were asked for.
    written : int
        Rows of the parquet file.
    """

    read: int = 0
    left_out: int = 0
    without_answer: int = 0
    repeated: int = 0
    contradicted: int = 0
    in_validation: int = 0
    not_chosen: int = 0
    written: int = 0

    def __str__(self) -> str:
        """Return the counts in words, without those that are zero."""
        parts = ((field.name.replace("_", " "), getattr(self, field.name))
                 for field in fields(self))
        return ", ".join(f"{value:,} {name}" for name, value in parts
                         if value or name in ("read", "written"))


def key_of(text: str) -> bytes:
    """Return what two copies of a problem share."""
    bare = "".join(unicodedata.normalize("NFC", text).replace("$", "").casefold().split())
    return hashlib.sha256(bare.encode("utf-8", "surrogatepass")).digest()


def select(
    numbered: Iterable[tuple[int, Problem]], held_out: Collection[bytes], counts: Counts
) -> list[tuple[int, Problem]]:
    """Keep the first row of each problem that has one answer and is not held out.

    Parameters
    ----------
    numbered : iterable of (int, Problem)
        Raw row numbers and problems.
    held_out : collection of bytes
        Keys of validation problems.
    counts : Counts
        Added to.

    Returns
    -------
    list of (int, Problem)
        In the order read.
    """
    first: dict[bytes, tuple[int, Problem]] = {}
    seen: dict[bytes, int] = {}
    contradicted = set()
    for number, problem in numbered:
        key = key_of(problem.text)
        kept = first.setdefault(key, (number, problem))
        seen[key] = seen.get(key, 0) + 1
        if kept[1].answer != problem.answer:
            contradicted.add(key)
    counts.contradicted += sum(seen[key] for key in contradicted)
    counts.repeated += sum(seen[key] - 1 for key in seen.keys() - contradicted)
    fresh = {key: row for key, row in first.items() if key not in contradicted}
    counts.in_validation += sum(key in held_out for key in fresh)
    return [row for key, row in fresh.items() if key not in held_out]


def choose(
    rows: list[tuple[int, Problem]], most: int | None, counts: Counts
) -> list[tuple[int, Problem]]:
    """Keep `most` problems: those with the smallest keys, which no order of files changes."""
    if most is None or most >= len(rows):
        return rows
    counts.not_chosen += len(rows) - most
    kept = {number for number, _ in sorted(rows, key=lambda row: key_of(row[1].text))[:most]}
    return [row for row in rows if row[0] in kept]
