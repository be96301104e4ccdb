"""Logs of a sweep as an archive that is the same each time, and the dataset made from it."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import xarray as xr
import yaml

from cbsbayes.ingest import ingest
from cbsbayes.sweep.dataset import add_notes

__all__ = ["pack", "read"]

_REWARD = "training/cpu/task.py"


def read(archive: Path, title: str, notes: Sequence[str]) -> xr.Dataset:
    """Return the sweep dataset of archived logs, read as any folder of logs is."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        ds = ingest([folder])
    ds.attrs |= {"title": title,
                 "history": f"2026-11: read by data/{archive.parent.name}/build.py from "
                            f"{archive.name}"}
    return add_notes(ds, notes)


def pack(folder: Path, archive: Path) -> None:
    """Write a folder of logs as an archive.

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
    return text.replace(reward.removesuffix(_REWARD), "")
