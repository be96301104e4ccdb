"""``python -m cbsbayes.allocate FIT``: which batch to run, and how sure that is.

python -m cbsbayes.allocate fit                              # splits of the sweep's own batch
python -m cbsbayes.allocate fit --batch 2048 --threshold 0.7
python -m cbsbayes.allocate fit --target-updates 300 --probability 0.9
python -m cbsbayes.allocate fit --samples 50000              # which batch reaches most with them
python -m cbsbayes.allocate fit --gpu-hours 40 --gpus 8      # the same of so many GPU-hours
python -m cbsbayes.allocate fit --schedule 5                 # a ramp, at most 5 % more updates
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cbsbayes._command import exit_status, print_result, run_main
from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    from cbsbayes.decisions.budget import Budget
    from cbsbayes.decisions.decision import Decision
    from cbsbayes.decisions.front import Target
    from cbsbayes.decisions.splits import Costs
    from cbsbayes.decisions.time_to_target import TimeAnswer
    from cbsbayes.posterior.fit import Fit

__all__ = ["main"]

_TIMES = ("gpus", "price", "gpu_hours", "money", "deadline")  # options that ask for times
_NOT_ASKED = ("fit", "output", "json", "quiet", "command")  # say nothing of the decision


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_main("allocate", _run, argv)


def _run(options: argparse.Namespace) -> int:
    from cbsbayes.decisions.batches import find_fits, one_threshold
    from cbsbayes.decisions.decision import decide
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.allocate import allocate_page
    from cbsbayes.report.facts import Facts
    from cbsbayes.report.page import write_page
    from cbsbayes.sweep.output_folder import output_folder

    with output_folder(options.output, "cbsbayes.allocate") as folder:
        paths = find_fits([options.fit])
        if len(paths) > 1:
            raise CBSDataError(
                f"{options.fit} holds the fits of {len(paths)} groups, which are never pooled; "
                f"give one of them: {', '.join(str(p.parent) for p in paths)}")
        fit = Fit.load(paths[0])
        target, costs = _target(options), _costs(options)
        budget = _budget(options)
        times = _times(fit, options, budget, one_threshold(fit, options.threshold))
        decision = decide(fit, batch=options.batch, threshold=options.threshold, target=target,
                          budget=budget, costs=costs, left_out=options.check,
                          more_updates=None if options.schedule is None else options.schedule / 100)
        decision.tables.update({} if isinstance(times, str) else times.tables)
        asked = {name: value for name, value in vars(options).items()
                 if value not in (None, False) and name not in _NOT_ASKED}
        page = allocate_page(Facts(fit, decision.threshold), decision, times, folder,
                             {"command": options.command, "asked": asked})
        write_page(page, folder, decision.tables)
    tables = [table for section in page.sections for table in section.tables.values()]
    print_result(options, _as_json(fit, decision, page.answer, page.cautions), page.asked,
                 page.answer, page.cautions, tables)
    return exit_status([fit])


def _target(options: argparse.Namespace) -> Target | None:
    from cbsbayes.decisions.front import Target

    asked = [(kind, value) for kind in ("updates", "samples")
             if (value := getattr(options, f"target_{kind}")) is not None]
    kind, value = (asked or [("updates", 1.0)])[0]
    target = Target(kind, value, options.probability)  # refuses a probability in any case
    return target if asked else None


def _costs(options: argparse.Namespace) -> Costs | None:
    from cbsbayes.decisions.splits import Costs

    prompt, rollout = options.prompt_cost, options.rollout_cost
    if prompt is None and rollout is None:
        return None
    if prompt is None or rollout is None:
        raise CBSDataError("--prompt-cost and --rollout-cost go together; valid: both, in the same "
                           "unit (only their ratio counts)")
    return Costs(prompt, rollout)


def _budget(options: argparse.Namespace) -> Budget:
    from cbsbayes.decisions.budget import Budget
    from cbsbayes.decisions.time_to_target import Limits, Machine

    return Budget(options.samples, Limits(options.gpu_hours, options.money, options.deadline),
                  Machine(tuple(options.gpus or ()), options.price))


def _times(
    fit: Fit, options: argparse.Namespace, budget: Budget, threshold: float
) -> TimeAnswer | str:
    """Return times to the target where they were asked for."""
    if not options.clock and all(getattr(options, name) is None for name in _TIMES):
        return ""
    from cbsbayes.decisions.time_to_target import answer_times

    return answer_times(fit, budget.machine, budget.limits, threshold=threshold,
                        probability=options.probability)


def _as_json(
    fit: Fit, decision: Decision, lines: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    tables = {name: json.loads(table.to_json(orient="records"))
              for name, table in decision.tables.items()}
    return {"group": fit.group, "law": fit.law.name, "total_batch": decision.batch.total,
            "total_batch_reason": decision.batch.reason, "threshold": decision.threshold,
            "sampling_passed": bool(fit.verdict["sampling"]["passed"]), "sentences": list(lines),
            "notes": list(notes), "tables": tables}


if __name__ == "__main__":
    sys.exit(main())
