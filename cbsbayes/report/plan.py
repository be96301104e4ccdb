"""Which run next: sentences, tables, the page of ``plan``, and planned runs as phase files.

A phase has one horizon and one list of seeds, so runs of one length and the same seeds share a
file. What is held constant is taken over from the phase that made the earlier runs, where it is
given; otherwise the head says what the sweep says, and the rest is the training side's controls.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.decisions.candidates import AXES
from cbsbayes.decisions.next_runs import Plan
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import versions
from cbsbayes.posterior.tidy import masked
from cbsbayes.report.allocate import SETTINGS
from cbsbayes.report.facts import Facts
from cbsbayes.report.folder import finite
from cbsbayes.report.page import Page, PageFigure, sections_of
from cbsbayes.report.tables import Table, laid_out, on_axes
from cbsbayes.report.text import (
    RATES,
    at_text,
    estimate,
    interval,
    paragraph,
    plain,
    quantity_label,
    rate_number,
    rate_text,
    sentences,
    spec,
)
from cbsbayes.sweep.files import write_whole

__all__ = ["Head", "command_lines", "head_of", "phase_files", "phase_lines", "plan_label",
           "plan_notes", "plan_page", "plan_record", "plan_sentences", "plan_tables", "read_like",
           "write_phases"]

_SHOWN = 12  # candidates in the terminal and that need no click; all are in plan.csv
_WEIGHT = 0.05  # of another law, from which it is named
_MARK = "# Planned by python -m cbsbayes.plan"
_HEAD = ("hardware", "model", "dataset", "algorithm")
_OWN = ("horizon", "seeds", "block", "title")
_RUNS = "p9"  # the phase in the runs' names, which read back only as p and digits
_LABEL = re.compile(r"[A-Za-z0-9_]+")


def plan_label(plan: Plan) -> str:
    """Return the quantity as text, e.g. ``Prompt CBS at 8 rollouts, target 0.9``."""
    quantity = plan.quantity
    at = f" at {at_text(quantity.at)}" if quantity.at else ""
    where = f", target {quantity.threshold:g}" if math.isfinite(quantity.threshold) else ""
    return f"{quantity_label(quantity.name)}{at}{where}"


def plan_sentences(plan: Plan) -> list[str]:
    """Return what comes next, and what it is for."""
    table, runs = plan.table, on_axes(plan.runs, one_axis=plan.tried.one_axis)
    resolved, best = table[table["resolved"]], table.iloc[0]
    near = (resolved["per_cost"] + 2 * resolved["per_cost_error"]
            >= best["per_cost"] - 2 * best["per_cost_error"]).sum()
    dear = not plan.runs.iloc[0][[*AXES, "updates"]].equals(best[[*AXES, "updates"]])
    row = _known_now(plan)
    ends, is_rate = (row["ci_lower"], row["ci_upper"]), plan.quantity.name in RATES
    return sentences(
        "plan", plan=plan, label=plan_label(plan), resolved=resolved, near=near, dear=dear,
        now=rate_text(row | {"status": "identified"}) if is_rate else estimate(row),
        spread=" to ".join(map(rate_number, ends)) if is_rate else interval(*ends),
        rate=rate_number,
        first=runs.iloc[0].to_dict(), last=runs.iloc[-1].to_dict(), exp=math.exp)


def _known_now(plan: Plan) -> dict[str, Any]:
    return dict(zip(("median", "ci_lower", "ci_upper"),
                    masked(plan.quantity.values, "identified", plan.ci_prob), strict=True))


def plan_notes(plan: Plan, facts: Facts) -> list[str]:
    """Return what stands between a plan and taking it at its word."""
    table, law = facts.fit.law_table, facts.fit.law.name
    weight = table.set_index("law")["weight"] if "weight" in table else pd.Series(dtype=float)
    others = weight[(weight.index != law) & (weight >= _WEIGHT)]
    return sentences(
        "plan_notes", plan=plan, resolved=plan.table[plan.table["resolved"]], law=law,
        weight=float(weight.get(law, np.nan)), others=others.to_dict())


def plan_tables(plan: Plan) -> dict[str, Table | None]:
    """Return the planned runs in their order, the candidates, and runs at a second rate.

    Candidates come best per price first, the first ones alone and, where there are more, all.
    Learning rates are left out where all candidates have the same.
    """
    best, one_axis = float(plan.table["per_cost"].max()), plan.tried.one_axis
    more = len(plan.table) > _SHOWN
    rate = rate_number if plan.table["learning_rate"].nunique() > 1 else ""

    def laid(name: str, rows: pd.DataFrame, rate: Callable[[float], str] | str) -> Table | None:
        return laid_out(
            name, on_axes(rows, one_axis=one_axis), one_axis=one_axis, unit=plan.cost.unit,
            power=0 if best <= 0 else -3 * math.floor(math.log10(best) / 3), shown=len(rows),
            candidates=len(plan.table), rate=rate)

    return {"planned": laid("planned", plan.runs, rate),
            "candidates": laid("candidates", plan.table.head(_SHOWN), rate),
            "all_candidates": laid("candidates", plan.table, rate) if more else None,
            "second_rate": laid("second_rate", plan.second_rate, rate_number)}


def plan_record(
    plan: Plan, facts: Facts, command: str, notes: list[str], lines: list[str], lines_from: str
) -> dict[str, Any]:
    """Return what ``plan.json`` holds; numbers that are not finite are None."""
    fit, quantity = facts.fit, plan.quantity
    records = [json.loads(table.to_json(orient="records", double_precision=12))
               for table in (plan.runs, plan.table, plan.second_rate)]
    return finite({
        "command": command, "group": fit.group, "law": fit.law.name,
        "data_digest": fit.settings["data_digest"],
        "sampling_passed": fit.verdict["sampling"]["passed"],
        "quantity": {"name": quantity.name, "at": quantity.at, "threshold": quantity.threshold,
                     "unit": quantity.unit, "status": quantity.status,
                     **_known_now(plan), "ci_prob": plan.ci_prob},
        "cost_unit": plan.cost.unit, "evaluated_every": plan.tried.every,
        "request": asdict(plan.request), "sentences": plan_sentences(plan),
        "notes": [*notes, *plan_notes(plan, facts)], "runs": records[0], "candidates": records[1],
        "second_rate": records[2], "lines": lines, "lines_from": lines_from})


def plan_page(
    plan: Plan, facts: Facts, record: Mapping[str, Any], figures: Sequence[PageFigure]
) -> Page:
    """Return what stands on the page of a plan.

    Parameters
    ----------
    plan : Plan
        The plan.
    facts : Facts
        Of the fit it is based on.
    record : mapping
        What ``plan.json`` holds.
    figures : sequence of PageFigure
        The one called ``plan``.
    """
    fit, layout = facts.fit, spec("pages")["plan"]
    passed = bool(fit.verdict["sampling"]["passed"])
    chosen, asked = sentences("plan_asked", plan=plan, facts=facts, label=plan_label(plan))
    return Page(
        kicker=layout["kicker"], title=f"Which run says most about: {plan_label(plan)}?",
        asked=asked, level=fit.verdict["level"], verdict=fit.verdict["title"],
        cautions=[*([] if passed else fit.verdict["sentences"]), *record["notes"]],
        answer=record["sentences"], definitions=layout["definitions"], laws=[fit.law],
        sections=sections_of("plan", plan_tables(plan), figures, {"start": [record["lines_from"]]},
                             {"start": record["lines"]}),
        paper=paragraph("decision_paper", facts=facts, lines=[chosen, *record["sentences"]]),
        made={"command": record["command"],
              "request": {name: "" if value is None else plain(value) for name, value in
                          record["request"].items()},
              "evaluated_every": plan.tried.every, "cost": plan.cost.how,
              "fit": {name: fit.settings.get(name, "") for name in SETTINGS},
              "versions": versions()},
        files=[*layout["files"], *(["second_rate.csv"] if len(plan.second_rate) else [])])


@dataclass(frozen=True)
class Head:
    """What planned runs share: labels, and sections as in a phase file.

    Attributes
    ----------
    labels : dict
        ``hardware, model, dataset, algorithm``.
    sections : dict
        Section to its keys.
    how : str
        Where it is from, in one sentence.
    """

    labels: dict[str, str]
    sections: dict[str, dict[str, Any]]
    how: str


def read_like(path: Path) -> Head:
    """Return the head of an existing phase file.

    Raises
    ------
    CBSDataError
        If it is not one.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CBSDataError(f"--like: {error.strerror}: {path}; give a phase file") from None
    except (ValueError, RecursionError) as error:
        raise CBSDataError(f"{path} cannot be read as TOML: {error}") from None
    missing = [key for key in _HEAD if not isinstance(table.get(key), str)]
    if missing:
        raise CBSDataError(f"{path} is no phase file: it does not say its {missing[0]}; give one "
                           "of training/phases/")
    sections = {key: dict(value) for key, value in table.items()
                if isinstance(value, Mapping) and key not in _OWN}
    return Head({key: table[key] for key in _HEAD}, sections,
                f"Everything else is as in {path.name}.")


def head_of(runs: xr.Dataset) -> Head:
    """Return what the runs of a sweep say of themselves; hardware is taken to be ``gpu``."""
    known = {name: np.unique(runs[name]).tolist()
             for name in (*_HEAD[1:], "learning_rate", "ppo_epochs")}
    labels = {key: known[key][0] if len(known[key]) == 1 else "" for key in _HEAD[1:]}
    rates, epochs = known["learning_rate"], known["ppo_epochs"][0]
    optimizer: dict[str, Any] = {}
    if len(rates) == 1 and math.isfinite(rates[0]):
        optimizer["learning_rate"] = rates[0]
    if epochs > 1:
        optimizer["ppo_epochs"] = epochs
    return Head({"hardware": "gpu", **labels}, {"optimizer": optimizer} if optimizer else {},
                "Hardware gpu and the controls of training/controls.toml are assumed; give "
                "--like PHASE_FILE to take over those of the earlier runs.")


def phase_files(planned: pd.DataFrame, head: Head, every: float, name: str) -> dict[str, str]:
    """Return the phases of planned runs by name, in the order in which they are planned.

    Parameters
    ----------
    planned : pandas.DataFrame
        Columns ``n_prompts, n_rollouts, learning_rate, updates, seed``, in order; none give no
        phase.
    head : Head
        What they share.
    every : float
        Updates between evaluations.
    name : str
        Of the phase; numbered where there are several.

    Raises
    ------
    CBSDataError
        If the name is no label, or a batch is not a whole number.
    """
    if not _LABEL.fullmatch(name):
        raise CBSDataError(f"the phase is called {name!r}; valid: letters, digits and _")
    whole = ["updates", "n_prompts", "n_rollouts", "seed"]
    for key, values in planned[whole].items():
        broken = values[values % 1 != 0]
        if len(broken):
            raise CBSDataError(f"{key} is {broken.iloc[0]:g}, which no training run can have; "
                               "valid: whole numbers")
    runs = planned.astype(dict.fromkeys(whole, int))
    seeds = runs.groupby(["updates", *AXES], sort=False, dropna=False)["seed"]
    shared = seeds.agg(tuple).reset_index().groupby(["updates", "seed"], sort=False)
    names = [name] if len(shared) == 1 else [f"{name}_{k}" for k in range(1, len(shared) + 1)]
    return {label: _phase(head, part, every)
            for label, (_, part) in zip(names, shared, strict=True)}


def _phase(head: Head, batches: pd.DataFrame, every: float) -> str:
    """Return the text of the phase file of batches with the same updates and seeds."""
    prompts, rollouts = (batches[name].tolist() for name in ("n_prompts", "n_rollouts"))
    updates, seeds = int(batches["updates"].iloc[0]), list(batches["seed"].iloc[0])
    runs = ", ".join(f"{p} × {g}" for p, g in zip(prompts, rollouts, strict=True))
    sections = {key: dict(value) for key, value in head.sections.items()}
    sections.setdefault("validation", {})["every_updates"] = max(1, round(every))
    block: dict[str, Any] = {"phase": _RUNS, "combine": "pair", "n_prompts": prompts,
                             "n_rollouts": rollouts}
    rates = batches["learning_rate"].tolist()
    if set(rates) != {sections.get("optimizer", {}).get("learning_rate")} and all(map(
            math.isfinite, rates)):
        block["learning_rate"] = rates
    sections |= {"horizon": {"updates": updates, "samples": 0}, "seeds": {"replicates": seeds},
                 "[block]": block}
    top = {"title": f"planned: {runs}, {updates} updates", **head.labels}
    lines = [_MARK, *(f"{key} = {_toml(value)}" for key, value in top.items())]
    for section, keys in sections.items():
        lines += ["", f"[{section}]",
                  *(f"{key if key.isidentifier() else json.dumps(key)} = {_toml(value)}"
                    for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def write_phases(phases: Mapping[str, str], folder: Path) -> list[Path]:
    """Write phase files into a folder; only files planned before are replaced.

    Raises
    ------
    CBSDataError
        If a file of another origin has the name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = {folder / f"{name}.toml": text for name, text in phases.items()}
    for place in places:
        if place.exists() and not place.read_text(encoding="utf-8").startswith(_MARK):
            raise CBSDataError(f"{place} exists and was not planned by this command; choose "
                               "another name with --write-phase")
    return [write_whole(place, text) for place, text in places.items()]


def phase_lines(
    plan: Plan, head: Head, folder: Path, place: Path | None, output: Path
) -> tuple[list[str], str]:
    """Write the phase files; return the lines that start the runs, and where the rest is from.

    Parameters
    ----------
    plan : Plan
        The plan.
    head : Head
        What its runs share.
    folder, output : Path
        Where the plan is written, and the folder's name when it is finished.
    place : Path or None
        The file asked for; by default ``phases/planned.toml`` in the folder, and then what forbids
        a phase file is said in place of the lines.

    Raises
    ------
    CBSDataError
        If no phase can be written where one was asked for.
    """
    target = place or output / "phases" / "planned.toml"
    if plan.tried.one_axis:
        return [], "The data give total batches only, so there are no lines for training.sweep."
    try:
        unknown = [name for name, label in head.labels.items() if not label]
        if unknown:
            raise CBSDataError(f"the sweep does not say the {' nor the '.join(unknown)} of its "
                               "runs, which a phase file has to; give --like PHASE_FILE")
        files = {name: text for runs, name in ((plan.runs, target.stem),
                                               (plan.second_rate, f"{target.stem}_second_rate"))
                 for name, text in phase_files(runs, head, plan.tried.every, name).items()}
    except CBSDataError as error:
        if place:
            raise
        return [], f"No lines for training.sweep: {error}."
    written = write_phases(files, target.parent if place else folder / "phases")
    return command_lines([target.with_name(path.name) for path in written]), head.how


def command_lines(places: Sequence[Path]) -> list[str]:
    """Return the lines that start the planned runs, from the repository's root.

    Parameters
    ----------
    places : sequence of Path
        The phase files, as written.
    """
    phases = Path("training/phases")  # named there; elsewhere by their path
    lines = [shlex.join(["python", "-m", "training.sweep",
                         place.stem if place.parent == phases else str(place), "--run"])
             for place in places]
    logs = " ".join(f"outputs/{place.stem}/logs" for place in places)
    return [*lines, f"python -m cbsbayes.ingest EARLIER_LOGS {logs} -o sweep.nc"]
