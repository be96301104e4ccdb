"""Definitions small enough for a test, and a trainer of a few lines that logs as verl does.

The trainer stands where ``python -m verl.trainer.main_ppo`` stands in a real sweep: it takes the
same overrides and environment and writes through verl's own FileLogger, without training.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from training.cells import Cell
from training.definitions import read_phase
from training.verl_command import Places

TRAINER = '''
import json, os, pathlib, sys, time, zipfile
sys.path.insert(0, {tests!r})
from verl_loggers import verl_module

def save(folder, gpus):
    names = [f"actor/{{part}}_world_size_{{gpus}}_rank_{{rank}}.pt" for rank in range(gpus)
             for part in ("model", "optim", "extra_state")]
    for name in ("data.pt", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("data", "weights")

given = dict(text.split("=", 1) for text in sys.argv[1:])
steps, every = int(given["trainer.total_training_steps"]), int(given["trainer.test_freq"])
home = pathlib.Path(given["trainer.default_local_dir"].strip('"'))
plan = json.loads(pathlib.Path({plan!r}).read_text())
mark = home / "latest_checkpointed_iteration.txt"
first = int(mark.read_text()) + 1 if mark.exists() else 1
logger = verl_module("utils/tracking.py").FileLogger("project", given["trainer.experiment_name"])
key = "val-core/tiny/add3/acc/mean@1"
if first == 1:
    logger.log({{key: 0.1}}, 0)
stop = plan.pop(0) if plan else None
pathlib.Path({plan!r}).write_text(json.dumps(plan))
for step in range(first, steps + 1):
    if stop is not None and step > stop["after"]:
        for number in stop.get("checkpoints", ()):
            save(home / f"global_step_{{number}}", stop.get("gpus", 1))
            mark.write_text(str(number))
        if stop.get("sleep"):
            print("waiting", flush=True)
            time.sleep(stop["sleep"])
        print("CUDA error: out of memory")
        sys.exit(stop.get("status", 1))
    row = {{"training/global_step": step, "perf/time_per_step": 2.0, "perf/total_num_tokens": 640}}
    if step % every == 0 or step == steps:
        row |= {{key: 0.1 + 0.01 * step, "timing_s/testing": 0.5}}
    logger.log(row, step)
'''


def needs_verl() -> None:
    """Skip where verl's configuration files or Hydra are not installed."""
    pytest.importorskip("hydra", reason="Hydra is not installed (extra: training)")
    if importlib.util.find_spec("verl") is None:
        pytest.skip("verl is not installed (extra: training)")


def tiny_cells(count: int = 1) -> list[Cell]:
    """Return the first cells of the CPU twin, four steps each."""
    return [changed(cell, horizon={"updates": 4, "samples": 0})
            for cell in read_phase("tiny").cells[:count]]


def changed(cell: Cell, **sections: dict[str, object]) -> Cell:
    """Return a cell with other controls, by section and name."""
    new = {section: dataclasses.replace(getattr(cell.controls, section), **controls)
           for section, controls in sections.items()}
    return dataclasses.replace(cell, controls=dataclasses.replace(cell.controls, **new))


def write_trainer(folder: Path, *stops: dict[str, object]) -> list[str]:
    """Write a trainer that stops early as told, once per entry, and then runs through."""
    plan, script = folder / "plan.json", folder / "trainer.py"
    plan.write_text(json.dumps(list(stops)))
    script.write_text(TRAINER.format(tests=str(Path(__file__).parents[1]), plan=str(plan)))
    return [sys.executable, str(script)]


def places(folder: Path) -> Places:
    """Return places whose output is below a folder."""
    return Places(folder / "sweep")


def write_log(path: Path, rows: Iterable[tuple[int, dict[str, object]]]) -> None:
    """Write what was logged at trainer steps as verl's file logger does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"step": step, "data": data}) + "\n"
                            for step, data in rows))
