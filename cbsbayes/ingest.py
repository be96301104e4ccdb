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
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes._command import EXIT_OK, run_command
from cbsbayes.errors import one_line

if TYPE_CHECKING:
    import xarray as xr

    from cbsbayes.logs.detect import Progress

__all__ = ["ingest", "main"]

_SHOWN = 12  # lines of each list in the summary; --json and the dataset hold all of them


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.output is None and not options.dry_run:
        parser.error("the following arguments are required: -o/--output (or --dry-run)")
    return run_command(lambda: _run(options), "cbsbayes.ingest")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cbsbayes.ingest",
        description="Read the logs of a sweep and write them as one sweep dataset (netCDF).",
        epilog="exit status: 0 written; 1 the input is at fault; 2 usage",
    )
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="wandb:ENTITY/PROJECT; a folder, searched for wandb runs, TensorBoard files, verl's "
        "*.jsonl and console logs, *.csv and *.parquet; or one such file",
    )
    add("-o", "--output", type=Path, metavar="FILE", help="the netCDF file to write")
    add("--metric", metavar="KEY", help="validation metric to fit, e.g. openai/gsm8k; default: "
        "the one all runs share, GSM8K before MATH")
    add("--runs", type=Path, metavar="TABLE", help="table of what you know of the runs (CSV; run, "
        "n_prompts, n_rollouts, seed …), laid over what is read")
    add("--config", type=Path, metavar="FILE", help="configuration (YAML or JSON) of the runs "
        "that have none of their own")
    add("--skip", action="append", default=[], metavar="RUN", help="leave a run out, by name or id")
    add("--dry-run", action="store_true", help="show the runs and where their batch was read; "
        "write nothing")
    add("--watch", type=float, metavar="SECONDS", help="follow running logs: read and write again "
        "every SECONDS, until interrupted")
    add("--append", action="store_true", help="add the runs to FILE if it exists")
    add("--cache", type=Path, metavar="DIR", help="where downloads from wandb are kept")
    add("--json", action="store_true", help="print the summary as JSON")
    add("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _run(options: argparse.Namespace) -> int:
    while _once(options) == EXIT_OK and options.watch is not None:
        time.sleep(options.watch)
    return EXIT_OK


def _once(options: argparse.Namespace) -> int:
    from cbsbayes.sweep.dataset import append
    from cbsbayes.sweep.files import read_sweep, write_sweep

    if options.output is not None:
        _check_output(options.output, options.sources)
    with _progress(options.quiet) as progress:
        ds = ingest(
            options.sources,
            metric=options.metric,
            config=options.config,
            runs=options.runs,
            skip=options.skip,
            cache_dir=options.cache,
            progress=progress,
        )
    if options.dry_run:
        print("\n".join(one_line(line) for line in _table(ds)))
        return EXIT_OK
    if options.append and options.output.exists():
        ds = append(read_sweep(options.output), ds)
    write_sweep(ds, options.output)
    summary = _summary(ds, options.output)
    if options.json:
        print(json.dumps(summary, indent=2, allow_nan=False))
    elif not options.quiet:
        print("\n".join(_lines(summary)))
    return EXIT_OK


def _check_output(output: Path, sources: Sequence[str]) -> None:
    """Refuse to replace what is no sweep of ours, or a source."""
    from cbsbayes.errors import CBSDataError
    from cbsbayes.sweep.files import is_netcdf

    if not output.exists():
        return
    if any(Path(source).exists() and output.samefile(source) for source in sources):
        raise CBSDataError(f"{output} is one of the sources; give another file to write")
    if not output.is_file() or not is_netcdf(output):
        raise CBSDataError(f"{output} is there and is no sweep; ingest replaces only its own "
                           "files: move it away or give another name")


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
    from cbsbayes.errors import CBSDataError
    from cbsbayes.logs.detect import read_sources
    from cbsbayes.logs.history import listed
    from cbsbayes.logs.side_car import read_config
    from cbsbayes.logs.tables import read_runs
    from cbsbayes.sweep.dataset import add_notes
    from cbsbayes.sweep.from_logs import build_sweep

    given = read_config(config) if config is not None else {}
    stated = read_runs(runs) if runs is not None else {}
    logs, said = read_sources(sources, skip=skip, cache_dir=cache_dir, progress=progress)
    unknown = [name for name in stated if not any(name in (log.name, log.id) for log in logs)]
    if unknown:
        said.append(f"{runs} names run(s) that no source has: {listed(unknown)}")
    now = datetime.now(tz=UTC).isoformat(timespec="seconds")
    history = one_line(f"{now} python -m cbsbayes.ingest {' '.join(sources)}")
    logs = [replace(log, stated=stated.get(log.name) or stated.get(log.id, {}),
                    further=(*log.further, ("--config", given)) if given else log.further)
            for log in logs]
    try:
        ds = build_sweep(logs, metric=metric, history=history)
    except CBSDataError as error:
        raise CBSDataError("; ".join([str(error), *said])) from None
    return add_notes(ds, [one_line(note) for note in said])


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress | None]:
    """Show a bar on stderr where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _table(ds: xr.Dataset) -> list[str]:
    """Return a line per run: its batch and where it was read, evaluations, last update."""
    from cbsbayes.sweep.dataset import notes_of

    curves = "accuracy" in ds
    found = ds["accuracy"].sel(metric=ds.attrs["metric"]) if curves else ds["steps_upper"]
    counts = found.notnull().sum(set(found.dims) - {"run"}).values
    origin = ds["batch_from"].values if "batch_from" in ds else [""] * ds.sizes["run"]
    rows: list[tuple[str, ...]] = [
        ("run", "prompts", "rollouts", "batch", "updates/step", "seed", "batch read from",
         "evaluations", "last update", "remark")]
    columns = [ds[name].values for name in ("run", "n_prompts", "n_rollouts", "total_batch",
                                            "updates_per_step", "seed")]
    rows += [(*(f"{v:g}" if isinstance(v, float) else str(v) for v in values), str(source),
              str(count), f"{last:g}", str(remark))
             for *values, source, count, last, remark in zip(
                 *columns, origin, counts, ds["last_step"].values, ds["remark"].values,
                 strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    metric = [f"metric   {ds.attrs['metric']}"] if curves else []
    return [*lines, *metric, *_section("notes", notes_of(ds))]


def _summary(ds: xr.Dataset, output: Path) -> dict[str, Any]:
    """Return what the file holds as plain values."""
    from cbsbayes.sweep.dataset import notes_of

    usable = ds["usable"].values == 1
    phases = Counter(str(phase) for phase in ds["phase"].values)
    batches = zip(*(ds[name].values for name in ("n_prompts", "n_rollouts", "total_batch")),
                  strict=True)  # fmt: skip
    pairs = sorted({(int(p), int(r), float(b)) for p, r, b in batches})
    curves = "accuracy" in ds
    names, remarks = ds["run"].values, ds["remark"].values
    return {
        "output": str(output),
        "runs": int(ds.sizes["run"]),
        "usable": int(usable.sum()),
        "phases": dict(sorted(phases.items())),
        "batches": [{"n_prompts": p, "n_rollouts": r, "total_batch": b} for p, r, b in pairs],
        "kind": "curves" if curves else "crossings",
        "metric": str(ds.attrs["metric"]),
        "metrics": [str(name) for name in ds["metric"].values] if curves else [],
        "evaluations": int(ds["accuracy" if curves else "steps_upper"].notnull().sum()),
        "left_out": {
            str(n): str(r) for n, r, u in zip(names, remarks, usable, strict=True) if not u
        },
        "remarks": {
            str(n): str(r) for n, r, u in zip(names, remarks, usable, strict=True) if u and r
        },
        "notes": notes_of(ds),
        "next": shlex.join(
            ["python", "-m", "cbsbayes.fit", str(output), "-o", str(output.parent / "fit")]
        ),
    }


def _lines(summary: dict[str, Any]) -> list[str]:
    """Return the summary as lines to read."""
    known = {phase or "no phase": n for phase, n in summary["phases"].items()}
    lines = [
        f"{summary['output']}: {summary['runs']} runs, {summary['usable']} to be fitted, "
        f"{summary['evaluations']} {_WHAT[summary['kind']]}",
        "  phases   " + ", ".join(f"{phase} ({n})" for phase, n in known.items()),
        "  batches  " + _batches(summary["batches"]),
    ]
    if summary["kind"] == "curves":
        others = [name for name in summary["metrics"] if name != summary["metric"]]
        also = f" (also there: {', '.join(others)})" if others else ""
        lines.append(f"  metric   {summary['metric']}{also}")
    left_out = [f"{run}: {why}" for run, why in summary["left_out"].items()]
    remarks = [f"{run}: {why}" for run, why in summary["remarks"].items()]
    lines += _section("kept but not fitted", left_out)
    lines += _section("remarks", remarks)
    lines += _section("notes", summary["notes"])
    return [one_line(line) for line in [*lines, f"next: {summary['next']}"]]


_WHAT = {"curves": "evaluations", "crossings": "crossings"}


def _batches(batches: list[dict[str, Any]]) -> str:
    ranges = []
    for name in ("n_prompts", "n_rollouts", "total_batch"):
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
