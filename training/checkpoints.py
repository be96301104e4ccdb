"""A run's checkpoints: the last whole one is what a restart continues from, the others go.

verl names its last checkpoint in a tracker file, once everything was saved. A save that was
interrupted, or a folder that was removed, leaves a tracker that names nothing whole: verl would
fail at every restart, or begin again in silence while the earlier log counts as continued.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.files import write_whole
from training.cells import Cell
from training.verl_command import Places

__all__ = ["clear", "last_whole", "settle"]

_TRACKER = "latest_checkpointed_iteration.txt"
_FOLDER = re.compile(r"global_step_([0-9]+)")
_SHARD = re.compile(r"model_world_size_([0-9]+)_rank_0\.pt")
_PARTS = ("model", "optim", "extra_state")


def last_whole(cell: Cell, places: Places) -> int:
    """Return the trainer step of a run's last whole checkpoint, 0 where there is none.

    Raises
    ------
    CBSDataError
        If it was saved on another number of GPUs, whose shards verl does not read.
    """
    if not cell.controls.checkpoint.every_updates:
        return 0
    whole = {step: folder for step, folder in _folders(cell, places).items() if _gpus(folder)}
    step = max(whole, default=0)
    saved, own = _gpus(whole[step]) if step else cell.hardware.n_gpus, cell.hardware.n_gpus
    if saved != own:
        raise CBSDataError(f"{whole[step]} was saved on {saved} GPU(s), which verl cannot read on "
                           f"{own}; give --gpus {saved // cell.hardware.nodes}, or move "
                           f"{whole[step].parent} away to begin the run again")
    return step


def settle(cell: Cell, places: Places) -> int:
    """Let verl's tracker name the last whole checkpoint and remove all others.

    Returns
    -------
    int
        The trainer step that the run continues from, 0 where it begins again.

    Raises
    ------
    CBSDataError
        As `last_whole`.
    """
    step, tracker = last_whole(cell, places), _home(cell, places) / _TRACKER
    for other, folder in _folders(cell, places).items():
        if other != step:
            shutil.rmtree(folder)
    if step:
        write_whole(tracker, str(step))
    else:
        tracker.unlink(missing_ok=True)
    return step


def clear(cell: Cell, places: Places) -> None:
    """Remove the checkpoints of a run that is finished."""
    shutil.rmtree(_home(cell, places), ignore_errors=True)


def _home(cell: Cell, places: Places) -> Path:
    return places.run(cell.name) / "checkpoints"


def _folders(cell: Cell, places: Places) -> dict[int, Path]:
    return {int(found[1]): path for path in _home(cell, places).glob("global_step_*")
            if (found := _FOLDER.fullmatch(path.name))}


def _gpus(folder: Path) -> int:
    """Return the GPUs whose shards are all there and not cut, 0 where something is missing."""
    sizes = [int(found[1]) for path in (folder / "actor").glob("model_*_rank_0.pt")
             if (found := _SHARD.fullmatch(path.name))]
    for size in sizes:
        shards = [folder / "actor" / f"{part}_world_size_{size}_rank_{rank}.pt"
                  for part in _PARTS for rank in range(size)]
        # torch saves zip archives, whose directory stands at their end
        if all(path.is_file() and zipfile.is_zipfile(path)
               for path in (folder / "data.pt", *shards)):
            return size
    return 0
