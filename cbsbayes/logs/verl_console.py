"""verl's ``console`` logger: ``step:12 - key:value - key:value`` among everything else printed.

Ray puts ``(TaskRunner pid=7)`` in front, colours it, and progress bars share the line; values
are Python's own spelling, ``np.float64(0.61)`` among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cbsbayes.logs.history import NoRunsError, history_from_rows, listed
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.side_car import find_config, run_name
from cbsbayes.logs.text import DAMAGED, read_lines

__all__ = ["parse_line", "read_verl_console"]

_START = re.compile(r"(?<![\w/.@-])step:(\d{1,15}) - ", re.ASCII)
_LITERAL = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|nan|inf)|True|False"
_VALUE = rf"(?:np\.\w+\((?P<inner>{_LITERAL})\)|(?P<outer>{_LITERAL}))"
_FIELD = re.compile(rf"(?P<key>.+):{_VALUE}", re.ASCII)
_LAST = re.compile(rf"(?P<key>.+?):{_VALUE}(?![\d.eE])", re.ASCII)
_BOOLS = {"True": 1.0, "False": 0.0}


def parse_line(line: str) -> tuple[float, dict[str, float], list[str]] | None:
    """Parse one line of a console log.

    Parameters
    ----------
    line : str
        Without ANSI colours, with its line feed. A line without one may have been cut, so a
        bare number at its very end is not trusted.

    Returns
    -------
    step : float
        Trainer step.
    values : dict of str to float
        By key as logged; a key may hold colons, so a value starts at the last one.
    unread : list of str
        Fields without a number.

    None where the line is no row of the logger.
    """
    start = _START.search(line)
    if start is None:
        return None
    fields = line[start.end() :].split(" - ")
    values: dict[str, float] = {}
    unread = []
    for i, field in enumerate(fields):
        last = i == len(fields) - 1
        found = _FIELD.fullmatch(field.strip())
        if found is None and last:  # a progress bar may follow the last value
            found = _LAST.match(field)
        cut = last and found is not None and found["outer"] and found.end() == len(field)
        if found is None or cut or DAMAGED in found["key"]:
            unread.append(field.strip())
        else:
            text = found["inner"] or found["outer"]
            values[found["key"]] = _BOOLS[text] if text in _BOOLS else float(text)
    return (float(start[1]), values, unread) if values else None


def read_verl_console(path: Path, root: Path) -> RunLog:
    """Read one run from what verl printed.

    Parameters
    ----------
    path : Path
        The saved output, e.g. of ``| tee`` or of Slurm.
    root : Path
        The folder given by the user: ids are relative to it, configurations are looked for
        beside the file and up to it.

    Returns
    -------
    RunLog
        With the side-car configuration where there is one; what verl prints of its
        configuration is not read.

    Raises
    ------
    NoRunsError
        Where no line is a row of verl's console logger.
    OSError
        Where the file cannot be read.
    """
    unread: list[str] = []
    history, notes = history_from_rows(_rows(path, unread))
    if history.empty:
        raise NoRunsError(
            f"{path} holds no line of verl's console logger; "
            "such a line reads step:12 - actor/lr:1e-06 - val-core/...:0.5"
        )
    if unread:
        shown = listed([text[:40] for text in dict.fromkeys(unread)], limit=3)
        notes.append(f"{path.name}: {len(unread)} field(s) without a number, left out: {shown}")
    config, config_notes = find_config(path, root)
    return RunLog(
        id=path.relative_to(root).as_posix(),
        name=run_name(path),
        source="verl_console",
        history=history,
        config=config,
        notes=(*notes, *config_notes),
    )


def _rows(path: Path, unread: list[str]) -> Iterator[tuple[float, dict[str, float]]]:
    for line in read_lines(path):
        row = parse_line(line)
        if row is not None:
            yield row[0], row[1]
            unread.extend(row[2])
