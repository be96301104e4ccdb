"""One spelling for every metric key, whichever logger wrote it.

verl names a validation metric ``val-core/<data_source>/<variable>/mean@N``. Its MLflow
adapter writes the ``@`` as ``_at_`` and tensorboardX as ``_``; a worker's metrics get the
prefix ``actor/``. Everything downstream sees the first form only. The data source may hold
slashes itself (``openai/gsm8k``), so keys are read from the right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Score", "canonical_key", "is_validation", "read_score", "validation_columns",
           "validation_key"]

_COUNTED = re.compile(r"(mean|std|best|worst|maj|pass)(?:@|_at_|_)(\d{1,9})", re.ASCII)
_WORKER_PREFIX = "actor/grad_noise/"
_OLD_KEY = re.compile(r"val/test_score/(.+)", re.DOTALL)  # verl 0.1
_STATISTICS = ("mean", "maj", "best")
_LIKE = re.compile(r"(?:val|valid|validation|eval|evaluation|test)(?:[-_./@]|$)", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Score:
    """A validation score's key, taken apart.

    Attributes
    ----------
    source : str
        The validation set, e.g. ``openai/gsm8k``.
    variable : str
        ``acc`` where the reward function gives one, else ``reward``.
    statistic : str
        ``mean``, ``maj`` or ``best`` of the samples.
    samples : int
        Validation samples per item.
    key : str
        The canonical key.
    core : bool
        Whether verl calls it core (``val-core``) rather than auxiliary.
    """

    source: str
    variable: str
    statistic: str
    samples: int
    key: str
    core: bool


def canonical_key(key: str) -> str:
    """Return the canonical spelling of a metric's key.

    ``mean@N``, ``mean_at_N`` and ``mean_N`` become ``mean@N`` (likewise ``std``, ``best``,
    ``worst``, ``maj``, ``pass``) in the last two parts of a validation key;
    ``actor/grad_noise/x`` becomes ``grad_noise/x``; what is no valid Unicode is escaped, all else
    stays as it is.

    Parameters
    ----------
    key : str
        The key as logged.

    Returns
    -------
    str
        The canonical key; canonical keys come back unchanged.

    Examples
    --------
    >>> canonical_key("val-core/openai/gsm8k/acc/mean_at_1")
    'val-core/openai/gsm8k/acc/mean@1'
    """
    key = key.encode("utf-8", "backslashreplace").decode("utf-8")
    if key.startswith(_WORKER_PREFIX):
        return key.removeprefix("actor/")
    if not key.startswith(("val-core/", "val-aux/")):
        return key
    *front, last = key.split("/")
    if _COUNTED.fullmatch(last):
        return "/".join([*front, _with_at(last)])
    return "/".join([*front[:-1], _with_at(front[-1]), last])


def _with_at(part: str) -> str:
    counted = _COUNTED.fullmatch(part)
    return f"{counted[1]}@{counted[2]}" if counted else part


def read_score(key: str) -> Score | None:
    """Take a validation score's key apart, from the right.

    Parameters
    ----------
    key : str
        A key in any spelling.

    Returns
    -------
    Score or None
        None where the key is no mean, majority or best score of a validation set.
    """
    old = _OLD_KEY.fullmatch(key)
    if old:
        return Score(old[1], "acc", "mean", 1, key, core=True)
    key = canonical_key(key)
    group, *parts = key.removesuffix("/mean").split("/")
    counted = _COUNTED.fullmatch(parts[-1]) if len(parts) >= 3 else None
    if group not in ("val-core", "val-aux") or not counted or counted[1] not in _STATISTICS:
        return None
    *source, variable, _ = parts
    return Score("/".join(source) or "validation", variable, counted[1], int(counted[2]), key,
                 group == "val-core")


def is_validation(key: str) -> bool:
    """Return whether a key looks as if it were measured at an evaluation, in any trainer."""
    return _LIKE.match(key) is not None


def validation_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns that hold a validation set's core score, or what looks like one, sorted.

    Other trainers' keys count where there is no core score.
    """
    keys = sorted(str(key) for key in columns)
    core = [key for key in keys if (score := read_score(key)) and score.core]
    return core or [key for key in keys if is_validation(key)]


def validation_key(data_source: str, variable: str = "acc", statistic: str = "mean@1") -> str:
    """Return the canonical key of a core validation metric, e.g. of a table's column.

    Parameters
    ----------
    data_source : str
        The validation set, e.g. ``openai/gsm8k``; may hold slashes.
    variable, statistic : str
        As verl writes them.

    Returns
    -------
    str
        ``val-core/<data_source>/<variable>/<statistic>``.
    """
    return f"val-core/{data_source}/{variable}/{statistic}"
