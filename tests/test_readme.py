"""The README's commands and code run as printed, and its files exist."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys

import nbclient
import nbformat
import pandas as pd
import pytest
from fitted import QUICK, few_figures, quick_sampling

from cbsbayes.__main__ import COMMANDS


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text(encoding="utf-8")


def _blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def _commands(text):
    lines = [line.split("#")[0].strip() for block in _blocks(text, "bash")
             for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line]


def test_every_command_is_known(readme, root):
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for command in _commands(readme):
        if command[0] == "make":
            assert re.search(rf"^{command[1]}:", makefile, flags=re.MULTILINE), command
        else:
            assert command[:2] == ["python", "-m"], command
            assert command[2].removeprefix("cbsbayes.") in COMMANDS, command


def test_links_and_figures_exist(readme, root):
    targets = re.findall(r"\]\(([^)#]+)\)", readme)
    assert [target for target in targets if not (root / target).exists()] == []


@pytest.mark.long
def test_the_commands_of_tutorial_and_readme_run_as_printed(readme, root, tmp_path, monkeypatch):
    """In this process and with the quick sampler: that the real one works is tested elsewhere."""
    monkeypatch.chdir(tmp_path)
    shutil.unpack_archive(root / "data" / "verl_tiny" / "logs.tar.xz", "logs", filter="data")
    curves = pd.read_parquet(root / "data" / "tiny_grpo" / "curves.parquet")
    curves[curves["seed"] < 2].to_csv("curves.csv", index=False)
    tutorial = _commands((root / "docs" / "tutorial.md").read_text(encoding="utf-8"))
    commands = {tuple(word for word in words[2:] if word != "--quiet"): None  # each once
                for words in [*tutorial, *_commands(readme)]
                if words[0] == "python" and not any("wandb:" in word for word in words)}
    assert len(commands) >= 10
    few = {"cbsbayes.fit": QUICK, "cbsbayes.validate": ["--draws", "50", "--tune", "100",
                                                        "--sweeps", "1", "--workers", "1"]}
    with quick_sampling(), few_figures():
        for name, *arguments in commands:
            status = importlib.import_module(name).main([*arguments, *few.get(name, [])])
            assert status in ((0, 3) if name == "cbsbayes.fit" else (0,)), (name, arguments)
    for name in ("fit.nc", "fit.json", "cbs.csv", "comparison.csv", "runs.csv", "index.html"):
        assert (tmp_path / "fit" / name).stat().st_size > 0
    for name in ("sweep.nc", "decision/splits.csv", "plan/plan.csv", "plan/phases"):
        assert (tmp_path / name).exists()


def test_the_python_example_runs_as_printed(readme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = _blocks(readme, "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    with quick_sampling():
        exec(compile(code, "README.md", "exec"), {})
    for name in ("fit.nc", "steps.png"):
        assert (tmp_path / name).stat().st_size > 0


@pytest.mark.mcmc
def test_the_notebook_runs(root, tmp_path):
    notebook = nbformat.read(root / "docs" / "decision.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    nbclient.NotebookClient(notebook, timeout=600, resources={
        "metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.data for cell in notebook.cells if cell.cell_type == "code"
             for output in cell.outputs if output.output_type == "execute_result"]
    assert ["image/png" in data for data in shown].count(True) == 2
    assert len(shown) == sum(cell.cell_type == "code" for cell in notebook.cells)


def test_numbers_of_the_shipped_sweep_are_those_of_its_report(readme, root):
    script = root / "benchmarks" / "readme_numbers.py"
    printed = subprocess.run([sys.executable, str(script)], cwd=root, capture_output=True,
                             text=True, check=True).stdout
    assert printed.strip() in readme
