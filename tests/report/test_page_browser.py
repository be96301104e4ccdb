"""The page in a real browser: no errors, nothing asked of the network, no sideways scrolling.

Each check is first shown to fail on a page that has the fault.
"""

import io
import os
from urllib.parse import unquote_to_bytes

import pytest
from chromium import Chromium, find_chromium
from matplotlib.image import imread
from page_fixture import stand_in_page, svg

from cbsbayes.report.page import PageFigure, render_index, write_page

pytestmark = pytest.mark.browser
LONG = "cbs_p1_" + "verylongmodelname" * 12 + "_np64_n8"


@pytest.fixture(scope="module")
def browser():
    binary = find_chromium()
    if binary is None:
        if "CI" in os.environ:
            pytest.fail("no Chromium: the tests of the page must not be left out here")
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with Chromium(binary) as running:
        yield running


@pytest.fixture(scope="module")
def page(written):
    """The page of a fit."""
    return written / "index.html"


@pytest.fixture(scope="module")
def long_page(tmp_path_factory):
    """A page whose every text is one long word."""
    return write_page(stand_in_page(LONG, map=PageFigure("map", LONG, LONG, svg())),
                      tmp_path_factory.mktemp("long"))


def faulty(tmp_path, body):
    path = tmp_path / "faulty.html"
    path.write_text(f"<!DOCTYPE html><html><head><link rel=icon href='data:,'>"
                    "<meta name=viewport content='width=device-width, initial-scale=1'></head>"
                    f"<body>{body}</body></html>", encoding="utf-8")
    return path


@pytest.mark.parametrize(("fault", "body"), [
    *(("error", body) for body in [
        "<script>console.error('x')</script>", "<script>throw new Error('x')</script>",
        "<script>no_such()</script>", "<img src='http://127.0.0.1:9/x.png'>",
        "<meta http-equiv='Content-Security-Policy' content=\"style-src 'none'\">"
        "<style>p{}</style>"]),
    *(("request", body) for body in [
        "<img src='http://127.0.0.1:9/x.png'>", "<img src='beside.png'>",
        "<style>body{background:url(https://127.0.0.1:9/x.png)}</style>",
        "<link rel=stylesheet href='http://127.0.0.1:9/x.css'>",
        "<iframe src='http://127.0.0.1:9/'></iframe>"]),
    *(("overflow", body) for body in [
        "<table><tr><td style='min-width:500px'>x</td></tr></table>", f"<p>{LONG}</p>",
        "<div style='overflow-x:hidden'><p style='width:900px'>cut off</p></div>"])])
def test_faults_of_a_page_are_seen(browser, tmp_path, fault, body):
    path = faulty(tmp_path, body)
    seen = browser.visit(path, width=360)
    assert {"error": seen.errors, "request": seen.outside(path.as_uri()),
            "overflow": seen.content_width > seen.width or seen.overflowing}[fault]


def test_a_sound_page_passes_all_checks(browser, tmp_path):
    path = faulty(tmp_path, "<p>all is well</p>")
    seen = browser.visit(path, width=360)
    assert (seen.errors, seen.outside(path.as_uri()), seen.overflowing) == ([], [], [])
    assert seen.content_width == seen.width == 360
    assert seen.requests


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 768, 1200])
@pytest.mark.parametrize("which", ["page", "long_page"])
def test_the_page_opens_without_faults(browser, request, which, width, dark):
    path = request.getfixturevalue(which)
    seen = browser.visit(path, width=width, dark=dark)
    assert seen.errors == []
    assert seen.outside(path.as_uri()) == []
    assert seen.overflowing == []
    assert seen.content_width == seen.width == width


def test_the_style_sheet_is_applied(browser, page):
    light = browser.visit(page, width=400, picture=True).picture
    dark = browser.visit(page, width=400, dark=True, picture=True).picture
    assert _corner(light).mean() > 0.9
    assert _corner(dark).mean() < 0.2


def test_the_page_prints_on_a_dozen_sheets(browser, page):
    assert 4 <= browser.visit(page, printed=True).printed_pages <= 12


def test_a_choice_of_target_changes_the_map_and_rings_its_points_on_the_curves(browser, page):
    """The labels stand at every figure of curves; without a script they act on the whole page."""
    first, = (name for name in browser.visit(page).chosen if name.startswith("DIV"))
    other = "target-1" if first != "DIV target-1" else "target-2"
    chosen = browser.visit(page, click=f"#figure-gains label.{other}").chosen
    assert chosen == {f"DIV {other}", f"circle {other}"}


def _corner(picture):
    return imread(io.BytesIO(picture))[:5, :5, :3]


def test_the_index_opens_without_faults(browser, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(render_index([
        {"group": LONG, "href": "a/index.html", "headline": LONG, "level": "good"},
        {"group": "<b>x", "href": "b c/index.html", "headline": "It is 73 prompts.",
         "level": "failed"}]), encoding="utf-8")
    seen = browser.visit(path, width=360)
    assert (seen.errors, seen.outside(path.as_uri()), seen.overflowing) == ([], [], [])


def test_the_pictures_of_the_page_are_shown(browser, tmp_path):
    seen = browser.visit(write_page(stand_in_page("words"), tmp_path))
    assert svg() in [unquote_to_bytes(address.partition(",")[2]) for address in seen.decoded]


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
@pytest.mark.parametrize("report", ["verl_tiny", "tiny_grpo", "verl_lr"])
def test_card_verdict_and_map_stand_on_the_first_screen(browser, root, report, width, height):
    page = root / "reports" / report / "index.html"
    bottoms = browser.visit(page, width=width, height=height).bottoms
    assert {"answer", "verdict", "map"} == bottoms.keys()
    assert max(bottoms.values()) <= height
