"""Bad input through the real commands: one line that helps, status 1, nothing lost or written."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fitted import QUICK, quick_sampling, run
from page_reader import Page
from signals import PATIENCE, usual_signals

from cbsbayes import ingest
from cbsbayes.fit import main as fit_main
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.sweep.files import read_sweep, write_sweep
from cbsbayes.sweep.output_folder import output_folder

RUNS = [(p, 8) for p in (8, 16, 32, 64, 128)]


def table(cells=RUNS, top=0.9, **columns):
    """Return curves that rise towards `top`, later for smaller batches."""
    rows = [{"run": f"p{p}_g{g}", "step": step, "n_prompts": p, "n_rollouts": g,
             "accuracy": 0.1 + (top - 0.1) * -np.expm1(-step / (40 * (1 + 400 / (p * g))))}
            for p, g in cells for step in range(0, 401, 10)]
    return pd.DataFrame(rows).assign(**columns)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def fitted_folder(sweep_file, tmp_path_factory):
    """The folder of a fit of that sweep; copied where a test writes into it."""
    folder = tmp_path_factory.mktemp("earlier") / "out"
    assert run(sweep_file, "-o", folder, "--quiet") == 0
    return folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def only_line(capsys, command):
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{command}: ")
    assert err.count("\n") == 1
    assert err.isprintable() or err[:-1].isprintable()
    assert "Traceback" not in err
    return err


def refused_by_ingest(place, capsys, *arguments):
    earlier = new_sweep({"run": ["a"], "total_batch": [8]}, accuracy=[[[0.1]]], step=[0],
                        metric=["m"])
    content = write_sweep(earlier, place / "sweep.nc").read_bytes()
    before = files(place)
    assert ingest.main([*arguments, "-o", "sweep.nc"]) == 1
    assert files(place) == before
    assert (place / "sweep.nc").read_bytes() == content
    return only_line(capsys, "cbsbayes.ingest")


def refused_by_fit(place, capsys, *arguments):
    """Run the fit with a folder that holds an earlier page; nothing is sampled or written."""
    def never(*_):
        raise AssertionError("sampled in spite of the input")

    with output_folder(place / "out", "cbsbayes.fit") as folder:
        (folder / "index.html").write_text("an earlier page")
    before = files(place)
    with quick_sampling(never):
        assert fit_main([*arguments, "-o", "out", "--quiet"]) == 1
    assert files(place) == before
    assert (place / "out" / "index.html").read_text() == "an earlier page"
    return only_line(capsys, "cbsbayes.fit")


def ingested(place, frame):
    frame.to_csv(place / "curves.csv", index=False)
    assert ingest.main(["curves.csv", "-o", "sweep.nc", "--quiet"]) == 0
    return "sweep.nc"


def assert_matches(line, pattern):
    assert re.search(pattern, line), line


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.assign(n_prompts=-4), r"curves\.csv.* n_prompts is -4; valid: a whole number"),
    (lambda t: t.rename(columns={"n_prompts": "batch"}), r"curves\.csv.*batch"),
    (lambda t: t.assign(n_prompts=t["n_prompts"].where(t.index != 5, 9)),
     r"p8_g8.*n_prompts.*(8|9)"),
    (lambda t: t.assign(metric=np.where(t["n_prompts"] < 32, "val/mmlu", "val/arc")),
     r"(?=.*mmlu)(?=.*arc).*--metric"),
    (lambda t: t[:0], r"curves\.csv"),
])
def test_tables_that_cannot_be_read(place, capsys, change, message):
    change(table()).to_csv("curves.csv", index=False)
    assert_matches(refused_by_ingest(place, capsys, "curves.csv"), message)


@pytest.mark.parametrize("path", ["missing.nc", "folder", "text.nc", "short.nc", "half.nc",
                                  "link.nc", "other.nc", "edited.nc"])
def test_unreadable_sweeps(place, capsys, sweep_file, path):
    whole = sweep_file.read_bytes()
    (place / "folder").mkdir()
    (place / "text.nc").write_text("run,step\n")
    (place / "short.nc").write_bytes(whole[:100])
    (place / "half.nc").write_bytes(whole[: len(whole) // 2])
    (place / "link.nc").symlink_to("link.nc")
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf("other.nc", engine="netcdf4")
    ds = xr.load_dataset(sweep_file)
    ds["n_prompts"][0] = 7
    ds.to_netcdf("edited.nc", engine="netcdf4")
    line = refused_by_fit(place, capsys, path)
    remedy = {"missing.nc": "does not exist; give a netCDF file", "link.nc": "link.nc",
              "folder": "is a folder; give a netCDF file", "text.nc": "python -m cbsbayes.ingest",
              "short.nc": "damaged", "half.nc": "damaged", "other.nc": "python -m cbsbayes.ingest",
              "edited.nc": "edited.nc: "}[path]
    assert remedy in line
    assert path in line


@pytest.mark.parametrize(("frame", "message"), [
    (table(RUNS[:2]), "too few batch sizes that may be fitted, 2; a law needs at least 3"),
    (table(accuracy=0.3), r"no run gets beyond its start.*train longer"),
])
def test_sweeps_that_cannot_be_fitted(place, capsys, frame, message):
    assert_matches(refused_by_fit(place, capsys, ingested(place, frame)), message)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--law", "best"], r"unknown law 'best'; valid laws: total, power, two_axis"),
    (["--thresholds", "65"], r"no run reached it \(did you mean 0\.65\?\)\. The runs went from 0"),
    (["--metric", "math"], r"no metric 'math'; choose one of: "),
    (["--group", "llama"], r"no group 'llama'; the sweep's groups are: "),
    (["--thresholds", "0.01"], r"threshold 0\.01: every run had passed it before training.*valid "
                               r"thresholds lie between the two"),
    (["--thresholds", "nan"], r"thresholds are \[nan\]; give at least one finite number"),
    (["--ci-prob", "90"], r"ci_prob is 90\.0; valid: from 0\.5 to below 1"),
    (["--draws", "5"], r"draws is 5; valid: at least 50"),
    (["--chains", "1"], r"chains is 1; valid: at least 2"),
])
def test_wishes_that_cannot_be_met(place, capsys, sweep_file, arguments, message):
    assert_matches(refused_by_fit(place, capsys, str(sweep_file), *arguments), message)


def test_a_full_disk_while_writing_the_fit(place, sweep_file, fitted_folder):
    """A limit on the size of files, as a full disk: the old files stay whole, no rest is left."""
    out = shutil.copytree(fitted_folder, place / "out")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    code = (
        "import resource, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from fitted import run\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"sys.exit(run({str(sweep_file)!r}, '-o', {str(out)!r}, '--quiet', '--law', 'power'))\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          timeout=900, check=False)  # kernels are cached by now
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr == (f"cbsbayes.fit: cannot write into {out}: File too large; free space "
                           "there or give another folder with -o\n")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


NAMES = ["<script>alert('x')</script>", "../../etc/passwd", "a\nb\x1b[31m", "{{ 7 * 8321 }}",
         "=SUM(A1)"]


def test_names_are_text_everywhere(place, capsys):
    """In the tables, on the page and in the terminal; none becomes a path, markup or a template."""
    frame = table()
    frame["run"] = frame["run"].map(dict(zip(frame["run"].unique(), NAMES, strict=True)))
    frame["model"] = "<img src=x onerror=alert(1)>/[red]m[/red]\n{{ 1 }}"
    path = ingested(place, frame)
    ds = read_sweep(path)
    ds["usable"][:] = ~np.isin(ds["n_prompts"].values, [8, 64])  # two are named as left out
    write_sweep(ds, path)
    before = {name for name in files(place) if not name.startswith("out")}
    assert run(path, "-o", "out", "--thresholds", "0.4,0.6") == 0
    out, _ = capsys.readouterr()
    assert out.splitlines()[0].startswith("<img src=x onerror=alert(1)>/[red]m[/red]")
    assert "\x1b" not in out
    assert ("Only n_prompts varies: the total-batch law. B_prompt and B_rollout cannot be told "
            "apart at one n_rollouts.") in " ".join(out.split())
    assert {name for name in files(place) if not name.startswith("out")} == before
    runs = pd.read_csv(place / "out" / "runs.csv")
    shown = [f"'{name}" if name.startswith(("=", "+", "-", "@")) else name
             for name in ds["name"].values.tolist()]  # what a spreadsheet would run is marked
    assert sorted(runs["name"]) == sorted(shown)
    words = Page((place / "out" / "index.html").read_text()).words
    left_out = ds["name"].values[ds["usable"].values == 0]
    assert sorted(left_out) == sorted([NAMES[0], NAMES[3]])
    for name in left_out:
        assert str(name) in words
    assert "58247" not in words


# Stops where a stage of the fit begins.
FIT = """
    import sys, time
    sys.path.insert(0, {tests!r})
    from fitted import few_figures, quick_sampling
    from cbsbayes._command import Timings
    from cbsbayes.fit import main

    stage = Timings.__call__
    def stop(self, text):
        stage(self, text)
        if text.startswith({stage!r}):
            print("here", flush=True)
            time.sleep(900)
    Timings.__call__ = stop
    with quick_sampling(), few_figures(1):
        sys.exit(main([{sweep!r}, "-o", "out", "--quiet", "--law", "power", *{quick!r}]))
"""


@pytest.mark.parametrize(("stage", "number"), [
    ("sampling", signal.SIGTERM), ("writing tables", signal.SIGKILL),
    ("drawing", signal.SIGINT), ("writing the page", signal.SIGKILL)])
def test_a_fit_stopped_at_any_stage_leaves_the_old_folder_whole(
        place, sweep_file, fitted_folder, stage, number):
    shutil.copytree(fitted_folder, "out")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    code = textwrap.dedent(FIT).format(tests=str(Path(__file__).parents[1]), stage=stage,
                                       sweep=str(sweep_file), quick=QUICK)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.PIPE, preexec_fn=usual_signals) as child:
        assert child.stdout.readline() == "here\n", child.stderr.read()
        child.send_signal(number)
        _, err = child.communicate(timeout=PATIENCE)
    after = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert {path: after.get(path) for path in before} == before
    if number == signal.SIGKILL:
        assert len(after) > len(before)
        with output_folder(place / "out", "cbsbayes.fit") as folder:  # the next one clears up
            (folder / "index.html").write_text("a later page")
        assert files(place) == ["out", "out/index.html", "out/manifest.json"]
    else:
        assert child.returncode == 128 + number
        assert err.endswith("every output is whole: as it was before, or finished\n")
        assert after == before
