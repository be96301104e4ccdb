"""Damage genuine files and see what every reader makes of them: a bounded, seeded fuzzer.

    PYTHONPATH=tests python tests/fuzz/fuzzer.py --cases 200 --seed 1

prints a table: targets down, outcomes across. `--show CLASS` names the cases of a class,
`--keep DIR` keeps their files.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import math
import random
import re
import signal
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from verl_loggers import metric_rows, write_console, write_jsonl, write_tensorboard, write_wandb

from cbsbayes.errors import CBSDataError
from cbsbayes.ingest import ingest
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.report.folder import write_fit
from cbsbayes.report.plan import read_like
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.sweep.dataset import notes_of
from cbsbayes.sweep.files import read_sweep, write_sweep
from cbsbayes.sweep.output_folder import MANIFEST, growing_folder, output_folder
from cbsbayes.sweep.schema import digest
from cbsbayes.validation.engine import Ledger
from cbsbayes.validation.page import page_markdown, read_studies, read_tables

__all__ = ["CLASSES", "FAULTS", "MUTATIONS", "Case", "fuzz", "table", "targets"]

CLASSES = ("clean error", "same", "changed and said", "altered text", "changed silently",
           "traceback", "hang")
"""``altered text``: what no reader can tell, a file without checksum that is still text."""
FAULTS = CLASSES[-3:]
_CPU_SECONDS = 20.0  # of one case; usual are hundredths
_ROOT = Path(__file__).resolve().parents[2]
_VERL = _ROOT / "tests/data/verl"


class Reading(NamedTuple):
    """What a reader made of a file: a value to compare, and what it said to the user."""

    value: Any
    said: Any = None


@dataclass(frozen=True)
class Target:
    """A genuine file and what reads it."""

    file: Path
    read: Callable[[], Reading]
    binary: bool = False


class Case(NamedTuple):
    """One damaged file and its outcome."""

    target: str
    mutation: str
    seed: int
    outcome: str
    detail: str
    content: bytes


def targets(folder: Path) -> Iterator[tuple[str, Target]]:
    """Yield every target by its name, its files written below a folder."""
    yield from _logs(folder)
    yield from _tables(folder)
    yield from _own_files(folder)


def _new(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    return folder / name


def _ingested(*sources: Path, **options: Any) -> Reading:
    ds = ingest([str(source) for source in sources], **options)
    remarks = [str(remark) for remark in ds["remark"].values]
    return Reading(digest(ds.drop_vars("remark")), (notes_of(ds), remarks))


def _logs(folder: Path) -> Iterator[tuple[str, Target]]:
    rows = metric_rows(16)

    def log(name: str, write: Callable[[Path, str, Any], None], pattern: str,
            binary: bool = False) -> tuple[str, Target]:
        place = _new(folder, name.replace(" ", "_"))
        write(place, "cbs_p1_m_d_np16_nr8_s1", rows)
        (path,) = place.rglob(pattern)
        return name, Target(path, lambda: _ingested(place), binary)

    yield log("verl file log", write_jsonl, "*.jsonl")
    yield log("console log", write_console, "*.log")
    yield log("TensorBoard", write_tensorboard, "events*", binary=True)
    yield log("wandb offline",
              lambda place, name, rows: write_wandb(place, {"name": name, "rows": rows}),
              "*.wandb", binary=True)
    place = _new(folder, "config")
    write_jsonl(place, "run", rows)
    side_car = place / "run.config.yaml"
    side_car.write_bytes((_VERL / "rpp.config.yaml").read_bytes())
    yield "configuration (YAML)", Target(side_car, lambda: _ingested(place))
    archive = _new(folder, "archive") / "logs.tar.xz"
    with tarfile.open(archive, "w:xz") as packed:
        for path in (place / "run.jsonl", side_car):
            packed.add(path, path.name)
    yield "archive (tar.xz)", Target(archive, lambda: _ingested(archive), binary=True)
    place = _new(folder, "state")
    history = [{"step": step, "eval_accuracy": 1 - math.exp(-step / 100), "epoch": step / 400}
               for step in range(0, 400, 20)]
    (place / "trainer_state.json").write_text(json.dumps(
        {"global_step": 400, "log_history": history, "train_batch_size": 16}, indent=1))
    (place / "config.json").write_text(json.dumps(
        {"per_device_train_batch_size": 128, "num_generations": 8, "world_size": 1,
         "gradient_accumulation_steps": 1}))
    yield "trainer_state.json", Target(place / "trainer_state.json", lambda: _ingested(place))


def _tables(folder: Path) -> Iterator[tuple[str, Target]]:
    curves = pd.DataFrame([
        {"run": f"p{p}", "step": step, "n_prompts": p, "n_rollouts": 8,
         "accuracy": round(1 - math.exp(-step / (40 + 1000 / p)), 4)}
        for p in (8, 16, 32, 64) for step in range(0, 400, 40)])
    crossings = pd.DataFrame([
        {"run": f"p{p}", "threshold": t, "n_prompts": p, "n_rollouts": 8,
         "steps_lower": round(100 * t * (1 + 40 / p)), "steps_upper": round(110 * t * (1 + 40 / p))}
        for p in (8, 16, 32, 64) for t in (0.5, 0.6)])
    place = _new(folder, "tables")
    curves.to_csv(place / "curves.csv", index=False)
    crossings.to_csv(place / "crossings.csv", index=False)
    curves.to_parquet(place / "curves.parquet", index=False)
    pd.DataFrame({"run": ["p8", "p16"], "seed": [3, 4], "phase": ["a", "b"]}).to_csv(
        place / "runs.csv", index=False)
    for what, kind in (("curves", "CSV"), ("crossings", "CSV"), ("curves", "Parquet")):
        file = place / f"{what}.{kind.lower()}"
        yield f"table of {what} ({kind})", Target(
            file, partial(_ingested, file), binary=kind == "Parquet")
    whole = place / "whole.csv"
    curves.to_csv(whole, index=False)
    yield "table of runs (--runs)", Target(
        place / "runs.csv", lambda: _ingested(whole, runs=place / "runs.csv"))


def _own_files(folder: Path) -> Iterator[tuple[str, Target]]:
    from fitted import SETTINGS, few_figures, quick_sampling

    sweep = simulate_sweep("p1", 1, random_seed=3)
    place = _new(folder, "own")
    write_sweep(sweep, place / "sweep.nc")
    yield "sweep.nc", Target(place / "sweep.nc", lambda: Reading(
        digest(read_sweep(place / "sweep.nc"))), binary=True)
    with quick_sampling(), few_figures(0):
        fit = fit_sweep(sweep, sampler=SETTINGS, alternatives=False, thresholds=(0.6, 0.65))
        write_fit(fit, place / "fit")
    yield "fit.nc", Target(place / "fit" / "fit.nc", lambda: Reading(
        _text(Fit.load(place / "fit").tree.to_dict())), binary=True)

    def replaceable() -> Reading:
        with contextlib.suppress(_Enough), output_folder(place / "fit", "cbsbayes.fit"):
            raise _Enough  # not written: what matters is what may be replaced
        return Reading("replaced")

    yield "manifest.json", Target(place / "fit" / "manifest.json", replaceable)
    phase = place / "p1.toml"
    phase.write_bytes((_ROOT / "training/phases/p1.toml").read_bytes())
    yield "phase file (--like)", Target(phase, lambda: Reading(_text(read_like(phase))))
    settings = {"draws": 50, "law": "two_axis"}
    ledger = Ledger(place / "sweeps" / "study.jsonl", settings)
    for seed in range(20):
        ledger.add(seed, {"rows": [["S_min", seed / 7, 1.0]], "sampling": {"r_hat_max": 1.0}})
    genuine = dict(ledger.records)

    def finished() -> Reading:
        found = Ledger(ledger.path, settings).records
        if len(found) < len(genuine) and found.items() <= genuine.items():
            raise CBSDataError("fitted again")
        return Reading(found)

    yield "ledger of validate", Target(ledger.path, finished)
    study = folder / "study"
    names = ("coverage.csv", "studies.json")
    with growing_folder(study, "cbsbayes.validate"):
        for name in names:
            (study / name).write_bytes((_ROOT / "reports/coverage" / name).read_bytes())
    manifest = (study / MANIFEST).read_bytes()

    def again() -> Reading:
        (study / MANIFEST).write_bytes(manifest)
        with growing_folder(study, "cbsbayes.validate"):
            return Reading(page_markdown(read_tables(study), read_studies(study)))

    for name in names:
        yield f"{name} of validate", Target(study / name, again)


def _text(value: Any) -> str:
    with np.printoptions(threshold=sys.maxsize):
        return repr(value)


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[:rng.randrange(len(data))]


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:]


def _swap(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


def _insert(what: bytes) -> Callable[[bytes, random.Random], bytes]:
    def mutate(data: bytes, rng: random.Random) -> bytes:
        at = rng.randrange(len(data) + 1)
        return data[:at] + what + data[at:]

    return mutate


def _in_number(what: bytes) -> Callable[[bytes, random.Random], bytes]:
    def mutate(data: bytes, rng: random.Random) -> bytes:
        found = list(re.finditer(rb"\d+", data))
        at = rng.choice(found)
        return data[:at.start()] + what + data[at.end():]

    return mutate


def _zero(data: bytes, rng: random.Random) -> bytes:
    size = min(len(data) // 4, 512)
    at = rng.randrange(len(data) - size)
    return data[:at] + bytes(size) + data[at + size:]


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut short": _truncate, "bit flipped": _flip, "lines swapped": _swap,
    "NUL bytes": _insert(bytes(3)), "lone surrogate": _insert(rb"\ud800"),
    "half a character": _insert(b"\xed\xa0\x80"), "huge integer": _in_number(b"9" * 5000),
    "infinity": _in_number(b"1e999"), "zeroed block": _zero,
}


class _Hang(BaseException):
    """A case took too long."""


class _Enough(Exception):
    """What was to be seen was seen."""


def _outcome(target: Target, whole: Reading, content: bytes) -> tuple[str, str]:
    def stop(*_: object) -> None:
        raise _Hang

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _CPU_SECONDS)
    try:
        found = target.read()
    except (CBSDataError, OSError) as error:
        return "clean error", str(error)
    except _Hang:
        return "hang", traceback.format_exc()
    except BaseException:
        return "traceback", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    if found.value == whole.value:
        return "same", ""
    if found.said != whole.said:
        return "changed and said", str(found.said)
    if not target.binary and _is_text(content):
        return "altered text", ""
    return "changed silently", ""


def _is_text(content: bytes) -> bool:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\n\t\r\x1b" for c in text)


def fuzz(folder: Path, cases: int, seed: int = 0, only: Sequence[str] = ()) -> list[Case]:
    """Damage every target `cases` times by every mutation.

    Parameters
    ----------
    folder : Path
        Where files are written.
    cases : int
        Of each target and mutation.
    seed : int
        Same seed, same damage.
    only : sequence of str
        Targets; all unless given.
    """
    found = []
    for name, target in targets(folder):
        if only and name not in only:
            continue
        data, whole = target.file.read_bytes(), target.read()
        for mutation, mutate in MUTATIONS.items():
            for k in range(seed, seed + cases):
                content = mutate(data, random.Random(f"{name} {mutation} {k}"))
                target.file.write_bytes(content)
                found.append(Case(name, mutation, k, *_outcome(target, whole, content), content))
        target.file.write_bytes(data)
    return found


def table(cases: Sequence[Case]) -> str:
    """Return the counts as a table in Markdown, targets down, outcomes across."""
    counts = collections.Counter((case.target, case.outcome) for case in cases)
    names = list(dict.fromkeys(case.target for case in cases))
    lines = [["file", *CLASSES], ["---", *["---:"] * len(CLASSES)]]
    lines += [[name, *(str(counts[name, outcome] or "") for outcome in CLASSES)] for name in names]
    lines += [["all", *(str(sum(counts[name, outcome] for name in names)) for outcome in CLASSES)]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Run from the command line; status 1 where there are faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=50, help="of each target and mutation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], metavar="TARGET")
    parser.add_argument("--show", action="append", default=list(FAULTS), metavar="CLASS")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the files of these cases")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cases = fuzz(Path(folder), options.cases, options.seed, options.only)
    for case in cases:
        if case.outcome in options.show:
            print(f"{case.outcome}: {case.target}, {case.mutation}, seed {case.seed}\n"
                  f"{case.detail[-1500:]}")
            if options.keep:
                options.keep.mkdir(exist_ok=True)
                name = re.sub(r"\W+", "_", f"{case.target} {case.mutation} {case.seed}")
                (options.keep / name).write_bytes(case.content)
    print(table(cases))
    return int(any(case.outcome in FAULTS for case in cases))


if __name__ == "__main__":
    sys.exit(main())
