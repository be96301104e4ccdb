"""A phase on a cluster: a Slurm array script, a row an index; or a Ray job, row after row.

Both only call ``python -m training.sweep PHASE --run``, so that what is on disk decides there as
well: a row that was killed, requeued or submitted again continues, a finished one is skipped.

The script is submitted from the checkout, where Slurm then starts it, so that no path of a machine
need stand in it; console logs go by array id. Two minutes before its time limit a row is stopped
and queued again.

The Ray job is for runs on more than one node. verl connects to the cluster that the job runs in and
takes ``nodes × GPUs`` of it, so rows must not run at the same time. The output folder must lie on
storage that all nodes share.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from string import Template

from cbsbayes.errors import CBSDataError
from training.definitions import Phase

__all__ = ["array_script", "submit", "submit_command"]

_TEMPLATE = Template("""\
#!/bin/bash
# $title
# $count rows; row numbers as in: python -m training.sweep $phase
# Written by training.sweep; submit from the checkout: mkdir -p $logs && sbatch $script
#SBATCH --job-name=cbs_$phase
#SBATCH --array=$rows$parallel
#SBATCH --output=$logs/%x_%A_%a.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
$gpus#SBATCH --cpus-per-task=$cpus
#SBATCH --mem=${memory}G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
$extra
set -euo pipefail
RAY_TMPDIR="$$(mktemp -d /tmp/ray.XXXXXX)"  # one Ray per row; its sockets need a short path
export RAY_TMPDIR
trap 'rm -rf "$$RAY_TMPDIR"' EXIT
echo "row $$SLURM_ARRAY_TASK_ID on $$(hostname), $$(date -u +%FT%TZ)"
# The shell waits in `wait`, so that Slurm's signals reach the traps and through them the run.
"$${PYTHON:-python}" -m training.sweep $command --run --rows "$$SLURM_ARRAY_TASK_ID" &
run=$$!
again=
trap 'kill -TERM "$$run"' TERM
trap 'again=yes; kill -TERM "$$run"' USR1  # the time limit is near: stop, and go on in a new job
status=0
wait "$$run" || status=$$?
if kill -0 "$$run" 2>/dev/null; then wait "$$run" || status=$$?; fi
if [ -n "$$again" ]; then scontrol requeue "$$SLURM_JOB_ID"; fi
exit "$$status"
""")
_ADDRESS = re.compile(r"https?://[^\s/]+(:[0-9]+)?/?|auto")
_DIRECTIVE = re.compile(r"--[a-z][a-z-]*(=[^\n]*)?")


def array_script(
    phase: Phase, rows: Sequence[int], command: Sequence[str], *, script: Path, logs: Path,
    parallel: int | None = None, directives: Sequence[str] = (),
) -> str:
    """Return the text of an array script.

    Parameters
    ----------
    phase : Phase
        Whose rows run.
    rows : sequence of int
        Row numbers of the phase, from 1.
    command : sequence of str
        Arguments of ``training.sweep`` that every row shares, the phase first.
    script : Path
        Where the script will lie, for its own comment.
    logs : Path
        Folder of the console logs, from the checkout; Slurm does not make it.
    parallel : int, optional
        Most rows at a time.
    directives : sequence of str
        Further ``#SBATCH`` options, e.g. ``--time=12:00:00``; they come after those of the script
        and replace them.

    Returns
    -------
    str

    Raises
    ------
    CBSDataError
        If a run needs more than one node, a directive is none, or a path cannot stand in one.
    """
    cells = [phase.cells[row - 1] for row in rows]
    if any(cell.hardware.nodes > 1 for cell in cells):
        raise CBSDataError("a row of a Slurm array runs on one node; for more nodes start a Ray "
                           "cluster and use --ray ADDRESS")
    for directive in directives:
        if not _DIRECTIVE.fullmatch(directive):
            raise CBSDataError(f"--sbatch {directive!r} is no option of sbatch; valid: e.g. "
                               "--sbatch=--time=24:00:00")
    if not str(script).isprintable():
        raise CBSDataError(f"--slurm is {str(script)!r}; valid: a path without line breaks, which "
                           "would end the comment that names it in the script")
    if re.search(r"[\s%\\]", str(logs)):
        raise CBSDataError(f"Slurm cannot write logs under {str(logs)!r}: spaces, % and "
                           "backslashes have a meaning there; choose another --output")
    gpus = max(cell.hardware.gpus_per_node for cell in cells)
    accelerated = any(cell.hardware.device == "cuda" for cell in cells)
    return _TEMPLATE.substitute(
        title=" ".join(phase.title.split()), phase=phase.name, count=len(rows), script=script,
        rows=_ranges(rows), parallel=f"%{parallel}" if parallel else "", logs=logs,
        gpus=f"#SBATCH --gpus-per-node={gpus}\n" if accelerated else "",
        cpus=gpus * cells[0].hardware.cpus_per_gpu, memory=gpus * cells[0].hardware.memory_per_gpu,
        extra="".join(f"#SBATCH {text}\n" for text in directives),
        command=shlex.join(command))


def _ranges(rows: Sequence[int]) -> str:
    """Write row numbers as Slurm does: ``1-6,9``."""
    parts: list[list[int]] = []
    for row in sorted(set(rows)):
        if parts and row == parts[-1][1] + 1:
            parts[-1][1] = row
        else:
            parts.append([row, row])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


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
