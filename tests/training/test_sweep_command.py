"""The command ``python -m training.sweep``: what it lists, prints, writes and refuses."""

from __future__ import annotations

import json
import os
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from sweeps import places, write_log

from training.checks import count_gpus, missing
from training.definitions import phase_names, read_phase
from training.sweep import main

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.relative_to(ROOT) for path in (ROOT / "training" / "sbatch").iterdir())


def said(capsys, *argv, status=0):
    assert main(list(argv)) == status
    return capsys.readouterr()


def test_without_a_phase_the_phases_are_listed(capsys):
    lines = said(capsys).out.splitlines()
    assert [line.split()[0] for line in lines] == phase_names()
    listed = json.loads(said(capsys, "--json").out)
    assert {entry["phase"]: entry["runs"] for entry in listed}["p2b"] == 21


def test_phase_lists_its_runs_and_their_cost(capsys, tmp_path):
    text = said(capsys, "p2c", "-o", str(tmp_path)).out
    assert "18 runs, 10,948,608 samples (validation not counted" in text
    assert "GPU-hours by a roofline, 989 TFLOP/s at 10%, for 18 not measured" in text
    assert "up to 50 GiB of checkpoints for a run that is not finished" in text
    assert said(capsys, "tiny", "-o", str(tmp_path)).out.count("not measured") == 40
    rows = json.loads(said(capsys, "p2c", "--json", "--rows", "2-3,1", "-o", str(tmp_path)).out)
    assert [row["row"] for row in rows] == [1, 2, 3]
    assert rows[0]["run"] == read_phase("p2c").cells[0].name
    assert rows[0]["gpu_hours"] > 0
    assert not rows[0]["gpu_hours_measured"]


def test_a_definition_that_lies_elsewhere_is_named_by_its_path(capsys, tmp_path, root):
    path = tmp_path / "p7.toml"
    path.write_text((root / "training" / "phases" / "p1.toml").read_text())
    rows = json.loads(said(capsys, str(path), "--json", "--rows", "1").out)
    assert rows[0]["run"] == read_phase("p1").cells[0].name.replace("p1", "p7", 1)
    script = said(capsys, str(path), "--slurm", "x.sbatch", "--dry-run").out
    assert "#SBATCH --job-name=cbs_p7" in script
    assert f"-m training.sweep {path} -o" in script


def test_measured_times_of_another_folder_are_used(capsys, tmp_path):
    write_log(tmp_path / "measured" / "logs" / "cbs_p1_np256_nr8.jsonl",
              [(step, {"perf/time_per_step": 36.0}) for step in (1, 2, 3)])
    rows = json.loads(said(capsys, "p2c", "--json", "-o", str(tmp_path / "new"), "--timings",
                           str(tmp_path / "measured")).out)
    assert rows[0]["gpu_hours"] == pytest.approx(rows[0]["steps"] * 36 / 3600 * 8)


def test_dry_run_prints_one_command_per_run_and_writes_nothing(capsys, tmp_path):
    text = said(capsys, "p2c", "--dry-run", "-o", str(tmp_path / "new")).out
    assert text.count("-m verl.trainer.main_ppo") == 18
    assert text.count("# cbs_p2c_") == 18
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("argv", "message"), [
    (("p9",), "unknown phase 'p9'; valid: lr, p1"),
    (("--run",), "say which phase: lr, p1"),
    (("p1", "--rows", "3-1"), "is no row; valid: 1 to 18"),
    (("p1", "--rows", "19"), "is no row; valid: 1 to 18"),
    (("p1", "--rows", "1,,2"), "is no row; valid: 1 to 18"),
    (("p1", "--gpus", "7"), "do not divide over 7 GPUs"),
    (("p1", "--run", "--data", "nowhere"), "which is missing; make it"),
    (("tiny", "--run", "--assets", "nowhere"), "python -m training.cpu.assets"),
    (("p1", "--slurm", "x", "--nodes", "2"), "runs on one node"),
    (("p1", "--ray", "nonsense"), "no address of a Ray dashboard"),
])
def test_bad_input_is_one_line_and_status_1(capsys, monkeypatch, tmp_path, argv, message):
    monkeypatch.chdir(tmp_path)
    output = ("-o", str(tmp_path / "new")) if len(argv) > 1 else ()
    error = said(capsys, *argv, *output, status=1).err
    assert error.startswith("training.sweep: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [("p1", "--gpus", "0"), ("p1", "--run", "--slurm", "x"),
                                  ("p1", "--tries", "many")])
def test_usage_errors_have_status_2(capsys, argv):
    with pytest.raises(SystemExit, match="2"):
        main(list(argv))
    assert "usage" in capsys.readouterr().err


def test_what_is_missing_is_said_a_line_each_with_the_remedy(capsys, monkeypatch, tmp_path):
    def version(name):
        if name == "vllm":
            raise PackageNotFoundError
        return "0.8.0"

    monkeypatch.setattr("importlib.metadata.version", version)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("socket.gethostname", lambda: "nowhere.invalid")
    lines = said(capsys, "p1", "--check", "-o", str(tmp_path / "new"), "--data", str(tmp_path),
                 status=1).out.splitlines()
    assert all(line.startswith("missing: ") and ";" in line for line in lines)
    for what in ("verl 0.9.1, here it is 0.8.0", "vllm of any version, here it is not installed",
                 "train.parquet", "CPUs: 4 for 8 GPU(s)",
                 "network: no port under this machine's name nowhere.invalid"):
        assert any(what in line for line in lines), what
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_another_process_holds_is_named(monkeypatch, tmp_path):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\ncase $1 in -L) printf 'GPU 0: a\\nGPU 1: b\\n';; "
                      "*) printf '0, 81000, 81559\\n1, 2048, 81559\\n2, [N/A], [N/A]\\n';; esac\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    phase, home = read_phase("smoke_gpu"), places(tmp_path)
    assert count_gpus() == 2
    taken = [line for line in missing(phase.cells, home) if "memory of GPU" in line]
    assert taken == ["memory of GPU 1: 2 of 80 GiB free; end what holds the rest (nvidia-smi lists "
                     "it) or choose others by CUDA_VISIBLE_DEVICES"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert not [line for line in missing(phase.cells, home) if "memory of GPU" in line]


def test_slurm_script_is_written_with_its_log_folder(capsys, tmp_path):
    path = tmp_path / "p1.sbatch"
    text = said(capsys, "p1", "--slurm", str(path), "-o", str(tmp_path / "out"), "--rows", "1-6",
                "--model", "/m", "--wandb").out
    assert text == f"wrote {path}: 6 rows; submit with: sbatch {path}\n"
    assert "#SBATCH --array=1-6\n" in path.read_text()
    assert "--model /m" in path.read_text()
    assert "--wandb" in path.read_text()
    assert (tmp_path / "out" / "slurm").is_dir()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_committed_scripts_are_what_the_command_writes(capsys, monkeypatch, root, path):
    monkeypatch.chdir(root)
    text = said(capsys, path.stem, "--slurm", str(path), "--dry-run").out
    assert (root / path).read_text() == text


def test_script_and_submission_can_be_looked_at_first(capsys, tmp_path):
    script = tmp_path / "x.sbatch"
    assert "--array=1-18" in said(capsys, "p1", "--slurm", str(script), "--dry-run",
                                  "-o", str(tmp_path / "out")).out
    assert list(tmp_path.iterdir()) == []
    text = said(capsys, "p1", "--ray", "http://h:8265", "--dry-run", "--rows", "2").out
    assert text.startswith("ray job submit --address http://h:8265")
    assert text.rstrip().endswith("--rows 2 --run")
