"""Make ``sweep.nc`` from the archived logs, or the archive from a folder of logs.

python -m data.verl_lr.build                          # logs.tar.xz → sweep.nc
python -m data.verl_lr.build outputs/tinylr/logs      # a sweep's logs → logs.tar.xz → sweep.nc
"""

from __future__ import annotations

import sys
from pathlib import Path

import xarray as xr

from cbsbayes.sweep.files import write_sweep
from cbsbayes.sweep.schema import digest
from data.archive import pack, read

__all__ = ["build"]

HERE = Path(__file__).resolve().parent
ARCHIVE = HERE / "logs.tar.xz"
TITLE = "verl_lr: verl GRPO over learning rates and batches, the task and model of verl_tiny"
NOTES = [
    "The validation set is one fixed set of 512 additions, none of them trained on.",
    "Runs end once .85 has been scored in three evaluations in a row.",
    "Gradient noise was probed every 10 updates, the first included; every number of it is that "
    "of the plain gradient, while the optimizer is AdamW.",
    "Seconds per step were measured on two shared CPU cores and carry the machine's load.",
]


def build() -> xr.Dataset:
    """Return the sweep dataset of the archived logs."""
    ds = read(ARCHIVE, TITLE, NOTES)
    return ds.assign_attrs(digest=digest(ds))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        pack(Path(sys.argv[1]), ARCHIVE)
    write_sweep(build(), HERE / "sweep.nc")
