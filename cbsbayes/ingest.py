"""``python -m cbsbayes.ingest SOURCE… -o sweep.nc``: logs of a sweep in, one dataset out.

python -m cbsbayes.ingest wandb:my-team/cbs -o sweep.nc
python -m cbsbayes.ingest logs/ extra/curves.csv -o sweep.nc --metric openai/gsm8k
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes._command import EXIT_OK, Stage, command_parser, run_main, shown_stages
from cbsbayes.errors import CBSDataError, listed, one_line

if TYPE_CHECKING:
    import xarray as xr

    from cbsbayes.logs.detect import Progress

__all__ = ["ingest", "main"]

_AXES = ["n_prompts", "n_rollouts", "total_batch"]
_SHOWN = 12  # lines of each list in the summary; --json and the dataset hold all of them
_QUIET_SECONDS = 10.0  # between lines of progress where there is no terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_main("ingest", _run, argv)


def _run(options: argparse.Namespace) -> int:
    if options.output is None and not options.dry_run:
        command_parser("ingest").error(
            "the following arguments are required: -o/--output (or --dry-run)")
    _once(options)
    while options.watch is not None:
        time.sleep(options.watch)
        _once(options)
    return EXIT_OK


def _once(options: argparse.Namespace) -> None:
    from cbsbayes.sweep.dataset import append
    from cbsbayes.sweep.files import check_replaceable, read_sweep, write_sweep

    output = options.output
    if output is not None:
        if output.exists() and any(Path(source).exists() and output.samefile(source)
                                   for source in options.sources):
            raise CBSDataError(f"{output} is one of the sources; give another file to write")
        check_replaceable(output)
    with shown_stages("cbsbayes.ingest", quiet=options.quiet) as show:
        ds = ingest(options.sources, metric=options.metric, config=options.config,
                    runs=options.runs, skip=options.skip or (), cache_dir=options.cache,
                    progress=_progress(show))
    if options.dry_run:
        _print(_table(ds))
        return
    if options.append and output.exists():
        ds = append(read_sweep(output), ds)
    write_sweep(ds, output)
    summary = _summary(ds, output)
    if options.json:
        print(json.dumps(summary, indent=2, allow_nan=False))
    elif not options.quiet:
        _print(_lines(summary))


def _print(lines: Sequence[str]) -> None:
    print("\n".join(map(one_line, lines)))


def ingest(
    sources: Sequence[str],
    *,
    metric: str | None = None,
    config: Path | None = None,
    runs: Path | None = None,
    skip: Collection[str] = (),
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Read sources into one sweep dataset.

    Parameters
    ----------
    sources : sequence of str
        As the command takes them.
    metric : str, optional
        The validation metric to fit by default.
    config : Path, optional
        A configuration for runs that have none of their own.
    runs : Path, optional
        A table of what is known of the runs; it wins over what is read, each conflict is noted.
    skip : collection of str
        Names or ids of runs to leave out.
    cache_dir : Path, optional
        Where downloads from wandb are kept.
    progress : callable, optional
        Called as ``progress(done, total)`` within each source.

    Returns
    -------
    xarray.Dataset
        The sweep (schema in `cbsbayes.sweep.schema`).

    Raises
    ------
    CBSDataError
        Where a source is at fault, or no run or no clear metric is found.
    OSError
        Where a file cannot be read.
    """
    from cbsbayes.logs.detect import read_sources
    from cbsbayes.logs.run_config import read_config
    from cbsbayes.logs.run_log import Origin
    from cbsbayes.logs.tables import read_runs
    from cbsbayes.sweep.dataset import add_notes
    from cbsbayes.sweep.from_logs import build_sweep

    given = (Origin("--config", read_config(config)),) if config is not None else ()
    stated = read_runs(runs) if runs is not None else {}
    logs, said = read_sources(sources, skip=skip, cache_dir=cache_dir, progress=progress)
    known = {name for log in logs for name in (log.name, log.id)}
    unknown = [name for name in stated if name not in known]
    if unknown:
        said.append(f"{runs} names runs that no source has: {listed(unknown)}")
    now = datetime.now(tz=UTC).isoformat(timespec="seconds")
    history = one_line(f"{now} python -m cbsbayes.ingest {' '.join(sources)}")
    logs = [replace(log, settings=(
        Origin("--runs", stated.get(log.name) or stated.get(log.id, {})), *log.settings, *given))
        for log in logs]
    try:
        ds = build_sweep(logs, metric=metric, history=history)
    except CBSDataError as error:
        raise CBSDataError("; ".join([str(error), *said])) from None
    return add_notes(ds, [one_line(note) for note in said])


def _progress(show: Stage) -> Progress:
    """Return what shows how far the reading is: always on a terminal, elsewhere now and then."""
    pause, last = 0.0 if sys.stderr.isatty() else _QUIET_SECONDS, time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= pause:
            last = time.monotonic()
            show(f"reading, {done} of {total} done")

    return tell


def _table(ds: xr.Dataset) -> list[str]:
    """Return a line per run: its batch, its curve, its trainer and where each setting was read."""
    import pandas as pd

    from cbsbayes.sweep.dataset import notes_of

    curves = "accuracy" in ds
    found = ds["accuracy"].sel(metric=ds.attrs["metric"]) if curves else ds["steps_upper"]
    shown = {"run": "run", "prompts": "n_prompts", "rollouts": "n_rollouts",
             "batch": "total_batch", "updates/step": "updates_per_step", "seed": "seed",
             "last update": "last_step", "trainer": "trainer", "version": "trainer_version",
             "GPUs": "n_gpus", "source": "source", "read from": "read_from", "remark": "remark"}
    table = pd.DataFrame({title: ds[name].values for title, name in shown.items() if name in ds})
    table.insert(6, "evaluations", found.notnull().sum(set(found.dims) - {"run"}).values)
    lines = table.to_string(index=False, float_format="{:g}".format).splitlines()
    metric = [f"metric   {ds.attrs['metric']}"] if curves else []
    return [*lines, *metric, *_section("notes", notes_of(ds))]


def _summary(ds: xr.Dataset, output: Path) -> dict[str, Any]:
    """Return what the file holds as plain values."""
    from cbsbayes.sweep.dataset import notes_of

    curves = "accuracy" in ds
    trainer = [name for name in ("trainer", "trainer_version") if name in ds]
    runs = ds[["run", "phase", "usable", "remark", *_AXES, *trainer]].to_dataframe()
    used = runs["usable"] == 1
    trainers = map(" ".join, (filter(None, row) for row in runs[trainer].itertuples(index=False)))
    command = ["python", "-m", "cbsbayes.fit", str(output), "-o", str(output.parent / "fit")]
    return {
        "output": str(output),
        "runs": len(runs),
        "usable": int(used.sum()),
        "phases": dict(sorted(Counter(runs["phase"]).items())),
        "batches": runs[_AXES].drop_duplicates().sort_values(_AXES).to_dict("records"),
        "kind": "curves" if curves else "crossings",
        "metric": str(ds.attrs["metric"]),
        "metrics": ds["metric"].values.tolist() if curves else [],
        "evaluations": int(ds["accuracy" if curves else "steps_upper"].notnull().sum()),
        "trainers": dict(Counter(filter(None, trainers))),
        "left_out": runs["remark"][~used].to_dict(),
        "remarks": runs["remark"][used & (runs["remark"] != "")].to_dict(),
        "notes": notes_of(ds),
        "next": shlex.join(command),
    }


def _lines(summary: dict[str, Any]) -> list[str]:
    """Return the summary as lines to read."""
    what = "evaluations" if summary["kind"] == "curves" else "crossings"
    phases, trainers = (", ".join(f"{name or 'no phase'} ({n})" for name, n in counts.items())
                        for counts in (summary["phases"], summary["trainers"]))
    lines = [f"{summary['output']}: {summary['runs']} runs, {summary['usable']} to be fitted, "
             f"{summary['evaluations']} {what}",
             f"  phases   {phases}", f"  batches  {_batches(summary['batches'])}"]
    if trainers:
        lines.append(f"  trainer  {trainers}")
    if summary["kind"] == "curves":
        others = [name for name in summary["metrics"] if name != summary["metric"]]
        also = f" (also there: {', '.join(others)})" if others else ""
        lines.append(f"  metric   {summary['metric']}{also}")
    for title, key in (("kept but not fitted", "left_out"), ("remarks", "remarks")):
        lines += _section(title, [f"{run}: {why}" for run, why in summary[key].items()])
    return [*lines, *_section("notes", summary["notes"]), f"next: {summary['next']}"]


def _batches(batches: list[dict[str, Any]]) -> str:
    ranges = []
    for name in _AXES:
        values = sorted({batch[name] for batch in batches if batch[name] > 0})
        if values:
            span = f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g}…{values[-1]:g}"
            ranges.append(f"{name} {span}")
    return f"{len(batches)}: " + ", ".join(ranges)


def _section(title: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    rest = len(entries) - _SHOWN
    more = [f"  … and {rest} more (all of them with --json)"] if rest > 0 else []
    return [f"{title}:", *(f"  {entry}" for entry in entries[:_SHOWN]), *more]


if __name__ == "__main__":
    sys.exit(main())
