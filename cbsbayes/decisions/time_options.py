"""The options of the clock on a command line, and what they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    import pandas as pd

    from cbsbayes.decisions.time_answer import ClockAnswer
    from cbsbayes.posterior.fit import Fit

__all__ = ["add_clock_options", "clock_asked", "remove_clock_files", "write_clock"]

TABLES = ("clock", "times", "clock_choices")
FIGURES = ("clock_map", "time_cost", "step_time")
_FORMATS = ("svg", "pdf")
_OPTIONS = ("gpus", "price", "gpu_hours", "money", "deadline")


def add_clock_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--clock`` and what belongs to it."""
    add = parser.add_argument_group(
        "wall clock and cost", "from the step times of the fit's runs: writes clock.csv, times.csv "
        "and clock_choices.csv; each of these options turns the clock on").add_argument
    add("--clock", action="store_true", help="time to the target at every batch")
    add("--gpus", type=_counts, metavar="N[,N…]",
        help="GPUs the runs used; further counts are bounds, as if work divided perfectly")
    add("--price", type=float, metavar="X", help="price of a GPU-hour, in any currency")
    add("--gpu-hours", type=float, metavar="H",
        help="find the fastest batch that takes at most so many GPU-hours")
    add("--money", type=float, metavar="M", help="find the fastest batch that costs at most that")
    add("--deadline", type=float, metavar="HOURS",
        help="find the cheapest batch that is done in so many hours")


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number, or several like 8,16,32") from None


def clock_asked(
    fit: Fit, options: argparse.Namespace, threshold: float
) -> ClockAnswer | str | None:
    """Return the clock's answer at a threshold, or None where it was not asked for.

    Logs without step times leave everything else to be answered: then it is a sentence that says
    why there is no clock.

    Raises
    ------
    CBSDataError
        If an option is not possible.
    """
    if not options.clock and all(getattr(options, name) is None for name in _OPTIONS):
        return None
    from cbsbayes.decisions.step_times import clock_of
    from cbsbayes.decisions.time_answer import answer_clock
    from cbsbayes.decisions.time_to_target import Machine

    probability, machine = float(options.probability), Machine(options.gpus or (), options.price)
    if not 0 < probability < 1:
        raise CBSDataError(f"--probability is {probability:g}; valid: between 0 and 1")
    try:
        clock_of(fit)
    except CBSDataError as error:
        text = str(error)
        return f"{text[0].upper()}{text[1:]}."
    return answer_clock(fit, machine, threshold=threshold,
                        gpu_hours=options.gpu_hours, money=options.money,
                        deadline=options.deadline, probability=probability)


def remove_clock_files(folder: Path) -> None:
    """Remove what an earlier answer with a clock left in a folder."""
    for name in TABLES:
        (folder / f"{name}.csv").unlink(missing_ok=True)
    for name in FIGURES:
        for kind in _FORMATS:
            (folder / f"{name}.{kind}").unlink(missing_ok=True)


def write_clock(
    fit: Fit, answer: ClockAnswer | str, folder: Path
) -> dict[str, pd.DataFrame]:
    """Write the tables and figures of an answer, each whole or not at all; return the tables."""
    if isinstance(answer, str):
        return {}
    from cbsbayes.plots import (
        draw_figure,
        plot_clock_map,
        plot_step_time,
        plot_time_cost,
        write_figure,
    )
    from cbsbayes.sweep.files import write_whole

    for name, table in answer.tables.items():
        write_whole(folder / f"{name}.csv", table.to_csv(index=False))
    at = {"times": answer.times, "threshold": answer.threshold}
    write_figure(draw_figure(plot_time_cost, fit, **at), folder / "time_cost")
    write_figure(draw_figure(plot_step_time, fit), folder / "step_time")
    if not answer.sweep_clock.one_axis:
        write_figure(draw_figure(plot_clock_map, fit, **at), folder / "clock_map")
    return answer.tables
