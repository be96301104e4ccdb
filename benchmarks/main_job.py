"""Time and peak memory of the main job, as whole processes: ``python benchmarks/main_job.py``.

Each run is a fresh process of ``python -m cbsbayes.fit`` on the shipped sweep. The first is made
with empty caches of compiled code, the others find them filled. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def one_run(folder: Path, caches: Path) -> tuple[float, float]:
    """Run the main job; return wall seconds and peak memory in MiB of the largest process."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(caches / "numba"),
                                "PYTENSOR_FLAGS": f"base_compiledir={caches / 'pytensor'}"}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "cbsbayes.fit", "-o", str(folder), "--quiet"], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"the main job ended with status {process.returncode}")
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return time.perf_counter() - start, usage.ru_maxrss / unit


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs with filled caches")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        caches, folder = Path(scratch) / "caches", Path(scratch) / "fit"
        first = one_run(folder, caches)
        warm = [one_run(folder, caches) for _ in range(options.repeats)]
    print("| main job on the shipped sweep, five laws | wall seconds | peak memory, MiB |")
    print("|---|---|---|")
    print(f"| first run, nothing compiled | {first[0]:.0f} | {first[1]:.0f} |")
    wall, memory = (statistics.median(values) for values in zip(*warm, strict=True))
    print(f"| later runs, median of {options.repeats} | {wall:.0f} | {memory:.0f} |")
    print(f"\n{os.cpu_count()} shared cores, Python {sys.version.split()[0]}.")


if __name__ == "__main__":
    main()
