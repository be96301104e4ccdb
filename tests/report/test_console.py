"""What the command prints of a fit: text from the data is text, whatever is in it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from cbsbayes.posterior.fit import Fit
from cbsbayes.report.console import print_fit


def printed(fit, source="sweep.nc", folder="out", width=200, **options):
    stream = io.StringIO()
    options = {"emoji": False, "highlight": False, **options}
    print_fit(fit, Path(source), Path(folder), Console(file=stream, width=width, **options))
    return stream.getvalue()


def changed(fit, **attrs):
    tree = fit.tree.copy()
    tree.attrs |= attrs
    return Fit(tree)


def test_verdict_table_and_places(fit):
    text = printed(fit)
    lines = text.splitlines()
    n = fit.crossings.sizes["run"]
    assert lines[0] == f"{fit.group}: {n} runs of {len(fit.runs)} from sweep.nc"
    assert lines[1].startswith("Prompts and rollouts both vary")
    assert fit.law.formula in lines[1]
    for sentence in fit.verdict["sentences"]:
        assert f"· {sentence}" in text
    assert lines[-1] == "Page, figures, tables and draws: out/index.html"
    for words in ("Doubling the prompts", "Prompt CBS", "B_rollout", "S_min"):
        assert words in text


def test_an_untrusted_fit_says_so(fit):
    verdict = fit.verdict | {"trusted": False, "sentences": ["The chains do not agree."]}
    text = printed(changed(fit, verdict=json.dumps(verdict)))
    trusted = fit.verdict | {"trusted": True}
    assert text.splitlines()[2] != printed(
        changed(fit, verdict=json.dumps(trusted))).splitlines()[2]
    assert "  · The chains do not agree." in text


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
    print_fit(fit, Path("sweep.nc"), Path("out"))
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith(fit.group)
    assert err == ""
