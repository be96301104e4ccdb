"""Situations found with public logs and bug reports: each read right, or asked about by name.

The files lie beside the checkout; every situation is also tested on files of our own where its
reader is.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.ingest import ingest
from cbsbayes.sweep.dataset import notes_of


@pytest.fixture(scope="module")
def cases(root):
    folder = root.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip("the collected situations lie beside the checkout only where it was made")
    return folder


def batches(ds):
    return sorted((int(p), int(g)) for p, g in zip(ds["n_prompts"].values, ds["n_rollouts"].values,
                                                   strict=True))


@pytest.mark.parametrize(("source", "metric", "expected", "evaluations"), [
    ("01_console-printed-config/logs", None, [(8, 8), (32, 8)], 8),
    ("04_verl-agent-env-rollout-n/agent.jsonl", "success_rate", [(16, 8)], 7),
    ("06_val-core-of-repeated-prompts", None, [(64, 5)], 4),
    ("07_hydra-config-refused/a", None, [(8, 8)], 4),
    ("07_hydra-config-refused/b", None, [(8, 8)], 4),
    ("08_loop-in-one-file/slurm-771.out", None, [(8, 8), (32, 8), (64, 8)], 12),
    ("09_begun-again-in-same-file", None, [(32, 8), (32, 8)], 20),
    ("10_one-odd-run-stops-all/logs", None, [(8, 8), (8, 8)], 8),
    ("11_foreign-table-stops-folder/a", None, [(8, 8)], 2),
    ("11_foreign-table-stops-folder/b", None, [(8, 8)], 2),
    ("11_foreign-table-stops-folder/c", None, [(8, 8)], 2),
    ("12_folder-names-a-run/a", None, [(8, 8), (32, 8)], 4),
    ("12_folder-names-a-run/b", None, [(8, 8), (32, 8)], 8),
    ("13_easyr1/bs8", "accuracy_reward", [(8, 8)], 13),
    ("15_wandb-chart-csv", None, [(8, 8), (32, 8), (64, 8)], 39),
    ("16_history-per-run/csv", None, [(8, 8)], 13),
    ("16_history-per-run/jsonl", None, [(8, 8)], 13),
    ("16_history-per-run/tb", None, [(8, 8)], 13),
    ("17_wandb-config-yaml/output.log", None, [(8, 8)], 3),
    ("18_metric-candidates-hidden", "em", [(8, 8)], 13),
    ("19_generation-dumps/run", None, [(8, 8)], 13),
    ("23_suffixes/logs", None, [(8, 8), (16, 8), (32, 8)], 6),
    ("23_suffixes/curves.tsv", None, [(8, 8)], 2),
    ("23_suffixes/curves.json", None, [(8, 8)], 1),
])
def test_the_batch_and_the_curve_are_read(cases, source, metric, expected, evaluations):
    ds = ingest([str(cases / source)], metric=metric)
    assert batches(ds) == expected
    assert int(ds["accuracy"].count()) == evaluations
    assert (ds["usable"] == 1).all()
    assert len(notes_of(ds)) <= 2


def test_the_repeated_prompts_are_said(cases):
    ds = ingest([str(cases / "06_val-core-of-repeated-prompts")])
    assert ds["accuracy"].values.ravel().tolist() == pytest.approx([.1215, .24, .31, .36], abs=.005)
    assert "mean@1 is taken" in notes_of(ds)[0]


def test_steps_of_an_asynchronous_run_are_several_updates(cases):
    ds = ingest([str(cases / "10_one-odd-run-stops-all" / "logs")])
    assert ds["updates_per_step"].sel(run="async").item() == 16


def test_a_configuration_for_all_is_laid_over_none(cases):
    folder = cases / "02_config-option-for-all"
    ds = ingest([str(folder / "logs")], config=folder / "one.yaml")
    assert batches(ds) == [(8, 8), (32, 8)]
    assert "--config says n_prompts 8, configuration 32" in notes_of(ds)[0]


def test_a_trainers_state_asks_for_its_batch_and_takes_it(cases, tmp_path):
    source = str(cases / "14_trl-trainer-state" / "run")
    metric = "eval_rewards/accuracy_reward/mean"
    with pytest.raises(CBSDataError, match=r"no batch size .*--runs: columns run, n_prompts"):
        ingest([source], metric=metric)
    (tmp_path / "runs.csv").write_text("run,n_prompts,n_rollouts,n_items\nrun,16,8,500\nx,1,1,\n")
    ds = ingest([source], metric=metric, runs=tmp_path / "runs.csv")
    assert batches(ds) == [(16, 8)]
    assert ds["step"].values.tolist() == list(range(10, 121, 10))
    assert ds["n_items"].values.tolist() == [500]
    assert any("names runs that no source has: x" in note for note in notes_of(ds))


@pytest.mark.parametrize(("kind", "metric"), [
    ("trl", "accuracy_reward"), ("slime", "gsm8k"), ("skyrl", "avg_score"), ("nemo", "accuracy")])
def test_other_trainers_genuine_wandb_runs(cases, tmp_path, kind, metric):
    """The true steps are 10, 20 … 120 updates, the true batches 8, 16 and 32 prompts by 8."""
    pytest.importorskip("wandb")
    subprocess.run([sys.executable, str(cases / "make_wandb_runs.py"), kind, str(tmp_path)],
                   check=True, capture_output=True, timeout=300)
    ds = ingest([str(tmp_path)], metric=metric)
    assert batches(ds) == [(8, 8), (16, 8), (32, 8)]
    assert ds["step"].values.tolist() == list(range(10, 121, 10))
    assert not ds["accuracy"].isnull().any()
    assert notes_of(ds) == []


@pytest.mark.parametrize(("source", "said"), [
    ("bigint_step", "cut or damaged"),
    ("percent_one_run.csv", "as if in percent"),
    ("identical_seeds.csv", "hold the same curve under different seeds"),
    ("parquet_index_dup.parquet", ""), ("long_phase.csv", ""),
])
def test_faults_that_are_said(cases, source, said):
    notes = notes_of(ingest([str(cases / "25_faults" / source)]))
    assert any(said in note for note in notes) or not said


@pytest.mark.parametrize(("source", "message"), [
    ("crossings_contradict.csv", "an easier one not before"),
    ("parquet_1.parquet", "parquet_1.parquet"), ("parquet_3.parquet", "parquet_3.parquet"),
    ("parquet_zeroed.parquet", "parquet_zeroed.parquet"), ("yaml_merge_bomb", "config.yaml"),
    ("surrogate", "no one validation metric is clear"),
])
def test_faults_that_are_refused(cases, source, message):
    with pytest.raises(CBSDataError, match=message) as caught:
        ingest([str(cases / "25_faults" / source)])
    assert "\n" not in str(caught.value)
