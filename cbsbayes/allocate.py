"""``python -m cbsbayes.allocate FIT``: which batch to run, and how sure that is.

python -m cbsbayes.allocate fit                              # splits of the sweep's own batch
python -m cbsbayes.allocate fit --batch 2048 --threshold 0.7
python -m cbsbayes.allocate fit --target-updates 300 --probability 0.9
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes._command import EXIT_OK, EXIT_SAMPLING, run_command
from cbsbayes.decisions.time_options import (
    add_clock_options,
    clock_asked,
    remove_clock_files,
    write_clock,
)
from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    from cbsbayes.decisions.decision import Decision
    from cbsbayes.decisions.time_answer import ClockAnswer
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.allocation import Allocation

__all__ = ["main"]

_TABLES = ("splits", "group_size", "targets", "front", "iso_batch")
_FIGURES = ("split_choice", "front")
_NOT_ASKED = ("fit", "output", "json", "quiet")  # say nothing of the decision


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    command = shlex.join(["python", "-m", "cbsbayes.allocate", *arguments])
    return run_command(lambda: _run(options, command), "cbsbayes.allocate")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cbsbayes.allocate",
        description="Say which split of a batch is best, which batch meets a target, and what the "
                    "trade of updates against samples is, each with its probability.",
        epilog="writes splits.csv, group_size.csv, front.csv, targets.csv (with a target), "
               "iso_batch.csv (where runs of the batch were made), figures and a page. Exit "
               "status: 0 good; 1 the input is at fault; 2 usage; 3 sampling checks not passed "
               "(everything is still written)")
    add = parser.add_argument
    add("fit", type=Path, metavar="FIT", help="a folder or fit.nc that cbsbayes.fit wrote")
    add("-o", "--output", type=Path, default=Path("outputs/allocate"), metavar="DIR",
        help="folder to write (default: %(default)s)")
    add("--batch", type=_whole, metavar="N",
        help="samples of one update to split (default: the batch split in most ways, else that "
             "of most runs)")
    add("--threshold", type=float, metavar="T",
        help="one fitted target accuracy (default: tables of all, sentences at the middle one)")
    aim = parser.add_mutually_exclusive_group()
    aim.add_argument("--target-updates", type=float, metavar="U",
                     help="find the smallest batch that takes at most so many updates")
    aim.add_argument("--target-samples", type=float, metavar="E",
                     help="find the batches that take at most so many samples")
    add("--probability", type=float, default=0.9, metavar="P",
        help="with which a target is to be met (default: %(default)s)")
    add("--prompt-cost", type=float, metavar="C", help="cost of a prompt (prefill)")
    add("--rollout-cost", type=float, metavar="C",
        help="cost of a rollout (decoding), in the same unit")
    add("--check", action="store_true",
        help="predict the runs of that batch by a fit that leaves them out, sampled anew; without "
             "it the fit that has seen them does")
    add_clock_options(parser)
    add("--json", action="store_true", help="print everything as JSON")
    add("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _run(options: argparse.Namespace, command: str) -> int:
    from cbsbayes.report.allocation import allocation
    from cbsbayes.report.folder import check_folder
    from cbsbayes.report.page import check_page_folder

    check_folder(options.output)
    check_page_folder(options.output)
    fit = _load(options.fit)
    decision = _answer(fit, options)
    clock = clock_asked(fit, options, decision.threshold)
    _write(fit, decision, options.output)
    remove_clock_files(options.output)
    told = allocation(decision, fit)
    if clock is not None:
        from cbsbayes.report.clock import with_clock

        decision.tables.update(write_clock(fit, clock, options.output))
        told = with_clock(told, clock)
    _write_page(fit, decision, told, clock, options, command)
    if options.json:
        print(json.dumps(_as_json(fit, decision, told), allow_nan=False))
    elif not options.quiet:
        from cbsbayes.report.console import print_answer

        head = (f"{fit.group}, law {fit.law.name}; batch: {decision.reason}; target "
                f"{decision.threshold:g}")
        print_answer(head, told.sentences, told.notes, told.tables, options.output / "index.html")
    return EXIT_OK if fit.verdict["sampling"]["passed"] else EXIT_SAMPLING


def _load(path: Path) -> Fit:
    """Return the fit; a folder of several groups is refused with their names."""
    from cbsbayes.posterior.fit import Fit

    several = sorted(path.glob("*/fit.nc")) if path.is_dir() else []
    if several and not (path / "fit.nc").exists():
        names = ", ".join(str(file.parent) for file in several)
        raise CBSDataError(f"{path} holds the fits of {len(several)} groups, which are never "
                           f"pooled; give one of them: {names}")
    return Fit.load(path)


def _answer(fit: Fit, options: argparse.Namespace) -> Decision:
    """Return the tables and reservations that the options ask for."""
    from cbsbayes.decisions.decision import decide
    from cbsbayes.decisions.group_size import check_costs
    from cbsbayes.decisions.targets import check_target

    return decide(
        fit, batch=options.batch, threshold=options.threshold,
        target=check_target(options.target_updates, options.target_samples, options.probability),
        costs=check_costs(options.prompt_cost, options.rollout_cost), left_out=options.check)


def _write(fit: Fit, decision: Decision, folder: Path) -> None:
    """Write the tables and figures; those of an earlier answer that this one lacks go."""
    from cbsbayes.report.folder import writing
    from cbsbayes.sweep.files import write_whole

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in _TABLES:
            if name in decision.tables:
                write_whole(folder / f"{name}.csv", decision.tables[name].to_csv(index=False))
            else:
                (folder / f"{name}.csv").unlink(missing_ok=True)
        _draw(fit, decision, folder)


def _write_page(
    fit: Fit, decision: Decision, told: Allocation, clock: ClockAnswer | str | None,
    options: argparse.Namespace, command: str,
) -> None:
    from cbsbayes.report.allocate_page import allocate_page
    from cbsbayes.report.folder import writing
    from cbsbayes.report.page import write_page

    asked = {name: value for name, value in vars(options).items()
             if value not in (None, False) and name not in _NOT_ASKED}
    with writing(options.output):
        page = allocate_page(fit, decision, told, clock, options.output, command, asked)
        write_page(page, options.output)


def _draw(fit: Fit, decision: Decision, folder: Path) -> None:
    from cbsbayes.plots import draw_figure, plot_front, plot_split_choice, write_figure
    from cbsbayes.plots.files import FORMATS

    for old in (folder / f"{name}.{kind}" for name in _FIGURES for kind in FORMATS):
        old.unlink(missing_ok=True)
    at = {"threshold": decision.threshold}
    write_figure(draw_figure(plot_front, fit, **at), folder / "front")
    if _settled(decision):
        write_figure(draw_figure(plot_split_choice, fit, total_batch=decision.total, **at),
                     folder / "split_choice")


def _settled(decision: Decision) -> bool:
    """Return whether a split of the batch can be called the best."""
    splits = decision.tables.get("splits")
    return splits is not None and bool(
        splits.loc[splits["threshold"] == decision.threshold, "chosen"].any())


def _as_json(fit: Fit, decision: Decision, told: Allocation) -> dict[str, Any]:
    tables = {name: json.loads(table.to_json(orient="records"))
              for name, table in decision.tables.items()}
    return {"group": fit.group, "law": fit.law.name, "total_batch": decision.total,
            "total_batch_reason": decision.reason, "threshold": decision.threshold,
            "sampling_passed": bool(fit.verdict["sampling"]["passed"]), "sentences": told.sentences,
            "notes": told.notes, "tables": tables}


if __name__ == "__main__":
    sys.exit(main())
