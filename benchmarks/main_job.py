"""Time and peak memory of the main job, as whole processes: ``python benchmarks/main_job.py``.

Each run is a fresh process of ``python -m cbsbayes.fit`` on the shipped sweep. The first is made
with empty caches of compiled code, the others find them filled. Prints two Markdown tables: totals,
and what each stage took (``--timings``).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple


class Run(NamedTuple):
    """One run of the main job: wall and processor seconds, memory in MiB, and its stages."""

    wall: float
    cpu: float
    memory: float
    stages: dict[str, float]


def one_run(folder: Path, caches: Path) -> Run:
    """Run the main job; processor time and memory are those of all its processes."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(caches / "numba"),
                                "PYTENSOR_FLAGS": f"base_compiledir={caches / 'pytensor'}"}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "cbsbayes.fit", "-o", str(folder), "--json", "--timings"],
        env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"the main job ended with status {process.returncode}")
    said: dict[str, Any] = json.loads(printed)[-1]
    stages = {row["stage"]: row["seconds"] for row in said["timings"]}
    stages["starting and ending the process"] = wall - sum(stages.values())
    return Run(wall, usage.ru_utime + usage.ru_stime, said["peak_memory_mib"], stages)


def totals(first: Run, warm: list[Run]) -> list[str]:
    """Return the table of whole runs."""
    wall, cpu, memory = (statistics.median(getattr(run, name) for run in warm)
                         for name in ("wall", "cpu", "memory"))
    return ["| main job on the shipped sweep, five laws | wall seconds | CPU seconds | "
            "peak memory, MiB |",
            "|---|---|---|---|",
            f"| first run, nothing compiled | {first.wall:.0f} | {first.cpu:.0f} | "
            f"{first.memory:.0f} |",
            f"| later runs, median of {len(warm)} | {wall:.0f} | {cpu:.0f} | {memory:.0f} |"]


def by_stage(first: Run, warm: list[Run]) -> list[str]:
    """Return the table of stages, first run against the median of the later ones."""
    lines = [f"| stage | first run, s | later runs, median of {len(warm)}, s |", "|---|---|---|"]
    for stage in first.stages:
        median = statistics.median(run.stages.get(stage, 0.0) for run in warm)
        lines.append(f"| {stage} | {first.stages[stage]:.2f} | {median:.2f} |")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs with filled caches")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        caches, folder = Path(scratch) / "caches", Path(scratch) / "fit"
        first = one_run(folder, caches)
        warm = [one_run(folder, caches) for _ in range(options.repeats)]
        loads = [f"{load:.1f}" for load in os.getloadavg()]
    print("\n".join([*totals(first, warm), "", *by_stage(first, warm)]))
    print(f"\n{os.cpu_count()} shared cores, Python {sys.version.split()[0]}; load averages "
          f"at the end: {', '.join(loads)}.")


if __name__ == "__main__":
    main()
