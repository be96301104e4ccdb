"""Write a dataset as verl's parquet: ``python -m data.prepare DATASET [--from PATH] -o DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cbsbayes._command import EXIT_OK, run_command
from cbsbayes.errors import CBSDataError
from data.prepare.raw import hub_rows, local_rows
from data.prepare.recipes import RECIPES, Problem, Recipe
from data.prepare.unique import Counts, choose, key_of, select
from data.prepare.verl_files import problem_keys, to_table, write_all

__all__ = ["main", "prepare"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data.prepare",
        description="Write a dataset as verl's parquet: one row per problem, none of a validation "
                    "set in the training file. The same raw files give the same bytes.")
    parser.add_argument("dataset", choices=list(RECIPES))
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                        help="folder for train.parquet, test.parquet and prepare.json")
    parser.add_argument("--from", dest="source", type=Path, metavar="PATH",
                        help="raw files (jsonl, json or parquet) instead of the hub")
    parser.add_argument("--validation", type=Path, nargs="+", default=[], metavar="FILE",
                        help="prepared test.parquet files whose problems must not be trained on")
    parser.add_argument("--derived-from", choices=("gsm8k", "math"),
                        help="of openmathinstruct2, only what derives from this set")
    parser.add_argument("--split", help="raw split to train on, e.g. train_1M of openmathinstruct2")
    parser.add_argument("--train-items", type=_positive, metavar="N",
                        help="keep N problems to train on, always the same")
    parser.add_argument("--test-items", type=_positive, metavar="N",
                        help="keep N problems to validate on, always the same")
    parser.add_argument("--revision", help="commit on the hub; default: the newest")
    parser.add_argument("--overwrite", action="store_true", help="replace files that differ")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        0; 1 where the input is at fault.
    """
    options = _parser().parse_args(argv)
    return run_command(lambda: prepare(options), "data.prepare")


def prepare(options: argparse.Namespace) -> int:
    """Prepare one dataset as the options say, and print what was counted.

    Raises
    ------
    CBSDataError
        If options and dataset do not fit, raw data are missing or damaged, or nothing is left.
    """
    recipe = RECIPES[options.dataset]
    _check(options, recipe)
    held_out = set().union(*(problem_keys(file) for file in options.validation))
    splits = sorted(recipe.splits.items())  # test before train: its problems are held out
    counts = {name: Counts() for name, _ in splits}
    tables = {}
    for name, raw in splits:
        found = _problems(options, recipe, raw if name == "test" else options.split or raw,
                          counts[name])
        if name == "test":  # kept as it is: scores on it must compare with others'
            rows = list(found)
            held_out |= {key_of(problem.text) for _, problem in rows}
            rows = choose(rows, options.test_items, counts[name])
        else:
            rows = choose(select(found, held_out, counts[name]), options.train_items, counts[name])
        if not rows:
            raise CBSDataError(f"nothing is left of {options.dataset}, {name} ({counts[name]}); "
                               "look at the options and at the raw files")
        counts[name].written = len(rows)
        tables[name] = to_table(rows, name)
    write_all(options.output, tables, _report(options, recipe, counts),
              overwrite=options.overwrite)
    for name in recipe.splits:
        sys.stdout.write(f"{options.output / name}.parquet: {counts[name]}\n")
    return EXIT_OK


def _check(options: argparse.Namespace, recipe: Recipe) -> None:
    name = options.dataset
    if "test" not in recipe.splits and not options.validation:
        raise CBSDataError(f"{name} has no validation set of its own; name the test.parquet files "
                           "of the sets you will validate on with --validation, so that their "
                           "problems are not trained on")
    if options.derived_from and name != "openmathinstruct2":
        raise CBSDataError(f"--derived-from is for openmathinstruct2; {name} has one source")
    for option, split in (("split", "train"), ("train_items", "train"), ("test_items", "test")):
        if getattr(options, option) and split not in recipe.splits:
            raise CBSDataError(f"--{option.replace('_', '-')} does not fit {name}: it has no "
                               f"{split} split")
    if options.source and options.revision:
        raise CBSDataError("--revision names a commit on the hub, --from reads local files; "
                           "give one of them")


def _problems(options: argparse.Namespace, recipe: Recipe, split: str,
              counts: Counts) -> Iterator[tuple[int, Problem]]:
    """Yield raw row numbers and problems that can be scored."""
    rows = (local_rows(options.source, recipe, split) if options.source
            else hub_rows(recipe, split, options.revision))
    for number, (_, row) in enumerate(rows):
        counts.read += 1
        if options.derived_from and not row["problem_source"].endswith(options.derived_from):
            counts.left_out += 1
            continue
        problem = recipe.convert(row)
        if problem is None or not problem.text:
            counts.without_answer += 1
        else:
            yield number, problem


def _report(options: argparse.Namespace, recipe: Recipe,
            counts: dict[str, Counts]) -> dict[str, Any]:
    source = options.source.name if options.source else recipe.hub
    return {"dataset": options.dataset, "source": source, "revision": options.revision,
            "split": options.split, "derived_from": options.derived_from,
            "held_out": [file.name for file in options.validation],
            "counts": {name: asdict(count) for name, count in counts.items()}}


if __name__ == "__main__":
    sys.exit(main())
