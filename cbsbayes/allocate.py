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

from cbsbayes._command import exit_status, print_result, run_main
from cbsbayes.errors import CBSDataError

__all__ = ["main"]

_TIMES = ("gpus", "price", "gpu_hours", "money", "deadline")  # options that ask for times
_NOT_ASKED = ("fit", "output", "json", "quiet", "command")  # say nothing of the decision


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_main("allocate", _run, argv)


def _run(options: argparse.Namespace) -> int:
    from cbsbayes.decisions.batches import find_fits, one_threshold
    from cbsbayes.decisions.decision import decide
    from cbsbayes.decisions.front import Target
    from cbsbayes.decisions.time_to_target import Budget, answer_times
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.allocate import allocate_page
    from cbsbayes.report.facts import Facts
    from cbsbayes.report.page import write_page
    from cbsbayes.sweep.output_folder import output_folder

    asked = {name: value for name, value in vars(options).items()
             if value not in (None, False) and name not in _NOT_ASKED}
    with output_folder(options.output, "cbsbayes.allocate") as folder:
        paths = find_fits([options.fit])
        if len(paths) > 1:
            raise CBSDataError(
                f"{options.fit} holds the fits of {len(paths)} groups, which are never pooled; "
                f"give one of them: {', '.join(str(p.parent) for p in paths)}")
        fit, kind = Fit.load(paths[0]), "samples" if options.target_updates is None else "updates"
        most = getattr(options, f"target_{kind}")  # a probability is refused in any case:
        target = Target(kind, 1.0 if most is None else most, options.probability)
        cost_ratio = _cost_ratio(options)
        budget = Budget(options.samples, options.gpu_hours, options.money, options.deadline,
                        tuple(options.gpus or ()), options.price)
        timed = answer_times(
            fit, budget, threshold=one_threshold(fit, options.threshold),
            probability=options.probability) if {"clock", *_TIMES} & set(asked) else None
        decision = decide(fit, batch=options.batch, threshold=options.threshold,
                          target=None if most is None else target, budget=budget,
                          cost_ratio=cost_ratio, left_out=options.check,
                          more_updates=None if options.schedule is None else options.schedule / 100)
        decision.tables.update(timed.tables if timed else {})
        page = allocate_page(Facts(fit, decision.threshold), decision, timed, folder,
                             {"command": options.command, "asked": asked})
        write_page(page, folder, decision.tables)
    record = {
        "group": fit.group, "law": fit.law.name, "total_batch": decision.batch.total,
        "total_batch_reason": decision.batch.reason, "threshold": decision.threshold,
        "sampling_passed": fit.verdict["sampling"]["passed"], "sentences": page.answer,
        "notes": page.cautions,
        "tables": {name: json.loads(table.to_json(orient="records"))
                   for name, table in decision.tables.items()}}
    print_result(options, record, page.asked, page.answer, page.cautions,
                 [table for section in page.sections for table in section.tables.values()])
    return exit_status([fit])


def _cost_ratio(options: argparse.Namespace) -> float | None:
    from cbsbayes.decisions.batches import positive

    if options.prompt_cost is None and options.rollout_cost is None:
        return None
    if options.prompt_cost is None or options.rollout_cost is None:
        raise CBSDataError("--prompt-cost and --rollout-cost go together; valid: both, in the same "
                           "unit (only their ratio counts)")
    positive("--prompt-cost", options.prompt_cost)
    positive("--rollout-cost", options.rollout_cost)
    return options.prompt_cost / options.rollout_cost


if __name__ == "__main__":
    sys.exit(main())
