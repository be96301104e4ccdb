"""Submit a phase to a Ray cluster: one ``ray job`` that runs the rows one after the other.

For runs on more than one node. The job's entry point is the same ``python -m training.sweep PHASE
--run``; verl connects to the cluster that the job runs in and takes ``nodes × GPUs`` of it, so
rows must not run at the same time. The output folder must lie on storage that all nodes share.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cbsbayes.errors import CBSDataError

__all__ = ["submit", "submit_command"]

_ADDRESS = re.compile(r"https?://[^\s/]+(:[0-9]+)?/?|auto")


def submit_command(address: str, command: Sequence[str], *, root: Path) -> list[str]:
    """Return the ``ray job submit`` command.

    Parameters
    ----------
    address : str
        Of the cluster's dashboard, e.g. ``http://head:8265``.
    command : sequence of str
        Arguments of ``training.sweep``, the phase first.
    root : Path
        The checkout, on storage that all nodes share.

    Returns
    -------
    list of str

    Raises
    ------
    CBSDataError
        If the address is none.
    """
    if not _ADDRESS.fullmatch(address):
        raise CBSDataError(f"--ray {address!r} is no address of a Ray dashboard; valid: e.g. "
                           "http://head:8265")
    # The job has no runtime environment of its own: Ray refuses to merge verl's into one that
    # names the same variables.
    return ["ray", "job", "submit", "--address", address, "--no-wait", "--",
            "env", f"PYTHONPATH={root}", "python", "-m", "training.sweep", *command, "--run"]


def submit(address: str, command: Sequence[str], *, root: Path) -> str:
    """Submit the job and return what Ray says, the job's id included.

    Raises
    ------
    CBSDataError
        If Ray is not installed here or refuses the job.
    """
    command = submit_command(address, command, root=root)
    ray = shutil.which("ray")
    if ray is None:
        raise CBSDataError("the command `ray` is not installed here; submit from an environment "
                           "with verl, or print the job with --dry-run")
    done = subprocess.run([ray, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())[-300:]
        raise CBSDataError(f"ray job submit to {address} failed: {words}")
    return done.stdout.strip()
