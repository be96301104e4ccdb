"""What the command prints of a fit: text from the data is text, whatever is in it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from fitted import verdict_of
from rich.console import Console

from cbsbayes.posterior.fit import Fit
from cbsbayes.report.console import print_fit
from cbsbayes.report.facts import Facts
from cbsbayes.report.tables import answer_table


def printed(fit, source="sweep.nc", folder="out", width=400, **options):
    stream = io.StringIO()
    options = {"emoji": False, "highlight": False, **options}
    print_fit(Facts(fit), Path(source), Path(folder),
              Console(file=stream, width=width, **options))
    return stream.getvalue()


def changed(fit, **attrs):
    tree = fit.tree.copy()
    tree.attrs |= attrs
    return Fit(tree)


def test_card_verdict_table_and_places(fit):
    text = printed(fit)
    lines = text.splitlines()
    n = fit.crossings.sizes["run"]
    assert lines[0] == f"{fit.group}: {n} of {len(fit.runs)} runs from sweep.nc"
    assert lines[1].startswith(f"Run {Facts(fit).advice.batch}: ")
    assert "Sampling checks passed" in lines
    for sentence in fit.verdict["sentences"]:
        assert f"· {sentence}" in text
    assert lines[-1] == "Page, figures, tables and draws: out/index.html"
    for words in ("Doubling the prompts", "Prompt CBS", "B_rollout", "S_min"):
        assert words in text


@pytest.mark.parametrize("width", [50, 80, 120])
def test_no_number_is_cut_however_narrow_the_terminal(fit, width):
    text = printed(fit, width=width)
    assert max(map(len, text.splitlines()[:-1])) <= width
    table = answer_table(Facts(fit), thresholds=[Facts(fit).threshold])
    for row in table.rows:
        cell = f"{row[1].text} ({row[1].below})" if row[1].below else row[1].text
        assert cell.replace("\N{NO-BREAK SPACE}", " ") in text


def test_sampling_that_failed_is_said(fit):
    text = printed(changed(fit, verdict=json.dumps(verdict_of(failed=True))))
    assert "Sampling checks not passed" in text
    assert "  · Sampling not passed: the chains do not agree" in text


@pytest.mark.parametrize(("name", "shown"), [
    ("[red]qwen[/red] [link=x]y[/link]", "[red]qwen[/red] [link=x]y[/link]"),
    ("a\nfake: 3 runs", "a\\nfake: 3 runs"),
    ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
    ("<b>bold</b> :bug: \\[x]", "<b>bold</b> :bug: \\[x]"),
    ("back\rover", "back\\rover"),
])
def test_names_are_text(fit, name, shown):
    text = printed(changed(fit, group=name), force_terminal=True, color_system=None)
    assert text.splitlines()[0].startswith(f"{shown}: ")
    text = printed(fit, source=f"{name}.nc", folder=name)
    assert f"from {shown}.nc" in text.splitlines()[0]
    assert text.splitlines()[-1].startswith(f"Page, figures, tables and draws: {shown}")


def test_the_place_is_one_line_to_copy_however_narrow_the_terminal(fit):
    folder = "a folder/" + "x" * 90
    assert printed(fit, folder=folder, width=60).splitlines()[-1].endswith(f"{folder}/index.html")


def test_standard_output_unless_given(fit, capsys):
    print_fit(Facts(fit), Path("sweep.nc"), Path("out"))
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith(fit.group)
    assert err == ""
