"""What is finished, one line of JSON a sweep in a file that only grows.

A study that was stopped goes on where it was: sweeps in the file are not fitted again, failed ones
are. The first line holds the settings; other settings are refused, not mixed in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cbsbayes.errors import CBSDataError

__all__ = ["Ledger"]


class Ledger:
    """The finished sweeps of one study.

    Parameters
    ----------
    path : Path
        The file; made with its folder if it does not exist.
    settings : mapping
        Plain values that every sweep in it shares.

    Attributes
    ----------
    records : dict
        Random seed to its record; of a seed tried twice, the last.

    Raises
    ------
    CBSDataError
        If the file was made with other settings, or is no ledger.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.records: dict[int, dict[str, Any]] = {}
        if path.exists() and path.stat().st_size:
            self._read(settings)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"settings": dict(settings)})

    @property
    def finished(self) -> set[int]:
        """The seeds that need no further fit."""
        return {seed for seed, record in self.records.items() if "error" not in record}

    def add(self, random_seed: int, record: Mapping[str, Any]) -> None:
        """Keep the record of one sweep: ``rows`` and ``sampling``, or ``error``."""
        entry = {"seed": random_seed, **record}
        self._append(entry)
        self.records[random_seed] = entry

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def _read(self, settings: Mapping[str, Any]) -> None:
        text = self.path.read_text(encoding="utf-8")
        if not text.endswith("\n"):  # stopped while writing: that sweep is fitted again
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("\n")
        first, *lines = text.split("\n")
        self._check(_parsed(first), settings)
        for entry in filter(None, map(_parsed, lines)):
            self.records[int(entry["seed"])] = entry

    def _check(self, header: dict[str, Any] | None, settings: Mapping[str, Any]) -> None:
        if header is None or "settings" not in header:
            raise CBSDataError(f"{self.path} does not begin with the settings of a study; it is "
                               "not a file of cbsbayes.validate: remove it or choose another -o")
        kept = header["settings"]
        differing = [name for name in {**kept, **settings} if kept.get(name) != settings.get(name)]
        if differing:
            name = differing[0]
            raise CBSDataError(f"{self.path} holds sweeps made with {name} = {kept.get(name)!r}, "
                               f"now {name} is {settings.get(name)!r}; use the same settings to go "
                               "on, or choose another -o")


def _parsed(line: str) -> dict[str, Any] | None:
    """Return the entry on a line, None where it was cut off while being written."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and ("seed" in entry or "settings" in entry) else None
