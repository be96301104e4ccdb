"""Costs: from measured step times where there are any, and said to be unknown where not."""

from __future__ import annotations

import math

import pytest
from sweeps import changed, tiny_cells, write_log

from training.cost import Timings, checkpoint_disk, estimate, measure
from training.definitions import read_phase
from training.logs import read_progress

NOTHING = Timings({}, math.nan, math.nan)


def write_steps(folder, name, seconds, *, testing=None, tokens=None, save=None):
    rows = [(0, {"val-core/a/acc/mean@1": 0.1})]
    for step, value in enumerate(seconds, start=1):
        data = {"training/global_step": step, "perf/time_per_step": value}
        if tokens:
            data["perf/total_num_tokens"] = tokens
        if testing:
            data |= {"timing_s/testing": testing, "val-core/a/acc/mean@1": 0.1 * step}
        if save == step:
            data["timing_s/save_checkpoint"] = 30.0
        rows.append((step, data))
    write_log(folder / f"{name}.jsonl", rows)


def test_nothing_measured_is_a_roofline_and_tokens_are_an_upper_bound():
    cell = read_phase("p2c").cells[0]
    cost = estimate(cell, NOTHING)
    flops = 1.48e9 * cell.steps * 2048 * 3072 * (2 + 2 + 2 + 8)
    assert cost.gpu_hours == pytest.approx(flops / (989e12 * 0.1) / 3600)
    assert not cost.hours_measured
    assert math.isnan(estimate(tiny_cells()[0], NOTHING).gpu_hours)
    assert cost.n_samples == cell.steps * 2048
    assert (cost.n_tokens, cost.tokens_measured) == (cost.n_samples * 3072, False)
    more = estimate(cell, NOTHING, n_items=1819)
    assert more.n_validated == cell.n_validations * 1819
    assert more.n_tokens == (cell.n_samples + more.n_validated) * 3072
    generated = 1.48e9 * more.n_validated * 3072 * 2 / (989e12 * 0.1) / 3600
    assert more.gpu_hours - cost.gpu_hours == pytest.approx(generated)


def test_updates_cost_by_their_passes_and_the_reference_policy_by_its_switch():
    twice, four = (next(cell for cell in read_phase("reuse").cells if cell.ppo_epochs == n)
                   for n in (2, 4))
    hours = [estimate(cell, NOTHING).gpu_hours / cell.n_samples for cell in (
        twice, four, changed(twice, optimizer={"kl_loss": False}))]
    assert [hour / hours[0] for hour in hours] == pytest.approx([1, 38 / 22, 20 / 22])


def test_disk_is_counted_where_checkpoints_are_made():
    assert checkpoint_disk(tiny_cells()[0]) == 0
    cell = read_phase("p1").cells[0]
    kept = [checkpoint_disk(changed(cell, checkpoint={"keep": n})) for n in (1, 2)]
    assert kept[1] - kept[0] == pytest.approx(1.48e9 * (4 + 8) / 2**30)


@pytest.mark.parametrize("name", ["p1", "reuse", "p2b"])
def test_long_runs_are_evaluated_as_often_as_short_ones(name):
    for cell in read_phase(name).cells:
        updates = cell.validation_steps * cell.updates_per_step
        assert cell.n_validations <= 42
        assert cell.n_validations > 15 or updates <= 10  # seldom only where there is little to see


def test_first_step_saving_steps_and_logs_of_other_names_do_not_count(tmp_path):
    write_steps(tmp_path, "cbs_p1_np4_nr8", [500, 2, 60, 2], save=3)
    write_steps(tmp_path, "something", [1, 2, 3])
    assert measure([tmp_path, tmp_path / "missing"]).step_seconds == {32: 2.0}


def test_measured_batch_size_gives_its_own_time(tmp_path):
    cell = read_phase("p1").cells[0]
    write_steps(tmp_path, cell.name, [90, 10, 12, 11], testing=4.0, tokens=256 * 500)
    timings = measure([tmp_path])
    assert timings == Timings({256: 11.0}, 4.0, 500.0)
    cost = estimate(cell, timings)
    hours = (cell.steps * 11 + cell.n_validations * 4) / 3600
    assert cost.gpu_hours == pytest.approx(8 * hours)
    assert cost.n_tokens == pytest.approx(cell.n_samples * 500)
    assert cost.hours_measured
    assert not estimate(read_phase("p1").cells[1], timings).hours_measured


def test_two_batch_sizes_tell_the_others():
    line = Timings({100: 3.0, 300: 5.0}, math.nan, math.nan)
    cells = {cell.samples_per_step: cell for cell in tiny_cells(13)}
    batch, cell = next((b, c) for b, c in cells.items() if b not in (100, 300))
    seconds = estimate(cell, line).gpu_hours * 3600 / cell.steps
    assert seconds == pytest.approx(2 + batch / 100)


@pytest.mark.parametrize(("known", "low", "high"), [
    ({100: 5.0, 200: 4.0}, 4.0, 5.0),       # falling: one constant between the two
    ({100: 1.0, 200: 4.0}, 0.0, math.inf),  # a line that would start below zero
])
def test_times_are_never_negative(known, low, high):
    for cell in tiny_cells(13):
        hours = estimate(cell, Timings(known, math.nan, math.nan)).gpu_hours
        assert low <= hours * 3600 / cell.steps <= high
        assert hours > 0


def test_progress_of_a_genuine_log(public_data):
    progress = read_progress(public_data / "verl_logs" / "long.jsonl")
    assert (progress.last_step, progress.validated) == (40, 40)
    assert list(progress.scores) == ["val-core/tiny/add2/acc/mean@1"]
    assert progress.scores["val-core/tiny/add2/acc/mean@1"] > 0.8
    assert 0 < progress.step_seconds < 60
    assert progress.tokens_per_step > 0


def test_cut_line_does_not_count(tmp_path):
    write_steps(tmp_path, "a", [1, 2, 3], testing=1.0)
    path = tmp_path / "a.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert read_progress(path).last_step == 2
    path.write_text('{"step": null, "data": 3}\n[]\n')
    assert read_progress(path).last_step == 0
