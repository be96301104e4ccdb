"""What goes on from a fit: lines that fit what the fit holds, on its page and accepted as typed."""

from __future__ import annotations

import json
import shlex
from importlib import import_module
from pathlib import Path

import numpy as np
from page_reader import Page
from timed_sweeps import timed_fit

from cbsbayes.posterior.ceiling_option import OPTION
from cbsbayes.posterior.fit import Fit
from cbsbayes.report.next_steps import next_steps


def lines(fit, **more):
    return [step.line for step in next_steps(fit, Path("out dir/fit"), **more)]


def test_a_fit_of_both_axes(fit):
    assert lines(fit) == [
        "python -m cbsbayes.allocate 'out dir/fit' --check",
        "python -m cbsbayes.plan 'out dir/fit' --runs 2",
        "python -m cbsbayes.compare 'out dir/fit' OTHER_FIT"]


def test_without_runs_of_one_batch_there_is_nothing_to_check():
    fit = timed_fit("p1")
    assert lines(fit)[:2] == ["python -m cbsbayes.allocate 'out dir/fit'",
                              "python -m cbsbayes.allocate 'out dir/fit' --clock"]
    assert "--cost gpu-hours" in lines(fit)[2]


def test_the_groups_are_compared_where_ppo_epochs_vary(fit):
    several = fit.sweep.copy(deep=True)
    several["ppo_epochs"].values[:2] = 4
    assert lines(fit, sweep=several)[-1] == "python -m cbsbayes.compare 'out dir'"
    assert lines(fit, sweep=fit.sweep)[-1].endswith("OTHER_FIT")


def test_the_lines_are_accepted_by_their_commands(fit):
    several = fit.sweep.copy(deep=True)
    several["ppo_epochs"].values[:] = np.arange(several.sizes["run"]) % 2 + 1
    steps = lines(fit, sweep=several) + lines(timed_fit("p1"))
    assert len(steps) > 5
    for line in steps:
        module, *arguments = shlex.split(line)[2:]
        import_module(module)._parser().parse_args(arguments)


def test_they_stand_on_the_page_with_the_folder(written):
    page = Page((written / "index.html").read_text("utf-8"))
    assert "next" in page.ids
    assert f"python -m cbsbayes.allocate {written} --check" in page.words
    assert f"python -m cbsbayes.plan {written} --runs 2" in page.words


def test_ceilings_are_offered_where_small_groups_seem_to_saturate_lower(fit):
    said = [*fit.verdict["sentences"], f"Small groups saturate; use {OPTION}."]
    warned = Fit(fit.tree.copy())
    warned.tree.attrs["verdict"] = json.dumps({**fit.verdict, "sentences": said})
    line = ("python -m cbsbayes.fit 'my sweep.nc' -o 'out dir/fit_ceilings' --model trajectory "
            f"{OPTION}")
    assert line in lines(warned, source=Path("my sweep.nc"))
    assert not any(OPTION in other for other in lines(fit))
    warned.tree.attrs["settings"] = json.dumps({**fit.settings, "ceiling_by_group": True})
    assert not any(OPTION in other for other in lines(Fit(warned.tree)))
