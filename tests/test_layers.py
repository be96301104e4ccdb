"""The layers: the package knows no trainer, and a command that prints its help loads no sampler."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from cbsbayes.__main__ import COMMANDS

TRAINERS = {"torch", "verl", "ray", "training", "transformers"}
HEAVY = {"pymc", "pytensor", "arviz", "arviz_stats", "nutpie", "numba", "matplotlib", "wandb",
         "torch", "verl", "tensorboard", "xarray", "pandas", "scipy"}
UNSAFE = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


def imported(path):
    """Return the top-level packages a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).split(".")[0])
    return names


def calls(path):
    """Return the names of everything a file calls, dotted."""
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Call)}


def files(root):
    found = sorted((root / "cbsbayes").rglob("*.py"))
    assert len(found) > 50
    return found


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=900,
                          check=False)


def test_the_package_imports_no_trainer(root):
    assert {str(path): names for path in files(root) if (names := imported(path) & TRAINERS)} == {}


def test_the_training_side_imports_no_sampler(root):
    found = {str(path): names for path in sorted((root / "training").rglob("*.py"))
             if (names := imported(path) & {"pymc", "arviz", "arviz_stats", "nutpie"})}
    assert found == {}


def test_nothing_read_is_executed(root):
    for path in files(root):
        assert not imported(path) & UNSAFE, path
        assert not calls(path) & {"eval", "exec", "os.system", "pd.read_pickle", "yaml.unsafe_load",
                                  "yaml.full_load"}, path
        assert "allow_pickle=True" not in path.read_text("utf-8"), path


def test_yaml_is_read_by_a_safe_loader():
    import yaml

    from cbsbayes.logs import side_car as config

    loaders = [value for value in vars(config).values()
               if isinstance(value, type) and issubclass(value, yaml.reader.Reader)]
    assert loaders
    for loader in loaders:
        assert issubclass(loader, yaml.SafeLoader | getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        assert not any("python" in tag for tag in loader.yaml_constructors if tag)


def test_every_module_imports_where_trainers_are_missing(root):
    modules = [".".join(path.relative_to(root).with_suffix("").parts) for path in files(root)]
    modules = [name.removesuffix(".__init__") for name in modules]
    code = (
        "import importlib, sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {sorted(TRAINERS)!r}: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print('all')\n")
    done = python("-c", code)
    assert (done.stdout, done.returncode) == ("all\n", 0), done.stderr


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_loads_nothing_heavy(command):
    allowed = {"simulate": {"xarray", "pandas", "scipy"}}.get(command, set())
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('cbsbayes.{command}', run_name='__main__')\n"
        "except SystemExit as stopped: assert stopped.code == 0\n"
        f"print(sorted({sorted(HEAVY - allowed)!r} & sys.modules.keys()), file=sys.stderr)\n")
    done = python("-c", code.replace(f"sorted({sorted(HEAVY - allowed)!r} &",
                                     f"sorted(set({sorted(HEAVY - allowed)!r}) &"))
    assert done.stderr == "[]\n"
    assert done.stdout.startswith(f"usage: python -m cbsbayes.{command} ")
    assert "--output" in done.stdout


def test_importing_the_package_loads_nothing_heavy():
    done = python("-c", "import cbsbayes, sys\n"
                  f"print(sorted(set({sorted(HEAVY)!r}) & sys.modules.keys()))")
    assert done.stdout == "[]\n"


def test_a_fit_loads_no_sampler_and_no_plots_before_it_samples():
    wanted = {"numba", "xarray", "pandas", "scipy"}
    code = ("import sys, cbsbayes.fit, cbsbayes.posterior.fit_sweep, "
            "cbsbayes.report.folder, cbsbayes.sweep.files\n"
            f"print(sorted(({sorted(HEAVY)!r} + ['arviz_plots', 'rich', 'jinja2'])\n"
            "             & sys.modules.keys()))").replace("sorted((", "sorted(set(")
    done = python("-c", code)
    assert done.stdout == f"{sorted(wanted)!r}\n"


def test_the_list_of_commands_loads_nothing_heavy():
    code = ("import runpy, sys\nsys.argv = ['cbsbayes']\n"
            "try: runpy.run_module('cbsbayes', run_name='__main__')\n"
            "except SystemExit as stopped: assert stopped.code == 0\n"
            f"print(sorted(set({sorted(HEAVY | {'numpy'})!r}) & sys.modules.keys()))")
    assert python("-c", code).stdout.splitlines()[-1] == "[]"
