"""The layers: who imports whom, no circles, no trainer, and help that loads no sampler.

Imports inside functions and under TYPE_CHECKING count like others.
"""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys

from cbsbayes.__main__ import COMMANDS

TRAINERS = {"torch", "verl", "ray", "training", "transformers"}
HEAVY = {"pymc", "pytensor", "arviz", "arviz_stats", "nutpie", "numba", "matplotlib", "wandb",
         "torch", "verl", "tensorboard", "xarray", "pandas", "scipy"}
ORDER = ("errors", "logs", "sweep", "crossings", "models", "inference", "posterior",
         "noise baselines", "decisions", "plots", "report")
RANK = {name: k for k, names in enumerate(ORDER) for name in names.split()}
BESIDE = {"simulation": {"errors", "sweep", "models"},
          "validation": set(RANK) - {"report"} | {"simulation"}}
UPWARD: set[str] = set()  # imports against the order: none
# imports that close a circle of modules; the list only shrinks
CIRCLES: set[str] = set()
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


def module_of(path, root):
    """Return a file's module without the package's name; "" is the package itself."""
    return ".".join(path.relative_to(root / "cbsbayes").with_suffix("").parts).removesuffix(
        "__init__").removesuffix(".")


def edges(root):
    """Return who imports whom of the package, pairs of modules."""
    modules = {module_of(path, root): path for path in files(root)}
    found = set()
    for module, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                named = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in named:
                if name.split(".")[0] == "cbsbayes":
                    inner = name.removeprefix("cbsbayes").removeprefix(".")
                    found.add((module, inner if inner in modules else inner.rpartition(".")[0]))
    return {(module, other) for module, other in found if module != other}


def layer_of(module, root):
    """Return the sub-package of a module, "errors", or "" for the commands in the root."""
    first = module.split(".")[0]
    return first if first == "errors" or (root / "cbsbayes" / first).is_dir() else ""


def is_downward(layer, other):
    if layer in ("", other):
        return True
    return other in BESIDE[layer] if layer in BESIDE else RANK.get(other, 99) < RANK[layer]


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


def test_imports_go_down_the_layers(root):
    found = {f"{module} -> {other}" for module, other in edges(root)
             if not is_downward(layer_of(module, root), layer_of(other, root))}
    assert found == UPWARD


def test_no_modules_import_each_other_in_a_circle(root):
    graph = {}
    for module, other in edges(root):
        if f"{module} -> {other}" not in CIRCLES:
            graph.setdefault(module, set()).add(other)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the modules of a circle
    for exception in CIRCLES:
        module, other = exception.split(" -> ")
        assert other in reachable(module, {**graph, module: graph[module] | {other}}), exception
        assert module in reachable(other, graph), f"{exception} closes no circle any more"


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


def test_the_walk_through_names_at_most_twelve_files(root):
    text = (root / "ARCHITECTURE.md").read_text("utf-8")
    walk = text.partition("### One value")[2].partition("\n## ")[0]
    named = set(re.findall(r"cbsbayes/[\w/]+\.py", walk))
    assert 0 < len(named) <= 12
    assert [name for name in named if not (root / name).is_file()] == []


def test_documents_name_files_that_exist(root):
    for document in ("ARCHITECTURE.md", "CONTRIBUTING.md", "docs/model.md"):
        text = (root / document).read_text("utf-8")
        for name in re.findall(r"`((?:[\w]+/)+\w+\.\w+)`", text):
            assert (root / name).exists() or (root / "cbsbayes" / name).exists(), (document, name)
        for name in re.findall(r"`cbsbayes\.(\w+(?:\.\w+)*)`", text):
            place = root / "cbsbayes" / name.replace(".", "/")
            assert place.is_dir() or place.with_suffix(".py").is_file(), (document, name)


def reachable(start, graph):
    seen, todo = set(), [start]
    while todo:
        for other in graph.get(todo.pop(), ()):
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


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
    assert "--output" in done.stdout
    for command in COMMANDS:
        assert f"usage: python -m cbsbayes.{command} " in done.stdout


def test_importing_the_package_loads_nothing_heavy():
    done = python("-c", "import cbsbayes, sys\n"
                  f"print(sorted(set({sorted(HEAVY)!r}) & sys.modules.keys()))")
    assert done.stdout == "[]\n"


def test_the_list_of_commands_loads_nothing_heavy():
    code = ("import runpy, sys\nsys.argv = ['cbsbayes']\n"
            "try: runpy.run_module('cbsbayes', run_name='__main__')\n"
            "except SystemExit as stopped: assert stopped.code == 0\n"
            f"print(sorted(set({sorted(HEAVY | {'numpy'})!r}) & sys.modules.keys()))")
    assert python("-c", code).stdout.splitlines()[-1] == "[]"
