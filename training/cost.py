"""What a run will cost: samples, tokens, GPU-hours and disk.

Times come from logs of the same kind of machine (the sweep's own folder, or any given). A trainer
step is taken as a fixed part and a part per sample,

    seconds(B) = a + b · B,   a, b ≥ 0,

fitted to the medians of the runs measured; with one batch size measured, only runs of that batch
size get a time. A run without one gets a roofline instead, and is said to have it:

    GPU-hours = FLOPs / (peak × utilisation),
    FLOPs = parameters × (tokens trained on × (2 + 2 + 2 [KL] + 8 × ppo_epochs)
                          + tokens of validation × 2)

two FLOPs per parameter and token for generation, for old log-probabilities and for those of the
reference policy, eight for an update that computes its forward pass twice. Attention, the probe
and whatever waits are in the utilisation, which is an assumption of ``controls.toml``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from cbsbayes.logs.run_name import parse_name
from training.cells import Cell
from training.logs import read_progress

__all__ = ["NOT_MEASURED", "Cost", "Timings", "checkpoint_disk", "estimate", "measure"]

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Timings:
    """Measured times of finished or running runs.

    Attributes
    ----------
    step_seconds : dict of int to float
        Median seconds of a trainer step by samples per step.
    validation_seconds : float
        Median seconds of a validation; NaN where none was measured.
    tokens_per_sample : float
        Median of prompt and response tokens per sample; NaN where none was measured.
    """

    step_seconds: dict[int, float]
    validation_seconds: float
    tokens_per_sample: float


@dataclass(frozen=True)
class Cost:
    """What one run will take.

    Attributes
    ----------
    n_samples : int
        Rollouts that are trained on.
    n_validated : int
        Rollouts of validation, 0 where its files are not there to be counted.
    n_tokens : float
        Prompt and response tokens: from measured lengths, else the most there can be.
    tokens_measured : bool
        Which of the two.
    gpu_hours : float
        From measured step times, else by a roofline; NaN where the machine's peak or the model's
        size is not given. Start-up is not counted.
    hours_measured : bool
        Which of the two.
    """

    n_samples: int
    n_validated: int
    n_tokens: float
    tokens_measured: bool
    gpu_hours: float
    hours_measured: bool


def measure(folders: Iterable[Path]) -> Timings:
    """Gather the step times that runs have logged; their batch is in their names.

    Parameters
    ----------
    folders : iterable of Path
        Folders of logs (``*.jsonl``), made on the kind and number of GPUs asked about.

    Returns
    -------
    Timings
        Empty where nothing was logged.
    """
    steps: dict[int, list[float]] = defaultdict(list)
    validations, tokens = [], []
    for path in sorted(path for folder in folders for path in folder.glob("*.jsonl")):
        name = parse_name(path.stem)
        if name is None:
            continue
        batch, progress = name.n_prompts * name.n_rollouts, read_progress(path)
        if math.isfinite(progress.step_seconds):
            steps[batch].append(progress.step_seconds)
        if math.isfinite(progress.validation_seconds):
            validations.append(progress.validation_seconds)
        if math.isfinite(progress.tokens_per_step):
            tokens.append(progress.tokens_per_step / batch)
    return Timings({batch: median(values) for batch, values in sorted(steps.items())},
                   median(validations) if validations else math.nan,
                   median(tokens) if tokens else math.nan)


def estimate(cell: Cell, timings: Timings, n_items: int = 0) -> Cost:
    """Estimate one run.

    Parameters
    ----------
    cell : Cell
        The run.
    timings : Timings
        What was measured, on the number of GPUs that the run will have.
    n_items : int
        Items of its validation sets together.

    Returns
    -------
    Cost
    """
    measured = math.isfinite(timings.tokens_per_sample)
    sampling = cell.controls.sampling
    per_sample = (timings.tokens_per_sample if measured
                  else sampling.prompt_tokens + sampling.response_tokens)
    seconds = cell.steps * _step_seconds(cell.samples_per_step, timings.step_seconds)
    if math.isfinite(timings.validation_seconds):
        seconds += cell.n_validations * timings.validation_seconds
    validated = cell.n_validations * n_items
    hours = seconds / 3600 * cell.hardware.n_gpus
    timed = math.isfinite(hours)
    return Cost(cell.n_samples, validated, (cell.n_samples + validated) * per_sample, measured,
                hours if timed else _roofline(cell, validated, per_sample), timed)


def _roofline(cell: Cell, validated: int, per_sample: float) -> float:
    """Return GPU-hours from arithmetic alone, NaN where peak or size are not given."""
    rate = cell.hardware.peak_tflops * 1e12 * cell.hardware.utilisation
    if not rate or not cell.checkpoint.parameters:
        return math.nan
    trained = 4 + 2 * cell.controls.optimizer.kl_loss + 8 * cell.ppo_epochs
    passes = cell.n_samples * trained + validated * 2
    return cell.checkpoint.parameters * per_sample * passes / rate / 3600


def checkpoint_disk(cell: Cell) -> float:
    """Return the most GiB that a run's checkpoints take until it is finished.

    Weights and Adam's two moments in fp32; beside those that are kept the one being saved and the
    one that a restarted run continued from. 0 where the model's size is not given.
    """
    checkpoint = cell.controls.checkpoint
    kept = checkpoint.keep + 2 if checkpoint.every_updates else 0
    return 12 * cell.checkpoint.parameters * kept / 2**30


def _step_seconds(batch: int, known: dict[int, float]) -> float:
    """Return the seconds of a step of `batch` samples, NaN where nothing tells.

    The line has the least squares of relative errors.
    """
    if batch in known:
        return known[batch]
    if len(known) < 2:
        return math.nan
    from scipy.optimize import nnls

    batches, seconds = np.array(list(known)), np.array(list(known.values()))
    fixed, slope = nnls(np.column_stack([1 / seconds, batches / seconds]), np.ones(len(known)))[0]
    return float(fixed + slope * batch)
