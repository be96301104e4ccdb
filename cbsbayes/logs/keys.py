"""One spelling for every metric key, whichever logger wrote it.

verl names a validation metric ``val-core/<data_source>/<variable>/mean@N``. Its MLflow
adapter writes the ``@`` as ``_at_`` and tensorboardX as ``_``; a worker's metrics get the
prefix ``actor/``. Everything downstream sees the first form only. The data source may hold
slashes itself (``openai/gsm8k``), so keys are read from the right.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ValidationKey", "canonical_key", "parse_validation_key", "validation_key"]

_COUNTED = re.compile(r"(mean|std|best|worst|maj|pass)(?:@|_at_|_)(\d+)", re.ASCII)
_WORKER_PREFIX = "actor/grad_noise/"


class ValidationKey(NamedTuple):
    """The parts of a validation metric's key.

    Attributes
    ----------
    group : str
        ``val-core`` or ``val-aux``.
    data_source : str
        The validation set, e.g. ``openai/gsm8k``.
    variable : str
        ``acc`` where the reward function gives one, else ``reward``.
    statistic : str
        ``mean@N``, ``std@N``, ``best@k/mean`` …
    """

    group: str
    data_source: str
    variable: str
    statistic: str


def canonical_key(key: str) -> str:
    """Return the canonical spelling of a metric's key.

    ``mean@N``, ``mean_at_N`` and ``mean_N`` become ``mean@N`` (likewise ``std``, ``best``,
    ``worst``, ``maj``, ``pass``) in the last two parts of a validation key;
    ``actor/grad_noise/x`` becomes ``grad_noise/x``; all else stays as it is.

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


def parse_validation_key(key: str) -> ValidationKey | None:
    """Split a validation metric's key from the right.

    Parameters
    ----------
    key : str
        A key in any spelling.

    Returns
    -------
    ValidationKey or None
        None where the key is no statistic of a validation set.
    """
    group, *parts = canonical_key(key).split("/")
    n_statistic = 1 if parts and _COUNTED.fullmatch(parts[-1]) else 2
    if group not in ("val-core", "val-aux") or len(parts) < n_statistic + 2:
        return None
    if not _COUNTED.fullmatch(parts[-n_statistic]):
        return None
    *source, variable = parts[:-n_statistic]
    return ValidationKey(group, "/".join(source), variable, "/".join(parts[-n_statistic:]))


def validation_key(data_source: str, variable: str = "acc", statistic: str = "mean@1") -> str:
    """Return the canonical key of a core validation metric, e.g. of a table's column.

    Parameters
    ----------
    data_source : str
        The validation set, e.g. ``openai/gsm8k``; may hold slashes.
    variable, statistic : str
        As in `ValidationKey`.

    Returns
    -------
    str
        ``val-core/<data_source>/<variable>/<statistic>``.
    """
    return f"val-core/{data_source}/{variable}/{statistic}"
