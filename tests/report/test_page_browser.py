"""The page in a real browser: no errors, nothing asked of the network, no sideways scrolling.

Each check is first shown to fail on a page that has the fault.
"""

import base64
import io
import os

import pytest
from chromium import Chromium, find_chromium
from command_page_fixture import stand_in_page
from matplotlib.image import imread
from page_fixture import EXTRA, png, stand_in_figures, stand_in_fit

from cbsbayes.report.command_page import write_command_page
from cbsbayes.report.page import IndexEntry, render_index, render_page

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
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    render_page(stand_in_fit(), stand_in_figures(), path=path, extra=EXTRA)
    return path


@pytest.fixture(scope="module")
def long_page(tmp_path_factory):
    """A page whose every name is one long word."""
    fit = stand_in_fit(group=LONG)
    fit.runs = fit.runs.assign(run=LONG, reason=LONG)
    fit.sweep.attrs["metric"] = LONG
    fit.verdict["sentences"] = [LONG]
    path = tmp_path_factory.mktemp("page") / "index.html"
    render_page(fit, stand_in_figures(), path=path, extra={"command": LONG})
    return path


@pytest.fixture(scope="module")
def command_page(tmp_path_factory):
    """A command's page whose every text is one long word."""
    folder = tmp_path_factory.mktemp("command")
    return write_command_page(stand_in_page(LONG), folder)


def faulty(tmp_path, body):
    path = tmp_path / "faulty.html"
    path.write_text(f"<!DOCTYPE html><html><head><link rel=icon href='data:,'>"
                    "<meta name=viewport content='width=device-width, initial-scale=1'></head>"
                    f"<body>{body}</body></html>", encoding="utf-8")
    return path


@pytest.mark.parametrize("body", [
    "<script>console.error('x')</script>", "<script>throw new Error('x')</script>",
    "<script>no_such()</script>", "<img src='http://127.0.0.1:9/x.png'>",
    "<meta http-equiv='Content-Security-Policy' content=\"style-src 'none'\"><style>p{}</style>"])
def test_errors_of_a_faulty_page_are_seen(browser, tmp_path, body):
    assert browser.visit(faulty(tmp_path, body)).errors


@pytest.mark.parametrize("body", [
    "<img src='http://127.0.0.1:9/x.png'>", "<img src='beside.png'>",
    "<style>body{background:url(https://127.0.0.1:9/x.png)}</style>",
    "<link rel=stylesheet href='http://127.0.0.1:9/x.css'>",
    "<iframe src='http://127.0.0.1:9/'></iframe>"])
def test_requests_of_a_faulty_page_are_seen(browser, tmp_path, body):
    path = faulty(tmp_path, body)
    assert browser.visit(path).outside(path.as_uri())


@pytest.mark.parametrize("body", [
    "<table><tr><td style='min-width:500px'>x</td></tr></table>", f"<p>{LONG}</p>",
    "<div style='overflow-x:hidden'><p style='width:900px'>cut off</p></div>"])
def test_overflow_of_a_faulty_page_is_seen(browser, tmp_path, body):
    seen = browser.visit(faulty(tmp_path, body), width=360)
    assert seen.content_width > seen.width or seen.overflowing


def test_a_sound_page_passes_all_checks(browser, tmp_path):
    path = faulty(tmp_path, "<p>all is well</p>")
    seen = browser.visit(path, width=360)
    assert (seen.errors, seen.outside(path.as_uri()), seen.overflowing) == ([], [], [])
    assert seen.content_width == seen.width == 360
    assert seen.requests


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 768, 1200])
@pytest.mark.parametrize("which", ["page", "long_page", "command_page"])
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


def _corner(picture):
    return imread(io.BytesIO(picture))[:5, :5, :3]


def test_the_index_opens_without_faults(browser, tmp_path):
    path = tmp_path / "index.html"
    render_index([IndexEntry(LONG, "a/index.html", LONG, True),
                  IndexEntry("<b>x", "b c/index.html", "It is 73 prompts.", False)], path)
    seen = browser.visit(path, width=360)
    assert (seen.errors, seen.outside(path.as_uri()), seen.overflowing) == ([], [], [])


def test_the_pictures_of_the_page_are_shown(browser, tmp_path):
    path = tmp_path / "index.html"
    render_page(stand_in_fit(), [f for f in stand_in_figures() if f.slug == "odd_one"], path=path)
    assert png() in _images(browser, path)


def _images(browser, path):
    """Return the bytes of images that the browser could decode."""
    seen = browser.visit(path)
    return [base64.b64decode(a.partition(",")[2]) for a in seen.decoded]
