"""Fit what is there, plan the next runs, start them, until an interval is narrow enough.

Everything stands in the sweep's folder, so that a loop that was stopped goes on where it was: the
logs of all runs in ``logs``, and in ``rounds/K`` the sweep that round K saw, its plan and the phase
files of the runs it asked for. Fits and plans are made by the package's own commands, in processes
of their own: the training side imports no sampler.
"""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cbsbayes.errors import CBSDataError
from training.cells import Cell
from training.definitions import Phase, read_phase
from training.local import Outcome
from training.logs import read_progress
from training.verl_command import Places

__all__ = ["Goal", "run_loop"]

_RUNS = 2  # planned at a time
_FINE = (0, 3)  # exit statuses of a plan: 3 says that sampling checks were not passed


@dataclass(frozen=True)
class Goal:
    """When to stop, and what for.

    Attributes
    ----------
    budget : int
        Samples that all runs may take together, those of the first phase included.
    width : float
        Log width of the quantity's interval that is narrow enough; 0.7 is a factor of two.
    asked : tuple of str
        Further options of ``python -m cbsbayes.plan``, such as the quantity.
    """

    budget: int
    width: float = 0.0
    asked: tuple[str, ...] = ()


def run_loop(
    phase: Phase, places: Places, goal: Goal, *,
    run: Callable[[Sequence[Cell]], Outcome], read: Callable[[str], Phase] = read_phase,
    say: Callable[[str], None] = print,
) -> bool:
    """Run a phase, then round after round what the plan asks for and the budget allows.

    Parameters
    ----------
    phase : Phase
        The first runs; planned runs take over the controls of its file.
    places : Places
        Where runs are.
    goal : Goal
        When to stop.
    run : callable
        Runs cells and says how it went.
    read : callable
        Reads a planned phase by the path of its file.
    say : callable
        Told what is done.

    Returns
    -------
    bool
        Whether the interval is as narrow as asked; False where the budget ends the loop.

    Raises
    ------
    CBSDataError
        If runs fail, the logs cannot be fitted, or a plan asks for nothing new.
    """
    cells = list(phase.cells)
    _run_all(cells, run)
    for number in itertools.count(1):  # every round takes samples, so that the budget ends it
        folder = places.output / "rounds" / f"{number:03d}"
        left = goal.budget - sum(_samples(cell, places) for cell in cells)
        if not (folder / "plan" / "manifest.json").exists():
            say(f"round {number}: {len(cells)} runs, {left:,} samples left")
            folder.mkdir(parents=True, exist_ok=True)
            _call("ingest", str(places.output / "logs"), "-o", str(folder / "sweep.nc"), "--quiet")
            _call("plan", str(folder / "sweep.nc"), "-o", str(folder / "plan"), "--like",
                  str(phase.file), *goal.asked, "--runs", str(_RUNS), "--quiet")
        plan = json.loads((folder / "plan" / "plan.json").read_text("utf-8"))
        known = plan["quantity"]
        say(f"round {number}: {known['name']} ({known['at']}) at {known['threshold']:g}: "
            f"{_number(known['median'])} ({_number(known['ci_lower'])} to "
            f"{_number(known['ci_upper'])}) {known['unit']}")
        if _width(known) <= goal.width:
            return True
        planned = [cell for path in sorted((folder / "plan" / "phases").glob("*.toml"))
                   if "_second_rate" not in path.stem  # suggested, but not what was asked for
                   for cell in read(str(path)).cells]
        there = {cell.name for cell in cells}
        new = sorted((cell for cell in planned if cell.name not in there), key=_price)
        if not new:
            raise CBSDataError(f"round {number} asks for no run that is not there already; see "
                               f"{folder / 'plan' / 'index.html'}")
        spent = itertools.accumulate(_price(cell) for cell in new)
        fitting = [cell for cell, so_far in zip(new, spent, strict=True) if so_far <= left]
        if not fitting:
            say(f"the next runs, {', '.join(cell.name for cell in new)}, take more than the "
                f"{left:,} samples left")
            return False
        _run_all(fitting, run)
        cells += fitting


def _run_all(cells: Sequence[Cell], run: Callable[[Sequence[Cell]], Outcome]) -> None:
    outcome = run(cells)
    if outcome.failed or outcome.busy:
        raise CBSDataError(f"{outcome.failed} runs failed and {outcome.busy} are run elsewhere; "
                           "mend what stopped them, or wait, and start the loop again")


def _call(name: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"cbsbayes.{name}", *arguments],
                          capture_output=True, text=True, check=False)
    if done.returncode not in _FINE:
        last = (done.stderr.strip() or f"cbsbayes.{name} ended without a word").splitlines()[-1]
        raise CBSDataError(last)


def _price(cell: Cell) -> int:
    """Return the rollouts that a run will train on."""
    return cell.steps * cell.updates_per_step * cell.total_batch


def _samples(cell: Cell, places: Places) -> int:
    """Return the rollouts that a run has trained on."""
    steps = max(0, read_progress(places.log(cell.name)).last_step)
    return steps * cell.updates_per_step * cell.total_batch


def _width(known: dict[str, Any]) -> float:
    """Return the log width of an interval, infinite for a bound."""
    if known["status"] != "identified":
        return math.inf
    return math.log(known["ci_upper"] / known["ci_lower"])


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3g}"
