"""Kernels are compiled with a cache where there can be one, and without where there cannot."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
from numba import types

from cbsbayes.models.compiled import compiled, compiled_callback

SOURCE = "def twice(x):\n    return 2.0 * x\n"


def twice(x):
    return 2.0 * x


def homeless():
    """Return the same function from a file that numba finds no place for a cache beside."""
    names = {}
    exec(compile(SOURCE, "/nonexistent/kernel.py", "exec"), names)
    return names["twice"]


@pytest.mark.parametrize("function", [twice, homeless()], ids=["beside its file", "homeless"])
def test_a_kernel_computes_with_a_cache_and_without(function):
    assert compiled(function)(1.5) == 3.0
    callback = compiled_callback(types.float64(types.float64))(function)
    called = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(callback.address)
    assert called(1.5) == 3.0


def test_a_kernel_that_cannot_be_compiled_says_so():
    def wrong(x):
        return x.no_such_thing

    with pytest.raises(Exception, match="no_such_thing"):
        compiled_callback(types.float64(types.float64))(wrong)


@pytest.mark.parametrize("kernel", ["compiled(twice)", "compiled(four_times)",
                                    "compiled_callback(types.float64(types.float64))(twice)"])
def test_a_full_disk_under_the_cache_is_told_in_one_line(root, tmp_path, kernel):
    pytest.importorskip("resource")
    code = (
        "import resource\n"
        "from numba import types\n"
        "from cbsbayes._command import run_command\n"
        "from cbsbayes.models.compiled import compiled, compiled_callback\n"
        "def twice(x): return 2.0 * x\n"
        "inner = compiled(twice)\n"
        "def four_times(x): return inner(inner(x))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # bytes of any file\n"
        f"raise SystemExit(run_command(lambda: {kernel}(1.5), 'cbsbayes.fit'))\n")
    script, cache = tmp_path / "kernel.py", tmp_path / "cache"
    script.write_text(code, encoding="utf-8")
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, str(script)], env=environment, text=True,
                          capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"cbsbayes.fit: cannot keep compiled code in {cache}")
    assert "NUMBA_CACHE_DIR" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(cache.rglob("*.tmp.*"))
