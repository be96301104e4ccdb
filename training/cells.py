"""One cell of a sweep: one training run to be, with every number that follows from its batch.

    updates       = horizon.updates + horizon.samples / (n_prompts × n_rollouts)
    trainer steps = updates / updates_per_step,
    updates_per_step = n_prompts / mini_batch_prompts × ppo_epochs

verl counts ``ppo_mini_batch_size`` in prompts and makes one optimizer update per mini-batch, so
that updates_per_step is 1 unless a definition asks otherwise.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_name import RunName, build_name
from training.controls import Controls, Dataset, Hardware, Model

__all__ = ["Cell", "check_cell", "largest_divisor"]


@dataclass(frozen=True)
class Cell:
    """One run: its place in the design and what it shares with the others.

    Attributes
    ----------
    phase, model, dataset, algorithm : str
        Labels; `algorithm` is verl's ``adv_estimator``.
    n_prompts, n_rollouts : int
        Prompts per trainer step, rollouts per prompt.
    ppo_epochs, learning_rate, mini_batch_prompts, seed
        The rest of the run's coordinates.
    name_learning_rate : bool
        Whether the name says the learning rate (where a phase varies it).
    controls, hardware, checkpoint, data
        What is held constant, where it runs, which model and which files.
    """

    phase: str
    model: str
    dataset: str
    algorithm: str
    n_prompts: int
    n_rollouts: int
    ppo_epochs: int
    learning_rate: float
    mini_batch_prompts: int
    seed: int
    name_learning_rate: bool
    controls: Controls
    hardware: Hardware
    checkpoint: Model
    data: Dataset

    @property
    def name(self) -> str:
        """Name of the run, as `cbsbayes.logs.run_name` reads it back."""
        return build_name(RunName(
            self.phase, self.n_prompts, self.n_rollouts, self.model, self.dataset,
            ppo_epochs=self.ppo_epochs if self.ppo_epochs != 1 else None,
            learning_rate=self.learning_rate if self.name_learning_rate else None,
            mini_batch_prompts=(self.mini_batch_prompts
                                if self.mini_batch_prompts != self.n_prompts else None),
            seed=self.seed))

    @property
    def samples_per_step(self) -> int:
        """Rollouts made in one trainer step."""
        return self.n_prompts * self.n_rollouts

    @property
    def total_batch(self) -> int:
        """Samples in one optimizer update."""
        return self.mini_batch_prompts * self.n_rollouts

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates in one trainer step."""
        return self.n_prompts // self.mini_batch_prompts * self.ppo_epochs

    @property
    def steps(self) -> int:
        """Trainer steps until the horizon."""
        horizon = self.controls.horizon
        updates = horizon.updates + horizon.samples / self.total_batch
        return max(1, math.ceil(updates / self.updates_per_step))

    @property
    def n_samples(self) -> int:
        """Rollouts made in the whole run."""
        return self.steps * self.samples_per_step

    @property
    def validation_steps(self) -> int:
        """Trainer steps from one evaluation to the next."""
        validation = self.controls.validation
        return max(self.in_steps(validation.every_updates),
                   math.ceil(self.steps / validation.evaluations))

    @property
    def n_validations(self) -> int:
        """Evaluations, those before training and at the end included."""
        every = self.validation_steps
        last = self.steps % every != 0
        return self.steps // every + last + self.controls.validation.before_training

    @property
    def rollout_seed(self) -> int:
        """A sampling seed of the run's own, derived from its name."""
        return zlib.crc32(self.name.encode()) & 0x7FFFFFFF

    def in_steps(self, updates: int) -> int:
        """Return the whole trainer steps in a number of updates, at least one."""
        return max(1, updates // self.updates_per_step)

    def micro_batch(self, most: int, rows: int) -> int:
        """Return the largest micro-batch up to `most` that divides a GPU's share of `rows`."""
        return largest_divisor(rows // self.hardware.n_gpus, most)


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of `number` that is not above `most`."""
    return next(d for d in range(min(number, most), 0, -1) if number % d == 0)


def check_cell(cell: Cell) -> None:
    """Refuse a cell that verl would refuse, or silently pad, hours later.

    Raises
    ------
    CBSDataError
        If a mini-batch is larger than the batch or does not divide it, or the samples do not
        divide over the GPUs.
    """
    what = f"cell n_prompts {cell.n_prompts}, n_rollouts {cell.n_rollouts} of {cell.phase}"
    mini, gpus = cell.mini_batch_prompts, cell.hardware.n_gpus
    if mini > cell.n_prompts:
        raise CBSDataError(f"{what}: its mini-batch of {mini} prompts is larger than its batch; "
                           f"valid: at most {cell.n_prompts}")
    if cell.n_prompts % mini:
        raise CBSDataError(f"{what}: mini-batches of {mini} prompts do not divide the batch; "
                           "choose a divisor, or mini_batch = \"train_batch\"")
    if cell.total_batch % gpus:
        raise CBSDataError(f"{what}: {cell.total_batch} samples per update do not divide over "
                           f"{gpus} GPUs; use fewer GPUs (--gpus) or a larger cell")
