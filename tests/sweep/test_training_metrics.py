"""What a trainer step takes, without what is no training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cbsbayes.logs.detect import read_source
from cbsbayes.sweep.training_metrics import signal_fraction, step_seconds


def history(**columns):
    names = {key.replace("__", "/"): values for key, values in columns.items()}
    length = len(next(iter(names.values())))
    return pd.DataFrame(names, index=pd.Index(np.arange(1.0, length + 1), name="step"))


def test_the_first_step_is_left_out():
    assert step_seconds(history(perf__time_per_step=[60.0, 2.0, 3.0, 4.0])) == 3


def test_the_first_step_with_a_duration_is_the_first():
    assert step_seconds(history(perf__time_per_step=[np.nan, 60.0, 3.0])) == 3


def test_timing_stands_in():
    assert step_seconds(history(timing_s__step=[9.0, 5.0, 5.0])) == 5


def test_checkpoints_and_validations_are_left_out():
    seconds = [60.0, 5, 5, 45, 5, 105, 45]
    log = history(perf__time_per_step=seconds,
                  timing_s__save_checkpoint=[np.nan] * 5 + [60, np.nan],
                  timing_s__testing=[np.nan, np.nan, np.nan, 40, np.nan, 40, 40])
    assert step_seconds(log) == 5


@pytest.mark.parametrize("inside", [40.0, 0.0])
def test_validation_at_every_step(inside):
    log = history(perf__time_per_step=[60.0, *[5.0 + inside] * 3], timing_s__testing=[40.0] * 4,
                  timing_s__gen=[3.0] * 4, timing_s__update_actor=[2.0] * 4)
    assert step_seconds(log) == 5


@pytest.mark.parametrize("log", [
    history(perf__time_per_step=[60.0]), history(actor__lr=[1.0, 1.0]),
    history(perf__time_per_step=[np.nan, np.nan]), history(perf__time_per_step=[0.0, -1.0, np.inf]),
])
def test_unknown(log):
    assert np.isnan(step_seconds(log))


def test_signal_fraction():
    assert signal_fraction(history(train__signal_fraction=[0.2, np.nan, 0.4])) == pytest.approx(0.3)
    assert signal_fraction(history(frac_zero_adv=[0.2, 0.4])) == pytest.approx(0.7)
    assert np.isnan(signal_fraction(history(actor__lr=[1.0])))


def test_both_signals_prefer_the_one_that_says_it():
    assert signal_fraction(history(frac_zero_adv=[0.9], signal_fraction=[0.5])) == 0.5
    assert signal_fraction(history(frac_zero_adv=[0.9], signal_fraction=[np.nan])) == (
        pytest.approx(0.1))


def test_genuine_log(public_data):
    folder = public_data / "verl_logs"
    history = read_source(str(folder / "long.jsonl"))[0][0].history
    seconds = history["timing_s/step"].dropna()
    assert seconds.iloc[1:].min() < step_seconds(history) < seconds.iloc[0]
