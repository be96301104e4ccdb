"""Damaged files of compiled code count as missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

KERNEL = """
from cbsbayes.models.compiled import compiled


@compiled
def twice(x):
    return 2 * x


print(twice(21), sum(twice.stats.cache_hits.values()))
"""


@pytest.fixture
def outputs(tmp_path):
    """Return a function that runs a kernel in a new process, and the files of its cache."""
    (tmp_path / "kernel.py").write_text(KERNEL)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run():
        done = subprocess.run([sys.executable, tmp_path / "kernel.py"], capture_output=True,
                              text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    run()
    return run, [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_damaged_files_are_compiled_anew_and_whole_ones_used(outputs):
    run, files = outputs
    assert {path.suffix for path in files} == {".nbi", ".nbc"}
    assert run() == ["42", "1"]
    index, data = sorted(files, key=lambda path: path.suffix == ".nbc")
    for damage in ({index: b""}, {data: data.read_bytes()[:40]},
                   {path: bytes(path.stat().st_size) for path in files}):
        for path, content in damage.items():
            path.write_bytes(content)
        assert run() == ["42", "0"]
    assert run() == ["42", "1"]
    for path in files:
        os.utime(path, (0, 0))  # of an earlier version of the package
    assert run() == ["42", "0"]
