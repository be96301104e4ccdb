"""verl's own loggers without verl's dependencies, and a stream of metrics to send through them.

Importing verl needs torch and Ray; the two modules here are loaded by their file path, so what
runs is verl's code, unchanged.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
from signals import PATIENCE

CORE = "val-core/openai/gsm8k/acc/mean@1"


def verl_module(path: str) -> ModuleType:
    """Load one of verl's modules by its path inside the package."""
    package = importlib.util.find_spec("verl")
    if package is None or package.origin is None:
        pytest.skip("verl is not installed (extra: training); its loggers write these files")
    file = Path(package.origin).parent / path
    spec = importlib.util.spec_from_file_location(f"verl_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    # LocalLogger's module imports torch for other classes; LocalLogger itself never uses it.
    with mock.patch.dict(sys.modules, {"torch": sys.modules.get("torch", ModuleType("torch"))}):
        spec.loader.exec_module(module)
    return module


def metric_rows(n_prompts: int, n_steps: int = 13) -> list[tuple[int, dict[str, object]]]:
    """Return a run's rows as verl logs them: validation before training, every 4 and at the end."""
    rows: list[tuple[int, dict[str, object]]] = [(0, validation(0, n_prompts))]
    for step in range(1, n_steps + 1):
        row: dict[str, object] = {
            "training/global_step": step,
            "actor/grad_norm": np.float32(1 / step),
            "actor/lr": 1e-06,
            "actor/pg_loss": math.nan if step == 2 else -1.5e-09 * step,
            "grad_noise/prompt/tr_sigma": np.float64(100 / step),
            "critic/score/max": 1,
            "perf/time_per_step": 2.5,
        }
        if step % 4 == 0 or step == n_steps:
            row |= validation(step, n_prompts)
        rows.append((step, row))
    return rows


def validation(step: int, n_prompts: int) -> dict[str, object]:
    reached = 1 - math.exp(-step * n_prompts / 200)
    return {
        CORE: np.float64(0.1 + 0.8 * reached),
        "val-core/math/acc/mean@1": 0.05 + 0.3 * reached,
        "val-aux/openai/gsm8k/reward/mean@1": np.float64(0.1 + 0.8 * reached),
        "val-aux/num_turns/min": np.int64(2),
    }


def write_jsonl(folder: Path, name: str, rows: list[tuple[int, dict[str, object]]]) -> None:
    tracking = verl_module("utils/tracking.py")
    environment = {"VERL_FILE_LOGGER_PATH": str(folder / f"{name}.jsonl")}
    with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(io.StringIO()):
        logger = tracking.FileLogger("project", name)
    for step, row in rows:
        logger.log(row, step)
    logger.finish()


def write_console(folder: Path, name: str, rows: list[tuple[int, dict[str, object]]]) -> None:
    """Write what a terminal shows: Ray's coloured prefix, progress bars, other lines."""
    logger = verl_module("utils/logger/aggregate_logger.py").LocalLogger()
    prefix = "\x1b[36m(TaskRunner pid=2101)\x1b[0m "
    text = f"{prefix}{{'trainer': {{'total_epochs': 15}}}}\n"
    for step, row in rows:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            logger.log(row, step)
        bar = f"Training Progress: {step:3d}%|█▌  | {step}/13 [00:02<00:08,  2.95s/it]"
        between = ["\n", f"\r{bar}\n", f" {bar}\n"][step % 3]
        text += f"{prefix}\r{bar}\r" if step % 2 else ""
        text += prefix + printed.getvalue().removesuffix("\n") + between
        text += f"{prefix}step time was fine - or so it seemed\n"
    (folder / f"{name}.log").write_text(text, encoding="utf-8", newline="")


def write_tensorboard(folder: Path, name: str, rows: list[tuple[int, dict[str, object]]]) -> None:
    tensorboardx = pytest.importorskip("tensorboardX")
    writer = tensorboardx.SummaryWriter(str(folder / name))
    for step, row in rows:
        for key, value in row.items():
            if not math.isnan(value):  # tensorboardX prints a warning for each
                writer.add_scalar(key, value, step)
    writer.close()


_WRITE_WANDB = """
import json, os, signal, sys, time, wandb
for run in json.load(sys.stdin):
    rows, then = run.pop("rows"), run.pop("then", {})
    started = wandb.init(project="p", dir=sys.argv[1], mode="offline", **run)
    started.config.update(then.get("config", {}))
    for step, row in rows:
        started.log(row | {"hist": wandb.Histogram([1, 2])}, step=step)
    if then.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    started.finish(exit_code=then.get("exit", 0))
    time.sleep(then.get("pause", 0))
"""


def write_wandb(folder: Path, *runs: dict[str, Any]) -> None:
    """Write offline runs by the genuine client, in a process and a home of its own.

    A run has `rows`, what `wandb.init` takes, and what is to happen `then`: more `config`, `kill`,
    the `exit` status and a `pause` in seconds.
    """
    pytest.importorskip("wandb")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "XDG_"))}
    environment |= {"HOME": str(folder), "WANDB_SILENT": "true", "WANDB_X_DISABLE_STATS": "true"}
    done = subprocess.run(
        [sys.executable, "-c", _WRITE_WANDB, str(folder)], input=json.dumps(runs, default=float),
        env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    killed = any(run.get("then", {}).get("kill") for run in runs)
    assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
