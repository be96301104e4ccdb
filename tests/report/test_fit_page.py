"""The page of a fit: the answer first, within its limits, every number from the tables."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path

import pytest
from fitted import changed, labelled, timed_fit, verdict_of
from page_reader import Page, sound_page
from rich.console import Console

from cbsbayes._command import command_parser
from cbsbayes.posterior.ceilings import OPTION
from cbsbayes.report.facts import Facts
from cbsbayes.report.fit_page import answer_table, fit_page, next_lines, print_fit
from cbsbayes.report.page import PageFigure, page_tables, render_page
from cbsbayes.report.text import paragraph

HOSTILE = ["<script>alert(1)</script>", "x\ny", "{{7*7}}", "\"><img src=x>"]


def words(facts):
    return Page(render_page(fit_page(facts, []))).words


def test_the_page_keeps_its_limits(written):
    source = (written / "index.html").read_text("utf-8")
    page = sound_page(source)
    assert len(page.words.split()) <= 6000
    assert page.elements.count("figure") <= 12
    assert len(source.encode()) <= 1_000_000


def test_the_page_reads_in_order(written, facts):
    text, place = Page((written / "index.html").read_text("utf-8")).words, 0
    for part in ("how sure are we?", f"Run {facts.advice.batch}: ", "Doubling ",
                 "Sampling checks passed", "Quantities by target", "Updates against the batch",
                 "Splitting a fixed batch", "Training curves",
                 "Does the model reproduce the crossings?", "Against least squares",
                 "What was left out", "an orphan tail", "targets and definitions", "Other laws",
                 "Time to the target", "Diagnostics", "Going on from here",
                 "One paragraph for a paper", "Definitions", "actor_rollout_ref.rollout.n",
                 "How this was made", "python -m cbsbayes.fit sweep.nc", "settings.draws"):
        found = text.find(part, place)
        assert found >= 0, f"{part!r} is missing or out of order"
        place = found


def test_every_table_has_a_row_and_no_number_is_a_power_of_ten(facts):
    tables = page_tables(fit_page(facts, []))
    assert {"answer", "spread", "overhead", "laws", "law_comparison", "comparison", "diagnostics",
            "convergence", "left_out", "made"} <= set(tables)
    for name, table in tables.items():
        assert table.rows, name
        for row in table.rows:
            assert not re.search(r"× ?10[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]|\d,\d{3} %", " ".join(
                f"{cell.text} {cell.below}" for cell in row)), name


def test_card_paragraph_and_table_give_one_number_for_one_thing(facts):
    page = fit_page(facts, [])
    gain = facts.gains[0]
    column = [column.label for column in page.sections[0].tables["answer"].columns].index(
        f"{facts.threshold:g}")
    row = page.sections[0].tables["answer"].rows[0]
    assert row[0].below == gain.doubled
    assert str(gain.estimate) == f"{row[column].text} ({row[column].below})"
    assert str(gain.estimate) in page.paper
    assert f"Doubling {gain.doubled} saves {gain.saved.value} % of updates" in " ".join(page.answer)
    assert str(facts.critical.estimate) in page.paper.replace(" prompts (", " (")


def test_the_paragraph_names_data_law_definitions_and_software(fit, facts):
    text = paragraph("paper", facts=facts)
    used = int(fit.runs["used"].sum())
    for part in (f"{used} of {len(fit.runs)} simulated runs", "prompts per update",
                 "rollouts per prompt", "S = S_min (1 +", "1,319 validation items",
                 "at which S is twice its limit S_min", "Zhang et al. 2024",
                 "McCandlish et al. (2018)", "still saves 10 % of the updates", "cbsbayes 0.1.0",
                 "4 chains of 200 draws", "credible intervals", "for the population of runs",
                 f"at accuracy {facts.threshold:g} on ", f"{fit.thresholds.max():g}"):
        assert part in text, part
    assert "\n" not in text


@pytest.mark.parametrize(("status", "said"), [
    ("lower_bound", "≥"), ("not_identified", "not identified by these batches")])
def test_what_is_not_settled_is_a_bound_or_said_to_be_open(fit, status, said):
    cbs = fit.cbs.copy()
    rows = cbs["quantity"].isin(["cbs_prompts", "cbs_samples"])
    cbs.loc[rows, ["status", "median", "ci_upper"]] = [status, float("nan"), float("nan")]
    text = paragraph("paper", facts=Facts(changed(fit, table_cbs=cbs)))
    sentence = next(part for part in text.split(". ") if part.startswith("The critical batch size"))
    assert said in sentence


def test_sampling_that_failed_is_said_first(fit):
    failed = Facts(changed(fit, verdict=verdict_of(failed=True)))
    for text in (words(failed), printed(failed)):
        assert "Sampling checks not passed" in text
        assert "Sampling not passed: the chains do not agree" in text
    assert "failed or not made" in words(failed)
    assert paragraph("paper", facts=failed).startswith("The sampler did not pass")


def test_one_axis_has_its_own_words(one_axis):
    text = words(Facts(one_axis))
    for part in ("No splits: ", "the law total", "samples per update",
                 "This is the form of McCandlish et al. (2018)."):
        assert part in text, part
    assert " -1 " not in text


def test_a_target_to_fall_below_is_no_accuracy(one_axis):
    assert Facts(labelled(one_axis, direction="decreasing")).target.startswith("target ")


def test_names_from_data_are_shown_as_text(fit, facts):
    name = " ".join(HOSTILE)
    other = labelled(fit, metric=name, title=name, notes=json.dumps([name]))
    other = changed(
        other, group=name, verdict={**fit.verdict, "sentences": [name]},
        table_runs=fit.runs.assign(run=name, name=name, reason=name, remark=name),
        settings={**fit.settings, "metric": "", name: {name: name}})
    figures = [PageFigure("steps_prompts", name, name, None, name)]
    read = sound_page(render_page(fit_page(Facts(other), figures, command=name)))
    assert set(read.elements) <= set(Page(render_page(fit_page(facts, []))).elements)
    assert read.words.count(name.replace("\n", r"\n")) > 10
    assert "49" not in read.words[:200]


def lines(facts, **more):
    found = next_lines(facts, Path("out dir/fit"), **more)
    return [line.split(" # ")[0] for line in found]


def test_the_lines_that_go_on_fit_what_the_fit_holds(fit, facts):
    assert lines(facts) == [
        "cbsbayes allocate 'out dir/fit' --check", "cbsbayes plan 'out dir/fit' --runs 2",
        "cbsbayes compare 'out dir/fit' OTHER_FIT",
        f"cbsbayes report 'out dir/fit' --target {fit.thresholds.max():g}"]
    timed = Facts(timed_fit("p1"))
    assert lines(timed)[:3] == [
        "cbsbayes allocate 'out dir/fit'",
        "cbsbayes allocate 'out dir/fit' --clock",
        "cbsbayes plan 'out dir/fit' --runs 2 --cost gpu-hours"]
    said = [*fit.verdict["sentences"], f"Small groups saturate; use {OPTION}."]
    warned = Facts(changed(fit, verdict={**fit.verdict, "sentences": said}))
    ceilings = ("cbsbayes fit 'my sweep.nc' -o 'out dir/fit_ceilings' --model trajectory "
                f"{OPTION}")
    assert ceilings in lines(warned, source=Path("my sweep.nc"))
    for line in [*lines(timed), *lines(facts), ceilings]:
        _, command, *arguments = shlex.split(line)
        command_parser(command).parse_args(arguments)


def printed(facts, source="sweep.nc", folder="out", width=400, **options):
    console = Console(file=io.StringIO(), width=width, emoji=False, highlight=False, **options)
    print_fit(facts, source, Path(folder) / "index.html", console)
    return console.file.getvalue()


def test_card_verdict_table_and_places(fit, facts):
    text = printed(facts)
    lines = text.splitlines()
    n = fit.crossings.sizes["run"]
    assert lines[0] == f"{fit.group}: {n} of {len(fit.runs)} runs from sweep.nc"
    assert lines[1].startswith(f"Run {facts.advice.batch}: ")
    assert "Sampling checks passed" in lines
    for sentence in fit.verdict["sentences"]:
        assert f"· {sentence}" in text
    assert lines[-1] == "Page, figures, tables and draws: out/index.html"
    for words in ("Doubling the prompts", "Prompt CBS", "B_rollout", "S_min"):
        assert words in text


@pytest.mark.parametrize("width", [50, 80, 120])
def test_no_number_is_cut_however_narrow_the_terminal(facts, width):
    text = printed(facts, width=width)
    assert max(map(len, text.splitlines()[:-1])) <= width
    table = answer_table(facts, thresholds=[facts.threshold])
    for row in table.rows:
        cell = f"{row[1].text} ({row[1].below})" if row[1].below else row[1].text
        assert cell.replace("\N{NO-BREAK SPACE}", " ") in text


@pytest.mark.parametrize(("name", "shown"), [
    ("[red]qwen[/red] [link=x]y[/link]", "[red]qwen[/red] [link=x]y[/link]"),
    ("a\nfake: 3 runs", "a\\nfake: 3 runs"),
    ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
    ("<b>bold</b> :bug: \\[x]", "<b>bold</b> :bug: \\[x]"),
    ("back\rover", "back\\rover"),
])
def test_names_are_printed_as_text(fit, facts, name, shown):
    text = printed(Facts(changed(fit, group=name)), force_terminal=True, color_system=None)
    assert text.splitlines()[0].startswith(f"{shown}: ")
    text = printed(facts, source=f"{name}.nc", folder=name)
    assert f"from {shown}.nc" in text.splitlines()[0]
    assert text.splitlines()[-1].startswith(f"Page, figures, tables and draws: {shown}")


def test_the_place_is_one_line_to_copy_however_narrow_the_terminal(facts):
    folder = "a folder/" + "x" * 90
    assert printed(facts, folder=folder, width=60).splitlines()[-1].endswith(f"{folder}/index.html")
