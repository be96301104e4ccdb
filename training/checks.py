"""What must be there before a sweep starts: data, model, reward, GPUs. Nothing is started on doubt.

Needs neither torch nor verl: rows are counted in the Parquet files' footers, GPUs by the driver's
own tool.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from cbsbayes.errors import CBSDataError
from training.cells import Cell
from training.cost import checkpoint_disk
from training.verl_command import Places, fill

__all__ = ["check_ready", "count_gpus", "missing", "one_step", "training_rows", "validation_items"]

_PACKAGES = {"verl": "0.9.1", "torch": "", "ray": "", "transformers": ""}
_GPU_PACKAGES = {"vllm": "", "math-verify": ""}
_FREE = 0.9  # of a GPU's memory: vLLM and FSDP take theirs as if nobody else were there
_PREPARE = {"cpu": "python -m training.cpu.assets -o outputs/add3",
            "cuda": "python -m data.prepare, see data/README.md"}


def check_ready(cells: Sequence[Cell], places: Places) -> None:
    """Check everything that the runs read and need.

    Parameters
    ----------
    cells : sequence of Cell
        The runs that are to start.
    places : Places
        Where they read.

    Raises
    ------
    CBSDataError
        If a data file, reward file or local model is missing, the largest batch is larger than
        the training data, or there are fewer GPUs than a definition needs.
    """
    for cell in cells:
        remedy = f"make it ({_PREPARE[cell.hardware.device]}) or name its folder (--data, --assets)"
        for text in (cell.data.train, *cell.data.validation, cell.data.reward):
            if not Path(fill(text, places)).is_file():
                raise CBSDataError(f"{cell.name} needs {fill(text, places)}, which is missing; "
                                   f"{remedy}")
        _check_model(places.model or fill(cell.checkpoint.path, places), cell.name, remedy)
        n_rows = training_rows(cell, places)
        if cell.n_prompts > n_rows:
            raise CBSDataError(f"{cell.name}: its batch of {cell.n_prompts} prompts is larger than "
                               f"the training data ({n_rows} rows); verl would make no step")
    _check_gpus(cells)


def missing(cells: Sequence[Cell], places: Places) -> list[str]:
    """Return everything that keeps the runs from starting on this machine, a line each.

    Packages and their versions, data, model and GPUs, CPUs, memory, network and disk; each with
    its remedy. Nothing heavy is imported. Whether verl then makes a step is told by `one_step`.
    """
    hardware, problems = cells[0].hardware, []
    wanted = _PACKAGES | (_GPU_PACKAGES if hardware.device == "cuda" else {})
    if "flash_attention_2" in hardware.verl.values():
        wanted |= {"flash-attn": ""}
    for package, version in wanted.items():
        try:
            found = metadata.version(package)
            fits = found.startswith(version)
        except metadata.PackageNotFoundError:
            found, fits = "not installed", False
        if not fits:
            problems.append(f"{package} {version or 'of any version'}, here it is {found}; "
                            "see training/README.md")
    try:
        check_ready(cells, places)
    except CBSDataError as error:
        problems.append(str(error))
    gpus = hardware.gpus_per_node
    if hardware.device == "cuda":
        problems += _taken_gpus()
    cpus, memory = os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if cpus < 2 * gpus:
        problems.append(f"CPUs: {cpus} for {gpus} GPU(s), and Ray's helpers want two each and more;"
                        " give --gpus or ask for more")
    if memory < hardware.memory_per_gpu * gpus * 2**29:  # half of what a batch system is asked for
        problems.append(f"memory: {memory / 2**30:.0f} GiB for {gpus} GPU(s); give --gpus or ask "
                        f"for {hardware.memory_per_gpu * gpus} GiB")
    try:  # Ray, vLLM and torch take free ports under the machine's own name
        socket.create_server((socket.gethostname(), 0)).close()
    except OSError as error:
        problems.append(f"network: no port under this machine's name {socket.gethostname()} "
                        f"({error}); name it in /etc/hosts")
    folder = next(path for path in (places.output.absolute(), *places.output.absolute().parents)
                  if path.is_dir())
    free = shutil.disk_usage(folder).free / 2**30
    if free < (needed := max(map(checkpoint_disk, cells))):
        problems.append(f"disk: {free:.0f} GiB free under {folder}, and an unfinished run has up to"
                        f" {needed:.0f} GiB of checkpoints; choose another --output")
    return problems


def one_step(cells: Sequence[Cell]) -> Cell:
    """Return the smallest of the runs, cut to one trainer step without a checkpoint."""
    cell = min(cells, key=lambda cell: cell.samples_per_step)
    controls = cell.controls
    return replace(cell, controls=replace(
        controls, horizon=replace(controls.horizon, updates=1, samples=0, stop_evaluations=0),
        checkpoint=replace(controls.checkpoint, every_updates=0)))


def _check_model(path: str, name: str, remedy: str) -> None:
    local = path.startswith(("/", ".", "~")) or path.count("/") != 1
    if local and not Path(path).expanduser().is_dir():
        raise CBSDataError(f"{name} needs the model folder {path}, which is missing; {remedy} or "
                           "give --model")


def training_rows(cell: Cell, places: Places) -> int:
    """Return the prompts in a run's training data, 0 where the file is missing.

    Raises
    ------
    CBSDataError
        If it is no Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    path = Path(fill(cell.data.train, places))
    try:
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    except FileNotFoundError:
        return 0
    except pyarrow.ArrowInvalid as error:
        raise CBSDataError(f"{path} is no Parquet file ({' '.join(str(error).split())}); "
                           "prepare it again") from None


def validation_items(cell: Cell, places: Places) -> dict[str, int]:
    """Return how many items each validation set has, by the name its metrics are logged under.

    The analysis needs it for the sampling error of an accuracy, and verl logs it nowhere. Empty
    where a file is missing or names no ``data_source``.
    """
    import pyarrow.parquet

    counts: Counter[str] = Counter()
    for text in cell.data.validation:
        path = Path(fill(text, places))
        if not path.is_file() or "data_source" not in pyarrow.parquet.read_schema(path).names:
            return {}
        table = pyarrow.parquet.read_table(path, columns=["data_source"])
        counts.update(table.column("data_source").to_pylist())
    return dict(counts)


def _check_gpus(cells: Sequence[Cell]) -> None:
    wanted = max((c.hardware.gpus_per_node for c in cells if c.hardware.device == "cuda"),
                 default=0)
    if not wanted or os.environ.get("RAY_ADDRESS"):
        return  # a Ray cluster counts its own GPUs
    if any(cell.hardware.nodes > 1 for cell in cells):
        raise CBSDataError("runs on more than one node need a Ray cluster; submit them with --ray "
                           "ADDRESS, or set RAY_ADDRESS")
    found = count_gpus()
    if found < wanted:
        raise CBSDataError(f"the definition needs {wanted} GPU(s) and this machine has {found}; "
                           "give --gpus, go to a GPU node (--slurm, --ray), or try the CPU twin: "
                           "python -m training.sweep tiny --run")


def count_gpus() -> int:
    """Return the GPUs that the driver lists and CUDA_VISIBLE_DEVICES leaves visible."""
    found = sum(line.startswith("GPU ") for line in _driver_says("-L"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    return min(found, sum(bool(part.strip()) and part.strip() != "-1"
                          for part in visible.split(",")))


def _taken_gpus() -> list[str]:
    """Return a line for every GPU whose memory another process holds."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "").split(",")
    lines = []
    for line in _driver_says("--query-gpu=index,memory.free,memory.total",
                             "--format=csv,noheader,nounits"):
        index, free, total = (part.strip() for part in line.split(","))
        known = free.isdecimal() and total.isdecimal()  # some drivers say [N/A]
        seen = visible == [""] or index in visible
        if known and seen and int(free) < _FREE * int(total):
            lines.append(f"memory of GPU {index}: {int(free) / 1024:.0f} of "
                         f"{int(total) / 1024:.0f} GiB free; end what holds the rest "
                         "(nvidia-smi lists it) or choose others by CUDA_VISIBLE_DEVICES")
    return lines


def _driver_says(*arguments: str) -> list[str]:
    """Return the lines of the driver's own tool; none where there is no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=False,
                          timeout=60).stdout.splitlines()
