"""P(best) on simulated sweeps with a known optimum: a small form of the benchmark."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from cbsbayes.validation.coverage import Settings
from cbsbayes.validation.engine import Ledger


@pytest.fixture
def benchmark(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import allocation_calibration

    yield allocation_calibration
    sys.modules.pop("allocation_calibration", None)


@pytest.mark.mcmc
def test_statements_about_splits_come_true(benchmark, tmp_path):
    """Ten sweeps at three thresholds: 1/n for each of six splits would score .83 (Brier)."""
    settings = Settings(law=benchmark.LAW, thresholds=benchmark.THRESHOLDS, draws=300, tune=300,
                        least_squares=False)
    ledger = Ledger(tmp_path / "prior.jsonl", {})
    for seed in range(10):
        ledger.add(seed, benchmark.one_sweep("prior", settings, seed))
    table = benchmark.frame(ledger, range(10))
    assert table.groupby(["sweep", "threshold"])["best"].sum().eq(1).all()
    summary = benchmark.summary(table)
    assert summary.loc["Brier"].mean() < 0.6
    assert summary.loc["regret of chosen"].mean() < 0.02
    assert (summary.loc["regret of chosen"] < 0.5 * summary.loc["regret of 8 rollouts"]).all()
    rare = table[table["p_best"] < 0.05]
    assert rare["best"].mean() < 0.05
    sure = table[table["p_close"] > 0.95]
    assert len(sure) > 15
    assert sure["close"].mean() > 0.9
    chosen = table[table["chosen"]]
    assert np.mean(chosen["true_regret"] <= chosen["regret_upper"]) > 0.85
