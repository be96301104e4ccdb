"""The layers: who imports whom, no circles, no trainer, and help that loads no sampler.

Imports inside functions and under TYPE_CHECKING count like others.
"""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys

import pytest

from cbsbayes.__main__ import COMMANDS

TRAINERS = {"torch", "verl", "ray", "training", "transformers", "tensordict"}
SAMPLERS = {"pymc", "arviz", "arviz_stats", "nutpie"}
HEAVY = {"pymc", "pytensor", "arviz", "arviz_stats", "nutpie", "numba", "matplotlib", "wandb",
         "torch", "verl", "tensorboard", "xarray", "pandas", "scipy"}
ORDER = ("errors", "logs", "sweep", "crossings", "models", "inference", "posterior",
         "noise baselines", "decisions", "plots", "report")
RANK = {name: k for k, names in enumerate(ORDER) for name in names.split()}
BESIDE = {"simulation": {"errors", "sweep", "models"},
          "validation": set(RANK) - {"report"} | {"simulation"},
          "probe": {"errors"}}  # runs inside the trainer; nothing of the analysis imports it
UNSAFE = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


def files(root, folder="cbsbayes"):
    return sorted((root / folder).rglob("*.py"))


def named(path):
    """Return everything a file imports, dotted, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(path):
    return {name.partition(".")[0] for name in named(path)}


def module_of(path, root):
    """Return a file's module without the package's name; "" is the package itself."""
    parts = path.relative_to(root / "cbsbayes").with_suffix("").parts
    return ".".join(parts).removesuffix("__init__").removesuffix(".")


def edges(root):
    """Return who imports whom of the package, pairs of modules."""
    modules = {module_of(path, root): path for path in files(root)}
    assert len(modules) > 50
    for module, path in modules.items():
        for name in named(path):
            package, _, inner = name.partition(".")
            other = inner if inner in modules else inner.rpartition(".")[0]
            if package == "cbsbayes" and module != other:
                yield module, other


def is_downward(layer, other):
    if layer in ("", other):
        return True
    return other in BESIDE[layer] if layer in BESIDE else RANK.get(other, 99) < RANK[layer]


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=900,
                          check=False)


def test_imports_go_down_the_layers(root):
    def layer(module):
        if module.endswith("__main__"):
            return ""  # a command
        first = module.split(".")[0]
        return first if first == "errors" or (root / "cbsbayes" / first).is_dir() else ""

    assert [f"{module} -> {other}" for module, other in edges(root)
            if not is_downward(layer(module), layer(other))] == []


def test_no_modules_import_each_other_in_a_circle(root):
    graph = {}
    for module, other in edges(root):
        graph.setdefault(module, set()).add(other)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the modules of a circle


def test_files_and_lists_of_parameters_stay_small(root):
    for path in files(root):
        text = path.read_text("utf-8")
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                taken = {a.arg for a in (*node.args.args, *node.args.kwonlyargs)} - {"self", "cls"}
                assert len(taken) <= 8, (path, node.name)


def test_trainers_and_samplers_stay_apart(root):
    for path in files(root):
        if path.parent.name != "probe":
            assert not imported(path) & TRAINERS, path
    for path in (*files(root, "training"), *files(root, "cbsbayes/probe")):
        assert not imported(path) & SAMPLERS, path


def test_the_architecture_lists_every_module(root):
    """Lines with a folder, or with "(root)", begin a block; indented lines are its modules."""
    text = (root / "ARCHITECTURE.md").read_text("utf-8")
    tree = text.partition("<!-- tree -->")[2].partition("<!-- end -->")[0]
    listed, package = {}, ""
    for line in tree.splitlines():
        if line.startswith("   "):
            listed[package] |= set(line.split())
        elif line.startswith("  "):
            package = line.split()[0].removesuffix("/").replace("(root)", "")
            listed[package] = set()
    found = {}
    for path in files(root):
        *package, name = path.relative_to(root / "cbsbayes").with_suffix("").parts
        found.setdefault(".".join(package), set()).update({name} - {"__init__"})
    assert listed == found


def test_documents_name_files_that_exist(root):
    for document in ("ARCHITECTURE.md", "CONTRIBUTING.md", "docs/model.md"):
        text = (root / document).read_text("utf-8")
        for name in re.findall(r"`((?:[\w]+/)+\w+\.\w+)`", text):
            assert (root / name).exists() or (root / "cbsbayes" / name).exists(), (document, name)
        for name in re.findall(r"`cbsbayes\.(\w+(?:\.\w+)*)`", text):
            place = root / "cbsbayes" / name.replace(".", "/")
            assert place.is_dir() or place.with_suffix(".py").is_file(), (document, name)
    text = (root / "ARCHITECTURE.md").read_text("utf-8")
    walk = text.partition("### One value")[2].partition("\n## ")[0]
    assert 0 < len(set(re.findall(r"cbsbayes/[\w/]+\.py", walk))) <= 12


def test_nothing_read_is_executed(root):
    import yaml

    from cbsbayes.logs import run_config

    for path in files(root):
        assert not imported(path) & UNSAFE, path
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text("utf-8")))
                 if isinstance(node, ast.Call)}
        assert not calls & {"eval", "exec", "os.system", "pd.read_pickle", "yaml.unsafe_load",
                            "yaml.full_load"}, path
        assert "allow_pickle=True" not in path.read_text("utf-8"), path
    loaders = [value for value in vars(run_config).values()
               if isinstance(value, type) and issubclass(value, yaml.reader.Reader)]
    assert loaders
    for loader in loaders:
        assert not any("python" in tag for tag in loader.yaml_constructors if tag)


def test_help_loads_nothing_heavy():
    code = (
        "import runpy, sys\n"
        f"for command in {sorted(COMMANDS)!r}:\n"
        "    sys.argv = ['x', '--help']\n"
        "    try: runpy.run_module(f'cbsbayes.{command}', run_name='__main__')\n"
        "    except SystemExit as stopped: assert stopped.code == 0\n"
        f"    found = {HEAVY!r} & sys.modules.keys()\n"
        "    assert not found, (command, found)\n")
    done = python("-c", code)
    assert (done.stderr, done.returncode) == ("", 0)
    for command in COMMANDS:
        assert f"usage: python -m cbsbayes.{command} " in done.stdout


@pytest.mark.parametrize("module", ["cbsbayes", "cbsbayes.__main__"])
def test_importing_the_package_loads_nothing_heavy(module):
    done = python("-c", f"import {module}, sys\n"
                  f"print(sorted(set({sorted(HEAVY | {'numpy'})!r}) & sys.modules.keys()))")
    assert done.stdout == "[]\n", done.stderr
