"""Make ``sweep.nc`` from the archived logs, or the archive from a folder of logs.

python data/verl_tiny/build.py                          # logs.tar.xz → sweep.nc
python data/verl_tiny/build.py --pack outputs/tiny/logs # a sweep's logs → logs.tar.xz → sweep.nc
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
from pathlib import Path

import xarray as xr
import yaml

from cbsbayes.ingest import ingest
from cbsbayes.sweep.dataset import add_notes
from cbsbayes.sweep.files import write_sweep
from cbsbayes.sweep.schema import digest, validate

__all__ = ["build", "pack"]

HERE = Path(__file__).resolve().parent
ARCHIVE = HERE / "logs.tar.xz"
N_ITEMS = 512  # rows of val.parquet (python -m training.cpu.assets); verl logs it nowhere
REWARD = "training/cpu/task.py"
NOTES = [
    "The validation set is one fixed set of 512 additions, none of them trained on.",
    "Gradient noise was probed every 10 updates, the first included; every number of it is that "
    "of the plain gradient, while the optimizer is AdamW.",
    "Seconds per step were measured on two shared CPU cores and carry the machine's load.",
]


def build(archive: Path = ARCHIVE) -> xr.Dataset:
    """Return the sweep dataset of the archived logs, read as any folder of logs is."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        ds = ingest([folder])
    ds["n_items"][:] = N_ITEMS
    ds.attrs |= {"title": "verl_tiny: verl GRPO on three-digit addition, an 84,544-parameter "
                          "transformer on CPU",
                 "history": "2026-11: read by data/verl_tiny/build.py from logs.tar.xz"}
    return validate(add_notes(ds, NOTES).assign_attrs(digest=digest(ds)))


def pack(folder: Path, archive: Path = ARCHIVE) -> None:
    """Write a folder of logs as an archive that is the same each time.

    Paths of the machine in the configurations are made relative to the checkout.
    """
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".jsonl", ".yaml"):
                content = _relative(path.read_text(encoding="utf-8"), path).encode()
                entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
                entry.size, entry.mode = len(content), 0o644
                packed.addfile(entry, io.BytesIO(content))


def _relative(text: str, path: Path) -> str:
    if path.suffix != ".yaml":
        return text
    reward = yaml.safe_load(text)["reward"]["custom_reward_function"]["path"]
    return text.replace(reward.removesuffix(REWARD), "")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pack"]:
        pack(Path(sys.argv[2]))
    write_sweep(build(), HERE / "sweep.nc")
