"""What runs took, read from their logs and records."""

from __future__ import annotations

import json
import math

import pytest
from sweeps import write_log

from training.measured import cell_costs, main, markdown

NAME = "cbs_p1_tiny_add3_np4_nr8"
WHOLE = [{"started": "2026-11-24T10:00:00+00:00", "ended": "2026-11-24T10:01:30+00:00",
          "exit_status": 0}]


def write_run(folder, seed, seconds, *, probes=(), attempts=WHOLE):
    """Write a log whose steps take so long, the probed ones a second longer."""
    name = f"{NAME}_s{seed}"
    rows = [(0, {"val-core/a/acc/mean@1": 0.1})]
    for step, value in enumerate(seconds, start=1):
        probed = step in probes
        data = {"perf/time_per_step": value + probed, "timing_s/old_log_prob": value / 4,
                "timing_s/update_actor": value / 2 + probed}
        data |= {"actor/grad_noise/seconds": 1.0} if probed else {}
        data |= {"timing_s/testing": 0.25} if step % 2 == 0 else {}
        rows.append((step, data))
    write_log(folder / "logs" / f"{name}.jsonl", rows)
    (folder / "runs" / name).mkdir(parents=True)
    (folder / "runs" / name / "run.json").write_text(json.dumps({"attempts": attempts}))


def test_medians_leave_out_the_first_step_and_probes(tmp_path, capsys):
    write_run(tmp_path, 1, [9.0, 2.0, 2.0, 2.0], probes=(1, 3))
    write_run(tmp_path, 2, [9.0, 4.0, 4.0, 4.0], probes=(1, 3))
    (cost,) = cell_costs(tmp_path).itertuples()
    assert (cost.n_runs, cost.step, cost.update, cost.log_probs) == (2, 3.0, 1.5, 0.75)
    assert (cost.validation, cost.probe) == (0.25, 1.0)
    assert cost.share == pytest.approx(4 / (15 + 21 + 4))  # probes over steps, probes included
    assert cost.minutes == 1.5
    assert cost.around == pytest.approx(90 - (17 + 23) / 2 - 0.5)
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == markdown(cell_costs(tmp_path)).splitlines()
    assert lines[2].startswith("| 4 × 8 | 2 |")


def test_only_runs_of_one_whole_attempt_tell_their_duration(tmp_path):
    write_run(tmp_path, 1, [1.0] * 4, attempts=[{"started": "2026-11-24T10:00:00+00:00"}])
    write_run(tmp_path, 2, [1.0] * 4, attempts=[])
    (cost,) = cell_costs(tmp_path).itertuples()
    assert math.isnan(cost.minutes)
    assert math.isnan(cost.probe)


def test_a_folder_without_runs_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no log of a run" in capsys.readouterr().err
