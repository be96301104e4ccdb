"""The Slurm array script, run by a real shell, and the submission to Ray."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from signals import usual_signals

from cbsbayes.errors import CBSDataError
from training.definitions import read_phase, with_machines
from training.ray_submit import submit, submit_command
from training.slurm import array_script

ARGUMENTS = ["p1", "-o", "/shared/it's here"]


def script(tmp_path, rows=(1, 2, 3, 7), phase=None, **options):
    phase = phase or read_phase("p1")
    options = {"script": tmp_path / "p1.sbatch", "root": tmp_path, "logs": Path("/shared/logs"),
               **options}
    return array_script("p1", phase.title, [phase.cells[r - 1] for r in rows], rows, ARGUMENTS,
                        **options)


def directives(text):
    return [line.removeprefix("#SBATCH ") for line in text.splitlines()
            if line.startswith("#SBATCH")]


def test_one_index_is_one_row_and_logs_go_by_array_id(tmp_path):
    lines = directives(script(tmp_path, parallel=2, directives=["--time=24:00:00"]))
    assert "--array=1-3,7%2" in lines
    assert "--output=/shared/logs/%x_%A_%a.out" in lines
    assert "--gpus-per-node=8" in lines
    assert "--time=24:00:00" in lines


def test_cpu_phase_asks_for_no_gpu(tmp_path):
    assert not any("gpu" in line for line in directives(
        script(tmp_path, rows=[1], phase=read_phase("tiny"))))


def in_shell(tmp_path, text, python):
    """Run a script with bash as Slurm would, with a program where Python is called."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/bash\n{python}\n")
    program.chmod(0o755)
    path = tmp_path / "p1.sbatch"
    path.write_text(text)
    variables = {**os.environ, "SLURM_ARRAY_TASK_ID": "7",
                 "PYTHON": str(program), "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    return subprocess.Popen(["bash", str(path)], env=variables, stdout=subprocess.PIPE, text=True,
                            preexec_fn=usual_signals)


def test_script_runs_its_row_and_passes_the_status_on(tmp_path):
    python = 'printf "%s\\n" "$RAY_TMPDIR" "$@"; test -d "$RAY_TMPDIR" && exit 3'
    with in_shell(tmp_path, script(tmp_path), python) as job:
        folder, *lines = job.stdout.read().splitlines()[1:]
    assert lines == ["-m", "training.sweep", *ARGUMENTS, "--run", "--rows", "7"]
    assert job.returncode == 3
    assert Path(folder).parent == tmp_path / "temporary"
    assert not Path(folder).exists()


def test_slurm_s_warning_reaches_the_run(tmp_path):
    waits = ("trap 'sleep 0.3; echo stopped; exit 130' TERM; echo begun; "
             "while true; do sleep 0.05; done")
    with in_shell(tmp_path, script(tmp_path), waits) as job:
        job.stdout.readline()
        assert job.stdout.readline() == "begun\n"
        job.send_signal(signal.SIGTERM)
        assert job.stdout.read() == "stopped\n"
    assert job.returncode == 130


@pytest.mark.parametrize("bad", ["time=3", "--time 3\nrm -rf ~", "-p gpu", "--Time=3"])
def test_directive_that_is_none(tmp_path, bad):
    with pytest.raises(CBSDataError, match="is no option of sbatch"):
        script(tmp_path, directives=[bad])


def test_more_nodes_belong_to_ray(tmp_path):
    with pytest.raises(CBSDataError, match=r"runs on one node; .*--ray ADDRESS"):
        script(tmp_path, phase=with_machines(read_phase("p1"), None, 2))


def test_folder_that_slurm_would_misread(tmp_path):
    with pytest.raises(CBSDataError, match="Slurm cannot write logs under '/a b'"):
        script(tmp_path, logs=Path("/a b"))


def test_ray_job_calls_the_same_command():
    command = submit_command("http://head:8265", ["p1", "--nodes", "2"], root=Path("/shared/repo"))
    assert command[:5] == ["ray", "job", "submit", "--address", "http://head:8265"]
    assert command[command.index("--") + 1:] == [
        "env", "PYTHONPATH=/shared/repo", "python", "-m", "training.sweep", "p1", "--nodes", "2",
        "--run"]


@pytest.mark.parametrize("bad", ["head", "", "http://", "ftp://head:8265", "http://a b"])
def test_address_that_is_none(bad):
    with pytest.raises(CBSDataError, match="is no address of a Ray dashboard"):
        submit_command(bad, ["p1"], root=Path("/x"))


def test_what_ray_refuses_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CBSDataError, match="`ray` is not installed here"):
        submit("http://head:8265", ["p1"], root=tmp_path)
    program = tmp_path / "ray"
    program.write_text("#!/bin/sh\necho 'Failed to connect\n to Ray' >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(CBSDataError, match="failed: Failed to connect to Ray") as caught:
        submit("http://head:8265", ["p1"], root=tmp_path)
    assert "\n" not in str(caught.value)
