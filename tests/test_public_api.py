"""``import cbsbayes as cb``: the public names, the list of commands, versions."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform

import matplotlib.axes
import pandas as pd
import pytest
from fitted import quick_sampling

import cbsbayes as cb
from cbsbayes.__main__ import COMMANDS, command_of, main
from cbsbayes.posterior.fit import versions


def test_public_names_are_listed_and_are_what_their_modules_hold():
    assert dir(cb) == cb.__all__
    importlib.import_module("cbsbayes.fit")  # a name equal to a module's would become the module
    for name in sorted(set(cb.__all__) - {"plots"}):
        assert callable(getattr(cb, name))
        assert getattr(cb, name).__module__.startswith("cbsbayes.")
    assert (cb.fit, cb.plan.__name__, cb.allocate.__name__) == (cb.fit_sweep, "plan_runs", "decide")
    assert cb.plots is importlib.import_module("cbsbayes.plots")
    with pytest.raises(AttributeError, match="module 'cbsbayes' has no attribute 'sampler'"):
        _ = cb.sampler


@pytest.mark.parametrize(("call", "message"), [
    (lambda: cb.fit(3), "int is no sweep; give the xarray.Dataset of"),
    (lambda: cb.fit("nowhere.nc"), "nowhere.nc does not exist"),
    (lambda: cb.allocate([1]), r"list is no fit; give what cbsbayes.fit\(…\) returned, or the"),
    (lambda: cb.plan(None), "NoneType is no fit"),
    (lambda: cb.compare("fit"), "a comparison needs several fits: give a list of them"),
    (lambda: cb.compare([1, 2]), "int is no fit")])
def test_wrong_types_are_told_what_to_pass(call, message):
    with pytest.raises(cb.CBSDataError, match=message):
        call()


def test_from_a_sweep_to_decisions(sweep_file, fit, tmp_path):
    with quick_sampling():
        found = cb.fit(sweep_file, thresholds=[0.62, 0.66], alternatives=False,
                       sampler=cb.SamplerSettings(draws=200))
    assert found.crossings.equals(cb.Fit.load(found.save(tmp_path / "fit.nc")).crossings)
    assert "front" in cb.allocate(tmp_path).tables
    assert len(cb.plan(fit, runs=2, data_sets=16, draws=200).runs) == 2
    with pytest.raises(cb.CBSDataError, match="total and two_axis_free are fits of the same runs"):
        cb.compare([tmp_path, fit])


def test_from_logs_to_table_and_axes(sweep_file, tmp_path):
    """The dozen lines of the README, from a table of curves on."""
    curves = cb.read_sweep(sweep_file)["accuracy"].to_dataframe().dropna(subset="accuracy")
    curves.reset_index()[["run", "metric", "step", "accuracy", "n_prompts", "n_rollouts",
                          "seed"]].to_csv(tmp_path / "curves.csv", index=False)
    sweep = cb.read_logs([str(tmp_path / "curves.csv")])
    with quick_sampling():
        fit = cb.fit_sweep(sweep, thresholds=[0.62, 0.66],
                           sampler=cb.SamplerSettings(draws=200))
    table = fit.cbs.query("quantity == 'cbs_prompts'")
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 2
    axes = cb.plots.plot_steps(fit)
    assert isinstance(axes, matplotlib.axes.Axes)
    fit.save(tmp_path / "fit.nc")
    pd.testing.assert_frame_equal(cb.Fit.load(tmp_path).cbs, fit.cbs)


def test_the_list_of_commands_is_complete_and_every_one_is_there(capsys, root):
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0] == "cbsbayes COMMAND [--help] (or python -m cbsbayes.COMMAND)"
    for line, (name, what) in zip(out.splitlines()[1:], COMMANDS.items(), strict=True):
        assert line.split(maxsplit=1) == [name, what]
        assert callable(command_of(name))
    with_main = {path.stem for path in (root / "cbsbayes").glob("[a-z]*.py")
                 if "def main(argv" in path.read_text()}
    assert with_main | {"report"} == set(COMMANDS)


@pytest.mark.parametrize(("arguments", "status", "said"), [
    (["--help"], 0, "ingest"), (["--version"], 0, f"cbsbayes {cb.__version__}"),
    (["fit", "--help"], 0, "--thresholds"), (["fits"], 2, "cbsbayes COMMAND"),
    (["fit", "--nothing"], 2, "usage: python -m cbsbayes.fit")])
def test_the_first_argument_names_the_command(capsys, arguments, status, said):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == status
    assert said in "".join(capsys.readouterr())


def test_versions_are_those_installed():
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["cbsbayes"] == cb.__version__
    assert cb.__version__ == importlib.metadata.version("cbsbayes")
    for name in ("pymc", "arviz-stats", "xarray", "numpy", "scipy"):
        assert found[name] == importlib.metadata.version(name)
    json.dumps(found)
