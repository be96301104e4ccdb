import base64
import hashlib
import re
from types import SimpleNamespace

import pandas as pd
import pytest
import xarray as xr
from page_fixture import EXTRA, png, stand_in_figures, stand_in_fit
from page_reader import Page

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.plots.gallery import all_figures
from cbsbayes.report.page import (
    SECTIONS,
    IndexEntry,
    PageFigure,
    render_index,
    render_page,
    section_of,
)

HOSTILE = ["<script>alert(1)</script>", "a/b", "x\ny", "{{7*7}}", "{% raw %}", "\"><img src=x>",
           "&lt;b&gt;", "javascript:alert(1)"]


@pytest.fixture(scope="module")
def page():
    return render_page(stand_in_fit(), stand_in_figures(), extra=EXTRA)


def test_the_page_is_one_file_that_asks_for_nothing(page):
    read = Page(page)
    assert not {"script", "iframe", "object", "embed", "form", "base"} & set(read.elements)
    assert all(address.startswith(("data:", "#")) for address in read.addresses)
    assert not re.search(r"@import|url\(", page)


def test_the_policy_forbids_everything_but_the_page_itself(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    sheet = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    assert policy.replace("&#39;", "'") == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'")


def test_links_within_the_page_lead_somewhere(page):
    read = Page(page)
    assert {a[1:] for a in read.addresses if a.startswith("#")} <= set(read.ids)
    assert len(read.ids) == len(set(read.ids))


def test_the_page_reads_in_order(page):
    text = Page(page).words
    parts = ["and how sure are we?", "This fit can be trusted", "No divergences",
             "The answer in words", "At a target accuracy of 0.7", "Quantities by threshold",
             "Doubling the prompts", "not identified", "under other laws", "two_axis_sqrt",
             "Updates to target against the batch", "Replicated crossings",
             "Prompt CBS against the threshold", "Splits", "Accuracy against updates",
             "No gradient noise was logged.", "No run logged its step time.",
             "Against least squares", "times as wide", "Laws compared", "−241.0", "Diagnostics",
             "Checks made", "posterior_predictive", "What was left out", "one rollout per prompt",
             "were merged at step 120", "A figure of no section", "Definitions",
             "actor_rollout_ref.rollout.n", "How this was made", "python -m cbsbayes.fit",
             "6.4.0", "settings.draws", "0123456789abcdef"]
    place = 0
    for part in parts:
        found = text.find(part, place)
        assert found >= 0, f"{part!r} is missing or out of order"
        place = found


def test_figures_are_inlined_as_they_are(page):
    inlined = [a for a in Page(page).addresses if a.startswith("data:image/png;base64,")]
    drawn = [f.png_bytes for f in stand_in_figures() if f.png_bytes]
    assert [base64.b64decode(a.partition(",")[2]) for a in inlined] == drawn


@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_data_are_shown_as_text(name):
    fit = stand_in_fit(group=name)
    fit.runs = fit.runs.assign(run=name, name=name, reason=name, remark=name)
    fit.settings["metric"] = name
    fit.settings[name] = {name: name}
    fit.sweep.attrs["metric"] = name
    fit.sweep.attrs["title"] = name
    fit.cbs = fit.cbs.assign(group=name, unit=name)
    fit.comparison = fit.comparison.assign(group=name)
    fit.law_table = fit.law_table.assign(warning=name)
    fit.others = {name: fit.others["two_axis"]}
    fit.verdict = {"trusted": False, "sentences": [name], "checks_made": {name: False}}
    figures = [PageFigure(name, name, name, png()), PageFigure("steps", name, "", None, name)]
    source = render_page(fit, figures, extra={"command": name, "diagnostics": {name: name}})
    plain = Page(render_page(stand_in_fit(), stand_in_figures(), extra=EXTRA))
    read = Page(source)
    assert set(read.elements) <= set(plain.elements)
    shown = name.replace("\n", r"\n")
    assert read.words.count(shown) > 15
    assert all(a.startswith(("data:", "#")) for a in read.addresses)
    assert "49" not in words_of_question(source)


def words_of_question(source):
    return re.search(r"<title>(.*?)</title>", source, re.S)[1]


def test_notes_are_shown_as_text():
    fit = stand_in_fit()
    fit.sweep.attrs["notes"] = '["<b>x</b>\\ny"]'
    assert r"<b>x</b>\ny" in Page(render_page(fit, [])).words


def test_an_untrusted_fit_is_marked():
    fit = stand_in_fit(verdict={"trusted": False, "sentences": ["12 divergences."],
                                "checks_made": {"divergences": False}})
    source = render_page(fit, [])
    assert 'class="verdict untrusted"' in source
    assert "✗ divergences : failed or not made" in Page(source).words


def test_a_sparse_fit_of_one_axis_still_makes_a_page():
    fit = stand_in_fit(others={}, law=get_law("total"))
    scale = fit.cbs.query("quantity == 'S_min'")
    fit.cbs = pd.concat([scale.assign(quantity="B_noise", unit="samples"), scale])
    fit.comparison = fit.comparison.query("axis == 'total'").iloc[:0]
    fit.law_table = fit.law_table.iloc[:0]
    fit.runs = fit.runs.assign(n_prompts=-1, n_rollouts=-1, seed=-1, used=True)
    fit.sweep.attrs = {}
    text = Page(render_page(fit, [])).words
    assert "No other exponent was fitted beside the law total, whose own exponent is 1." in text
    assert "No other law was fitted" in text
    assert "No figure was made for this part" in text
    assert "-1" not in text


def test_a_fit_without_quantities_is_refused():
    fit = stand_in_fit()
    fit.cbs = fit.cbs.iloc[:0]
    with pytest.raises(CBSDataError, match="no quantities"):
        render_page(fit, [])


def test_the_page_is_written_whole(tmp_path):
    path = tmp_path / "index.html"
    source = render_page(stand_in_fit(), [], path=path)
    assert path.read_text(encoding="utf-8") == source
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]
    with pytest.raises(CBSDataError, match=r"the folder .* does not exist"):
        render_page(stand_in_fit(), [], path=tmp_path / "no" / "index.html")


def test_every_figure_of_the_gallery_has_its_section():
    runs = xr.Dataset(coords={"run": ["r"], "phase": ("run", ["p1"])})
    runs = runs.assign_coords({name: ("run", [8.0]) for name in (
        "n_prompts", "n_rollouts", "total_batch", "usable", "seed", "updates_per_step")})
    slugs = [item.slug for item in all_figures(SimpleNamespace(sweep=runs, crossings=runs))]
    known = [slug for section in SECTIONS.values() for slug in section]
    assert len(known) == len(set(known))
    assert [s for s in slugs if section_of(s) == "others"] == []
    assert {k for k in known if not any(s.startswith(k) for s in slugs)} == set()
    assert section_of("cbsx") == section_of("") == "others"


def test_the_index_lists_every_group(tmp_path):
    path = tmp_path / "index.html"
    entries = [IndexEntry("qwen · gsm8k", "qwen-gsm8k/index.html", "It is 73 prompts.", True),
               *(IndexEntry(name, name, name, False) for name in HOSTILE)]
    source = render_index(entries, path)
    read = Page(source)
    assert path.read_text(encoding="utf-8") == source
    links = [a for a in read.addresses if not a.startswith("data:")]
    assert links[0] == "./qwen-gsm8k/index.html"
    assert all(link.startswith("./") for link in links)
    assert "9 groups." in read.words
    assert "<script>alert(1)</script>" in read.words
    assert "No group was fitted." in Page(render_index([])).words


def test_figures_may_be_drawn_last():
    assert render_page(stand_in_fit(), stand_in_figures, extra=EXTRA) == render_page(
        stand_in_fit(), stand_in_figures(), extra=EXTRA)
