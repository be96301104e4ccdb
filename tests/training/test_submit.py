"""The Slurm array script, run by a real shell, and the submission to Ray."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from signals import usual_signals
from sweeps import needs_verl

from cbsbayes.errors import CBSDataError
from training.attempts import read_record
from training.compose import compose
from training.definitions import read_phase, with_machines
from training.local import run_cells
from training.submit import array_script, submit, submit_command
from training.verl_command import Places

ARGUMENTS = ["p1", "-o", "/shared/it's here"]


def script(tmp_path, rows=(1, 2, 3, 7), phase=None, **options):
    phase = phase or read_phase("p1")
    options = {"script": tmp_path / "p1.sbatch", "logs": Path("/shared/logs"), **options}
    return array_script(phase, rows, ARGUMENTS, **options)


def directives(text):
    return [line.removeprefix("#SBATCH ") for line in text.splitlines()
            if line.startswith("#SBATCH")]


def test_one_index_is_one_row_and_logs_go_by_array_id(tmp_path):
    lines = directives(script(tmp_path, parallel=2, directives=["--time=12:00:00"]))
    assert "--array=1-3,7%2" in lines
    assert "--output=/shared/logs/%x_%A_%a.out" in lines
    assert {"--gpus-per-node=8", "--cpus-per-task=96", "--mem=960G"} <= set(lines)
    assert lines.index("--time=12:00:00") > lines.index("--time=24:00:00")  # the last one counts


def test_rows_on_fewer_gpus_ask_for_a_part_of_the_node(tmp_path):
    few = directives(script(tmp_path, phase=with_machines(read_phase("p1"), 2, None)))
    assert {"--gpus-per-node=2", "--cpus-per-task=24", "--mem=240G"} <= set(few)


def test_cpu_phase_asks_for_no_gpu(tmp_path):
    assert not any("gpu" in line for line in directives(
        script(tmp_path, rows=[1], phase=read_phase("tiny"))))


def in_shell(tmp_path, text, python):
    """Run a script with bash as Slurm would, with programs where Python and Slurm are called."""
    for name, body in (("python", python), ("scontrol", f'echo "$@" > {tmp_path}/requeued')):
        program = tmp_path / name
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    path = tmp_path / "p1.sbatch"
    path.write_text(text)
    variables = {**os.environ, "SLURM_ARRAY_TASK_ID": "7", "SLURM_JOB_ID": "1234",
                 "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(tmp_path / "python"),
                 "TMPDIR": str(tmp_path)}
    return subprocess.Popen(["bash", str(path)], env=variables, stdout=subprocess.PIPE, text=True,
                            preexec_fn=usual_signals)


def test_script_runs_its_row_in_a_short_folder_and_passes_the_status_on(tmp_path):
    python = 'printf "%s\\n" "$RAY_TMPDIR" "$@"; test -d "$RAY_TMPDIR" && exit 3'
    with in_shell(tmp_path, script(tmp_path), python) as job:
        folder, *lines = job.stdout.read().splitlines()[1:]
    assert lines == ["-m", "training.sweep", *ARGUMENTS, "--run", "--rows", "7"]
    assert job.returncode == 3
    assert len(folder) < 20  # a socket's path has at most 107 characters, of which Ray takes most
    assert not Path(folder).exists()
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGTERM, False), (signal.SIGUSR1, True)])
def test_slurm_s_signals_reach_the_run_and_the_time_limit_queues_it_again(tmp_path, number,
                                                                         requeued):
    waits = ("trap 'sleep 0.3; echo stopped; exit 130' TERM; echo begun; "
             "while true; do sleep 0.05; done")
    with in_shell(tmp_path, script(tmp_path), waits) as job:
        job.stdout.readline()
        assert job.stdout.readline() == "begun\n"
        job.send_signal(number)
        assert job.stdout.read() == "stopped\n"
    assert job.returncode == 130
    assert (tmp_path / "requeued").exists() == requeued
    assert not requeued or (tmp_path / "requeued").read_text() == "requeue 1234\n"


def test_shellcheck_has_nothing_to_say(tmp_path):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", "-"], input=script(tmp_path), text=True,
                          capture_output=True, check=False)
    assert done.stdout == ""


def test_ray_is_told_the_cpus_that_slurm_gave(tmp_path, monkeypatch):
    needs_verl()
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "24")
    cell = read_phase("p1").cells[0]
    run_cells([cell], Places(tmp_path / "out"), tries=1, trainer=["true"], say=lambda text: None)
    (attempt,) = read_record(cell, Places(tmp_path / "out"))["attempts"]
    assert compose(attempt["command"][1:]).ray_kwargs.ray_init.num_cpus == 24


@pytest.mark.parametrize(("options", "message"), [
    *(({"directives": [bad]}, "is no option of sbatch")
      for bad in ("time=3", "--time 3\nrm -rf ~", "-p gpu", "--Time=3")),
    ({"phase": with_machines(read_phase("p1"), None, 2)}, r"runs on one node; .*--ray ADDRESS"),
    ({"logs": Path("/a b")}, "Slurm cannot write logs under '/a b'"),
    ({"script": Path("a\nrm -rf x")}, r"--slurm is 'a\\nrm -rf x'; valid: a path without")])
def test_what_slurm_would_misread(tmp_path, options, message):
    with pytest.raises(CBSDataError, match=message):
        script(tmp_path, **options)


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
