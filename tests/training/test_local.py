"""Running cells here: what is on disk decides, history is kept whole, a stop stops everything.

The trainer is a small script that logs through verl's own FileLogger; configurations are composed
by Hydra from verl's own files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pandas
import pytest
import yaml
from signals import PATIENCE, usual_signals
from sweeps import changed, needs_verl, places, tiny_cells, write_trainer

from cbsbayes.errors import CBSDataError
from cbsbayes.ingest import ingest
from training.attempts import locked, read_record, software
from training.checks import check_ready
from training.local import run_cells
from training.logs import read_progress
from training.verl_command import Places, fill

KEY = "val-core/tiny/add3/acc/mean@1"


@pytest.fixture
def cells():
    return tiny_cells(2)


def run(cells, folder, *stops, tries=2):
    needs_verl()
    said: list[str] = []
    outcome = run_cells(cells, places(folder), tries=tries, trainer=write_trainer(folder, *stops),
                        say=said.append)
    return outcome, said


def steps_of(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_runs_every_cell_and_lays_the_configuration_beside_the_log(tmp_path, cells):
    outcome, said = run(cells, tmp_path)
    assert dataclasses.astuple(outcome) == (2, 0, 0, 0)
    for cell in cells:
        assert steps_of(places(tmp_path).log(cell.name)) == [0, 1, 2, 3, 4]
        assert places(tmp_path).side_car(cell.name).is_file()
    assert said[0] == f"[1/2] {cells[0].name}: started, 4 steps"
    assert said[1].startswith(f"[1/2] {cells[0].name}: finished, 4 steps in 0.")
    assert said[1].endswith("2 s a step; tiny/add3/acc 0.140")


def test_items_that_are_validated_and_epochs_over_the_prompts_are_recorded(tmp_path, cells):
    needs_verl()
    assets = tmp_path / "assets"
    assets.mkdir()
    pandas.DataFrame({"prompt": ["1+1="] * 8}).to_parquet(assets / "train.parquet")
    pandas.DataFrame({"data_source": ["tiny/add3"] * 7 + ["tiny/other"] * 2}).to_parquet(
        assets / "val.parquet")
    home = dataclasses.replace(places(tmp_path), assets=assets)
    run_cells(cells[:1], home, trainer=write_trainer(tmp_path), say=lambda text: None)
    config = yaml.safe_load(home.side_car(cells[0].name).read_text())
    assert config["cbs"]["validation_items"] == {"tiny/add3": 7, "tiny/other": 2}
    (attempt,) = read_record(cells[0], home)["attempts"]
    assert attempt["epochs_over_prompts"] == 4 * cells[0].n_prompts / 8
    assert ingest([str(tmp_path / "sweep" / "logs")])["n_items"].values.tolist() == [7]


def test_finished_runs_are_skipped(tmp_path, cells):
    run(cells[:1], tmp_path)
    before = places(tmp_path).log(cells[0].name).read_bytes()
    outcome, said = run(cells, tmp_path)
    assert dataclasses.astuple(outcome) == (1, 1, 0, 0)
    assert said[0] == f"[1/2] {cells[0].name}: finished before (4 steps), skipped"
    assert places(tmp_path).log(cells[0].name).read_bytes() == before


def test_failed_run_is_tried_again_and_its_history_kept(tmp_path, cells):
    outcome, said = run(cells[:1], tmp_path, {"after": 2, "status": 7})
    name = cells[0].name
    assert dataclasses.astuple(outcome) == (1, 0, 0, 0)
    assert "FAILED at step 2 of 4 with exit status 7: CUDA error: out of memory" in said[1]
    assert f"runs/{name}/console.1.log" in said[1]
    kept = places(tmp_path).run(name) / "begun_again_1" / f"{name}.jsonl"
    assert "earlier log kept in runs/" in said[2]
    assert steps_of(kept) == [0, 1, 2]
    assert kept.with_name(f"{name}.config.yaml").is_file()
    assert steps_of(places(tmp_path).log(name)) == [0, 1, 2, 3, 4]
    attempts = read_record(cells[0], places(tmp_path))["attempts"]
    assert [attempt["exit_status"] for attempt in attempts] == [7, 0]
    assert f"trainer.experiment_name={name}" in attempts[0]["command"]
    assert attempts[0]["commit"] == software()["commit"]
    assert attempts[0]["environment"]["CBS_GRAD_NOISE_EVERY"] == str(
        cells[0].controls.gradient_noise.every_updates)


def test_a_run_that_has_reached_its_score_is_stopped_and_stays_finished(tmp_path):
    cell = changed(tiny_cells()[0], horizon={"stop_score": 0.115, "stop_evaluations": 1})
    outcome, said = run([cell], tmp_path, {"after": 2, "sleep": 600})
    assert dataclasses.astuple(outcome) == (1, 0, 0, 0)
    assert "finished, 2 steps of 4, its score reached, in" in said[1]
    (attempt,) = read_record(cell, places(tmp_path))["attempts"]
    assert attempt["stopped_at_score"]
    with places(tmp_path).log(cell.name).open("a") as log:  # it slid back until it had ended
        log.write(json.dumps({"step": 3, "data": {KEY: 0.05}}) + "\n")
    assert run([cell], tmp_path)[0].skipped == 1
    more = dataclasses.replace(cell, controls=tiny_cells()[0].controls)
    assert run([more], tmp_path)[0].finished == 1  # without the rule it goes on to its horizon


def test_run_that_keeps_failing_leaves_the_others_their_turn(tmp_path, cells):
    outcome, said = run(cells, tmp_path, {"after": 1}, {"after": 3, "status": 0})
    assert "FAILED at step 3 of 4 with exit status 0" in said[3]
    assert dataclasses.astuple(outcome) == (1, 0, 0, 1)
    assert said[-1].startswith(f"[2/2] {cells[1].name}: finished")
    outcome, _ = run(cells, tmp_path)
    assert dataclasses.astuple(outcome) == (1, 1, 0, 0)
    again = places(tmp_path).run(cells[0].name)
    assert sorted(path.name for path in again.glob("begun_again_*")) == ["begun_again_1",
                                                                         "begun_again_2"]


def test_run_continued_from_a_checkpoint_is_joined_by_the_analysis(tmp_path):
    from cbsbayes.logs.detect import read_source

    cell = changed(tiny_cells()[0], horizon={"updates": 12}, checkpoint={"every_updates": 2})
    _, said = run([cell], tmp_path, {"after": 7, "checkpoints": [6]})
    assert "continued from step 6 of 12; earlier log kept in logs/earlier_1" in said[2]
    assert not (places(tmp_path).run(cell.name) / "checkpoints").exists()  # the run is finished
    logs = places(tmp_path).output / "logs"
    assert steps_of(logs / "earlier_1" / f"{cell.name}.jsonl") == list(range(8))
    assert steps_of(logs / f"{cell.name}.jsonl") == list(range(7, 13))
    pytest.importorskip("xarray")
    from cbsbayes.sweep.from_logs import build_sweep

    sweep = build_sweep(read_source(str(logs))[0])
    assert sweep.sizes["run"] == 1
    assert int(sweep["attempts"][0]) == 2
    assert sweep["step"].values.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert int(sweep["usable"][0]) == 1


LONG = {"horizon": {"updates": 12}, "checkpoint": {"every_updates": 2}}


@pytest.mark.parametrize("spoil", [
    lambda home: shutil.rmtree(home / "global_step_6"),
    lambda home: shutil.rmtree(home / "global_step_6" / "actor"),
    lambda home: (home / "global_step_6" / "data.pt").unlink(),
    lambda home: os.truncate(home / "global_step_6" / "actor" / "optim_world_size_1_rank_0.pt", 50),
], ids=["folder", "weights", "data", "cut"])
def test_a_save_that_is_not_whole_goes_and_the_last_whole_one_is_continued(tmp_path, spoil):
    cell = changed(tiny_cells()[0], **LONG)
    run([cell], tmp_path, {"after": 7, "checkpoints": [4, 6]}, tries=1)
    spoil(places(tmp_path).run(cell.name) / "checkpoints")
    _, said = run([cell], tmp_path, {"after": 8}, tries=1)
    assert "continued from step 4 of 12; earlier log kept in logs/earlier_1" in said[0]
    assert steps_of(places(tmp_path).log(cell.name)) == [5, 6, 7, 8]
    spoil_all(places(tmp_path).run(cell.name) / "checkpoints")
    _, said = run([cell], tmp_path, tries=1)  # begun again: what it had continued goes along
    assert f"started, 12 steps; earlier log kept in runs/{cell.name}/begun_again_1" in said[0]
    home = places(tmp_path).run(cell.name) / "begun_again_1"
    assert steps_of(home / "earlier_1" / f"{cell.name}.jsonl") == list(range(8))
    assert steps_of(home / f"{cell.name}.jsonl") == [5, 6, 7, 8]
    sweep = ingest([str(places(tmp_path).output / "logs")])
    assert (sweep.sizes["run"], int(sweep["attempts"][0])) == (1, 1)


def spoil_all(home):
    for folder in home.glob("global_step_*"):
        shutil.rmtree(folder / "actor")


def test_a_checkpoint_of_another_number_of_gpus_is_refused_before_anything_starts(tmp_path):
    cell, other = (changed(cell, **LONG) for cell in tiny_cells(2))
    run([cell], tmp_path, {"after": 7, "checkpoints": [6], "gpus": 4}, tries=1)
    before = places(tmp_path).log(cell.name).read_bytes()
    with pytest.raises(CBSDataError, match=r"global_step_6 was saved on 4 GPU\(s\), which verl "
                                           r"cannot read on 1; give --gpus 4, or move .* away"):
        run([other, cell], tmp_path)
    assert places(tmp_path).log(cell.name).read_bytes() == before
    assert not places(tmp_path).log(other.name).exists()


def test_folders_that_cannot_be_told_are_refused_untouched(tmp_path, cells):
    log = places(tmp_path).log(cells[0].name)
    log.parent.mkdir(parents=True)
    log.write_text("precious")
    with pytest.raises(CBSDataError, match="no record says which configuration"):
        run(cells[:1], tmp_path)
    assert log.read_text() == "precious"
    log.unlink()
    run(cells[:1], tmp_path)
    before = log.read_bytes()
    other = dataclasses.replace(cells[0], learning_rate=0.5)
    with pytest.raises(CBSDataError, match=r"another configuration: .*\.lr was .* and is 0\.5"):
        run([cells[1], other], tmp_path)
    (places(tmp_path).run(cells[0].name) / "run.json").write_text("{")
    with pytest.raises(CBSDataError, match="is no record of a run; move the folder away"):
        run(cells[:1], tmp_path)
    assert log.read_bytes() == before
    assert not places(tmp_path).log(cells[1].name).exists()


def test_cell_that_another_process_runs_is_left_to_it(tmp_path, cells):
    code = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from sweeps import places, tiny_cells
        from training.attempts import locked
        with locked(tiny_cells(2)[0], places(Path({str(tmp_path)!r}))) as lock:
            print(lock is not None, flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                          cwd=Path(__file__).parents[2]) as other:
        assert other.stdout.readline() == "True\n"
        outcome, said = run(cells, tmp_path)
        other.kill()
    assert dataclasses.astuple(outcome) == (1, 0, 1, 0)
    assert "another process runs it at this moment" in said[0]
    with locked(cells[0], places(tmp_path)) as lock:  # a killed process holds no lock
        assert lock is not None


@pytest.fixture
def started(tmp_path):
    """A sweep in a process of its own whose trainer waits after two steps; and the trainer."""
    needs_verl()
    code = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from cbsbayes._command import run_command
        from sweeps import places, tiny_cells, write_trainer
        from training.local import run_cells
        folder = Path({str(tmp_path)!r})
        trainer = write_trainer(folder, {{"after": 2, "sleep": 120}})
        sys.exit(run_command(lambda: run_cells(tiny_cells(), places(folder), trainer=trainer) and 0,
                             "sweep"))
    """)
    console = places(tmp_path).run(tiny_cells()[0].name) / "console.1.log"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True,
                          cwd=Path(__file__).parents[2], preexec_fn=usual_signals) as sweep:
        wait_for(lambda: console.is_file() and "waiting" in console.read_text())
        (trainer,) = children(sweep.pid)
        yield sweep, trainer
        sweep.kill()
        if Path(f"/proc/{trainer}").exists():
            os.kill(trainer, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stopping_the_sweep_stops_the_trainer_and_keeps_its_log(tmp_path, started, number):
    sweep, trainer = started
    sweep.send_signal(number)
    assert sweep.wait(PATIENCE) == 130
    assert "interrupted" in sweep.stderr.read()
    wait_for(lambda: not Path(f"/proc/{trainer}").exists())
    assert read_progress(places(tmp_path).log(tiny_cells()[0].name)).last_step == 2
    attempts = read_record(tiny_cells()[0], places(tmp_path))["attempts"]
    assert [attempt["exit_status"] for attempt in attempts] == [-1]


def test_a_trainer_whose_sweep_was_killed_keeps_the_lock_until_it_ends(tmp_path, started):
    sweep, trainer = started
    sweep.kill()
    sweep.wait(PATIENCE)
    outcome, said = run(tiny_cells(), tmp_path)
    assert dataclasses.astuple(outcome) == (0, 0, 1, 0)
    assert "another process runs it at this moment" in said[0]
    os.kill(trainer, signal.SIGKILL)
    wait_for(lambda: run(tiny_cells(), tmp_path)[0].finished == 1)


def children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.is_file():
        pytest.skip("this system does not list child processes")
    return [int(child) for child in path.read_text().split()]


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def assets(tmp_path):
    """What a run of the CPU twin reads: a model's folder and two files of 16 prompts."""
    folder = tmp_path / "assets"
    Path(fill(tiny_cells()[0].checkpoint.path, Places(tmp_path, assets=folder))).mkdir(parents=True)
    for name in ("train", "val"):
        pandas.DataFrame({"prompt": ["1+1="] * 16}).to_parquet(folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda folder: (folder / "train.parquet").unlink(), r"train\.parquet, which is missing; make"),
    (lambda folder: (folder / "val.parquet").unlink(), r"val\.parquet, which is missing; make it"),
    (lambda folder: (folder / "tiny").rmdir(), r"needs the model folder .*, which is missing"),
    (lambda folder: (folder / "train.parquet").write_text("no parquet at all"),
     r"train\.parquet is no Parquet file"),
    (lambda folder: pandas.DataFrame({"prompt": ["1+1="]}).to_parquet(folder / "train.parquet"),
     r"prompts is larger than .*\(1 rows\)")])
def test_what_a_run_reads_must_be_there(tmp_path, assets, cells, spoil, message):
    home = Places(tmp_path, assets=assets)
    check_ready(cells, home)
    spoil(assets)
    with pytest.raises(CBSDataError, match=message):
        check_ready(cells, home)


def test_gpus_must_be_there_or_in_a_cluster(tmp_path, assets, cells, monkeypatch):
    home = Places(tmp_path, assets=assets)
    gpu = dataclasses.replace(cells[0].hardware, device="cuda", gpus_per_node=4)
    one, several = ([dataclasses.replace(cells[0], hardware=dataclasses.replace(gpu, nodes=n))]
                    for n in (1, 2))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(CBSDataError, match=r"needs 4 GPU\(s\) and this machine has [012];"):
        check_ready(one, home)
    with pytest.raises(CBSDataError, match="need a Ray cluster"):
        check_ready(several, home)
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # the cluster counts its own
    check_ready(one, home)
