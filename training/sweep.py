"""``python -m training.sweep [PHASE]``: list phases and runs, print the commands, start them.

python -m training.sweep                                   # the phases
python -m training.sweep p2c                               # its runs and what they will cost
python -m training.sweep p2c --check                       # what is missing here, then one step
python -m training.sweep p2c --dry-run                     # the exact verl commands
python -m training.sweep p2c --run                         # run what is not finished, here
python -m training.sweep outputs/plan/phases/planned.toml --run   # what cbsbayes.plan asks for
python -m training.sweep tiny --loop --budget 200000 --width 0.5   # and what the plan asks for
python -m training.sweep p2c --slurm p2c.sbatch --sbatch=--time=24:00:00
python -m training.sweep p2c --ray http://head:8265 --nodes 2
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from cbsbayes._command import EXIT_INPUT, EXIT_OK, run_main
from cbsbayes.errors import CBSDataError
from training.checks import validation_items
from training.cost import NOT_MEASURED, Cost, checkpoint_disk, estimate, measure
from training.definitions import Phase, phase_names, read_phase, with_machines
from training.verl_command import Places, shell_command

if TYPE_CHECKING:
    from training.cells import Cell

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parent.parent
_SPAN = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_main("sweep", _run, argv, package="training")


def _run(options: argparse.Namespace) -> int:
    if options.phase is None:
        return _list_phases(options)
    phase = with_machines(read_phase(options.phase), options.gpus, options.nodes)
    rows = _rows(options.rows, len(phase.cells))
    cells = [phase.cells[row - 1] for row in rows]
    places = _places(options)
    if options.slurm is not None:
        return _slurm(options, phase, rows, places)
    if options.ray is not None:
        return _ray(options, phase, places)
    if options.check:
        return _check(cells, places)
    if options.dry_run:
        print("\n\n".join(shell_command(cell, places) for cell in cells))
        return EXIT_OK
    timings = measure(folder / "logs" for folder in (places.output, *(options.timings or ())))
    costs = [estimate(cell, timings, sum(validation_items(cell, places).values()))
             for cell in cells]
    _list_cells(phase, rows, cells, costs, as_json=options.json)
    if options.loop:
        return _loop(options, replace(phase, cells=tuple(cells)), places)
    return _run_here(options, cells, places) if options.run else EXIT_OK


def _places(options: argparse.Namespace) -> Places:
    given = {"data": options.data, "assets": options.assets}
    output = options.output or _ROOT / "outputs" / Path(options.phase).stem
    places = Places(output, model=options.model or "", wandb=options.wandb, project=options.project)
    return replace(places, **{key: value for key, value in given.items() if value is not None})


def _rows(text: str | None, count: int) -> list[int]:
    """Return the row numbers asked for, from 1."""
    if text is None:
        return list(range(1, count + 1))
    rows: list[int] = []
    for part in text.split(","):
        span = _SPAN.fullmatch(part.strip())
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (0, 0)
        if not 1 <= first <= last <= count:
            raise CBSDataError(f"--rows {text!r}: {part!r} is no row; valid: 1 to {count}, e.g. "
                               "1-3,7")
        rows += range(first, last + 1)
    return sorted(set(rows))


def _list_phases(options: argparse.Namespace) -> int:
    if any((options.run, options.dry_run, options.slurm, options.ray)):
        raise CBSDataError(f"say which phase: {', '.join(phase_names())}")
    phases = [read_phase(name) for name in phase_names()]
    if options.json:
        print(json.dumps([{"phase": p.name, "runs": len(p.cells), "hardware": p.hardware,
                           "title": p.title} for p in phases], indent=1))
        return EXIT_OK
    for phase in phases:
        print(f"{phase.name:<8} {len(phase.cells):>3} runs on {phase.hardware}  {phase.title}")
    return EXIT_OK


def _list_cells(
    phase: Phase, rows: Sequence[int], cells: Sequence[Cell], costs: Sequence[Cost], *,
    as_json: bool,
) -> None:
    """Print the runs, and what they will take before anything starts."""
    if as_json:
        print(json.dumps([_entry(*item) for item in zip(rows, cells, costs, strict=True)],
                         indent=1))
        return
    width = max(len(cell.name) for cell in cells)
    hours = f"{_machines(cells)}-hours"
    print(f"{phase.title}\n{'row':>3}  {'run':<{width}}  samples/update  updates  steps    samples"
          f"    tokens  {hours:>13}")
    for row, cell, cost in zip(rows, cells, costs, strict=True):
        updates = cell.steps * cell.updates_per_step
        print(f"{row:>3}  {cell.name:<{width}}  {cell.total_batch:>14,}  {updates:>7,}  "
              f"{cell.steps:>5,}  {cost.n_samples:>9,}  {_tokens(cost):>8}  {_hours(cost):>13}")
    print(_total(cells, costs))


def _entry(row: int, cell: Cell, cost: Cost) -> dict[str, Any]:
    return {"row": row, "run": cell.name, "n_prompts": cell.n_prompts,
            "n_rollouts": cell.n_rollouts, "seed": cell.seed, "total_batch": cell.total_batch,
            "updates": cell.steps * cell.updates_per_step, "steps": cell.steps,
            "samples": cost.n_samples, "validation_samples": cost.n_validated,
            "tokens": cost.n_tokens, "tokens_measured": cost.tokens_measured,
            "gpu_hours": cost.gpu_hours if math.isfinite(cost.gpu_hours) else None,
            "gpu_hours_measured": cost.hours_measured, "checkpoint_gib": checkpoint_disk(cell)}


def _tokens(cost: Cost) -> str:
    return ("" if cost.tokens_measured else "≤") + f"{cost.n_tokens:.2g}"


def _hours(cost: Cost) -> str:
    if not math.isfinite(cost.gpu_hours):
        return NOT_MEASURED
    return f"{cost.gpu_hours:.2f}" if cost.hours_measured else _about(cost.gpu_hours)


def _about(hours: float) -> str:
    return f"~{float(f'{hours:.2g}'):,g}"  # two digits are more than an assumption tells


def _machines(cells: Sequence[Cell]) -> str:
    return "machine" if cells[0].hardware.device == "cpu" else "GPU"


def _total(cells: Sequence[Cell], costs: Sequence[Cost]) -> str:
    validated = sum(cost.n_validated for cost in costs)
    more = f" and {validated:,} of validation" if validated else (
        " (validation not counted: its data are not there)")
    return (f"{len(cells)} runs, {sum(cost.n_samples for cost in costs):,} samples{more}, "
            f"{sum(cost.n_tokens for cost in costs):.2g} tokens"
            f"{'' if costs[0].tokens_measured else ' at most'}; {_total_hours(cells, costs)}")


def _total_hours(cells: Sequence[Cell], costs: Sequence[Cost]) -> str:
    word, machine, parts = _machines(cells), cells[0].hardware, []
    measured = [cost.gpu_hours for cost in costs if cost.hours_measured]
    if measured:
        parts.append(f"{sum(measured):.2f} {word}-hours from measured step times for "
                     f"{len(measured)} of them")
    if roofline := [cost.gpu_hours for cost in costs
                    if not cost.hours_measured and math.isfinite(cost.gpu_hours)]:
        parts.append(f"{_about(sum(roofline))} {word}-hours by a roofline, {machine.peak_tflops:g} "
                     f"TFLOP/s at {machine.utilisation:.0%}, for {len(roofline)} not measured "
                     "(elsewhere: --timings DIR)")
    elif len(measured) < len(costs):
        parts.append(f"{word}-hours of {len(costs) - len(measured)} not measured: no run here has "
                     "logged such step times (elsewhere: --timings DIR)")
    if disk := max(map(checkpoint_disk, cells)):
        parts.append(f"up to {disk:.0f} GiB of checkpoints for a run that is not finished")
    return "; ".join(parts)


def _check(cells: Sequence[Cell], places: Places) -> int:
    from training.checks import missing, one_step
    from training.local import run_cells

    if problems := missing(cells, places):
        print("\n".join(f"missing: {problem}" for problem in problems))
        return EXIT_INPUT
    print("nothing is missing; does verl make a step?", flush=True)
    places.output.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix="check-", dir=places.output))
    outcome = run_cells([one_step(cells)], replace(places, output=folder, wandb=False), tries=1,
                        say=partial(print, flush=True))
    if outcome.failed:
        print(f"missing: a trainer that makes a step; its words are in {folder}")
        return EXIT_INPUT
    rmtree(folder)
    return EXIT_OK


def _loop(options: argparse.Namespace, phase: Phase, places: Places) -> int:
    from training.checks import check_ready
    from training.local import run_cells
    from training.loop import Goal, run_loop

    if options.budget is None:
        raise CBSDataError("--loop needs --budget, the samples that all runs may take together")
    check_ready(phase.cells, places)
    say = partial(print, flush=True)
    reached = run_loop(
        phase, places, Goal(options.budget, options.width, asked=tuple(options.plan or ())),
        run=lambda cells: run_cells(cells, places, tries=options.tries, say=say),
        read=lambda name: with_machines(read_phase(name), options.gpus, options.nodes), say=say)
    print(f"{'the interval is as narrow as asked' if reached else 'the budget is spent'}\n"
          f"next: python -m cbsbayes.ingest {places.output / 'logs'} -o "
          f"{places.output / 'sweep.nc'}")
    return EXIT_OK


def _run_here(options: argparse.Namespace, cells: Sequence[Cell], places: Places) -> int:
    from training.checks import check_ready
    from training.local import run_cells

    check_ready(cells, places)
    outcome = run_cells(cells, places, tries=options.tries,
                        say=lambda text: print(text, flush=True))
    print(f"{outcome.finished} finished, {outcome.skipped} finished before, {outcome.failed} "
          f"failed, {outcome.busy} run elsewhere\nnext: python -m cbsbayes.ingest "
          f"{places.output / 'logs'} -o {places.output / 'sweep.nc'}")
    return EXIT_INPUT if outcome.failed else EXIT_OK


def _shared_arguments(options: argparse.Namespace, places: Places,
                      found: Callable[[Path], Path] = Path.absolute) -> list[str]:
    """Return the arguments that another process needs to run the same rows."""
    path = Path(options.phase)
    phase = str(found(path)) if path.suffix == ".toml" else options.phase
    arguments = [phase, "-o", str(found(places.output)), "--data", str(found(places.data)),
                 "--assets", str(found(places.assets)), "--project", options.project,
                 "--tries", str(options.tries)]
    for flag, value in (("--model", options.model), ("--gpus", options.gpus),
                        ("--nodes", options.nodes)):
        arguments += [flag, str(value)] if value else []
    return arguments + (["--wandb"] if options.wandb else [])


def _from_checkout(path: Path) -> Path:
    """Return a path from the checkout if it lies below it, else the absolute path."""
    path = path.absolute()
    return path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path


def _slurm(
    options: argparse.Namespace, phase: Phase, rows: Sequence[int], places: Places
) -> int:
    from cbsbayes.sweep.files import write_whole
    from training.submit import array_script

    logs = places.output / "slurm"
    text = array_script(phase, rows, _shared_arguments(options, places, _from_checkout),
                        script=options.slurm, logs=_from_checkout(logs), parallel=options.parallel,
                        directives=options.sbatch or ())
    if options.dry_run:
        print(text, end="")
        return EXIT_OK
    logs.mkdir(parents=True, exist_ok=True)
    options.slurm.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.slurm, text)
    print(f"wrote {options.slurm}: {len(rows)} rows; submit with: sbatch {options.slurm}")
    return EXIT_OK


def _ray(options: argparse.Namespace, phase: Phase, places: Places) -> int:
    from training.submit import submit, submit_command

    arguments = _shared_arguments(options, places)
    if options.rows:
        arguments += ["--rows", options.rows]
    if options.dry_run:
        print(shlex.join(submit_command(options.ray, arguments, root=_ROOT)))
        return EXIT_OK
    print(submit(options.ray, arguments, root=_ROOT))
    print(f"{phase.name}: rows run one after the other; follow with: ray job list "
          f"--address {options.ray}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
