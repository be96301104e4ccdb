"""The figures of a fit: a dozen for the page, all with texts, as files that anyone can read."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from cbsbayes import plots
from cbsbayes.decisions.batches import middle_threshold
from cbsbayes.errors import CBSDataError
from cbsbayes.plots.style import LogTicks, ordered_colours, plain_number, plain_text, short_text


def drawn(items):
    """Draw figures; return them and the reasons of those that there are none of, by slug."""
    figures, reasons = {}, {}
    for item in items:
        try:
            figures[item.slug] = item.draw()
        except CBSDataError as reason:
            reasons[item.slug] = str(reason)
    return figures, reasons


def test_the_page_has_a_dozen_figures_and_the_gallery_those_and_more(fit):
    page = list(plots.page_figures(fit))
    everything = list(plots.all_figures(fit))
    assert [item.slug for item in everything[:len(page)]] == [item.slug for item in page]
    maps = [f"map_at_{t:g}" for t in sorted(fit.thresholds) if t != middle_threshold(fit)]
    assert [item.slug for item in page[12:]] == maps
    assert page[0].slug == "map"
    assert len({item.slug for item in everything}) == len(everything) > 18
    assert all(re.fullmatch(r"[a-z0-9_.-]+", item.slug) for item in everything)
    assert all(item.title and item.caption and "{" not in item.title for item in everything)


def test_every_figure_is_drawn_or_has_a_reason_and_pyplot_knows_none(timed):
    before, settings = pyplot.get_fignums(), dict(mpl.rcParams)
    figures, reasons = drawn(plots.all_figures(timed, advice=(32, 8), total_batch=2048))
    assert all(isinstance(figure, Figure) for figure in figures.values())
    assert set(reasons) == {"noise_against_fit", "gradient_noise"}
    assert pyplot.get_fignums() == before
    assert dict(mpl.rcParams) == settings


def test_one_axis_data_has_figures_along_the_total(one_axis):
    figures, reasons = drawn(plots.page_figures(one_axis))
    assert {"gains", "steps_total", "front", "crossing_check", "cbs"} <= set(figures)
    assert {"map", "split_choice", "clock_map"} <= set(reasons)


@pytest.fixture
def curve(fit):
    return plots.draw_figure(plots.plot_gains, fit, axis="prompts")


def test_an_svg_is_the_same_each_time_has_text_and_follows_a_dark_page(fit, curve):
    svg = plots.figure_bytes(curve).decode()
    again = plots.draw_figure(plots.plot_gains, fit, axis="prompts")
    assert plots.figure_bytes(again).decode() == svg
    root = ElementTree.fromstring(svg)
    said = [part.text for part in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"What doubling prompts buys", f"≥ {fit.thresholds[-1]:g}", "0.5"} <= set(said)
    assert "prefers-color-scheme: dark" in svg
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>|<metadata>.*</metadata>', "",
                                svg, flags=re.DOTALL)


def test_files_are_written_whole_in_the_formats_asked_for(curve, tmp_path):
    plots.write_figure(curve, tmp_path / "gains.all")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gains.all.pdf", "gains.all.svg"]
    assert (tmp_path / "gains.all.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(("base", "low", "high", "expected"), [
    (2, 3.0, 300.0, [4, 8, 16, 32, 64, 128, 256]), (2, 16.0, 24.0, [16, 20, 24]),
    (10, 9.0, 300.0, [10, 20, 50, 100, 200]), (10, 100.0, 4e6, [100, 1e3, 1e4, 1e5, 1e6]),
    (10, -1.0, 3.0, [])])
def test_ticks_are_plain_numbers(base, low, high, expected):
    ticks = LogTicks(base, 7).tick_values(low, high)
    assert set(np.round(expected, 6)) <= set(np.round(ticks, 6))
    assert len(ticks) <= 7


def test_numbers_and_texts_are_plain():
    numbers = [plain_number(x) for x in (0.25, 32, 1024, 2.1e6, float("inf"))]
    assert numbers == ["0.25", "32", "1,024", "2.1M", ""]
    assert plain_text("a\n$b$") == r"a\n\$b\$"
    assert short_text("x" * 50, 11) == "xxxxx…xxxxx"
    assert len(set(ordered_colours(6))) == 6


def test_the_package_loads_no_matplotlib_before_a_plot_is_asked_for():
    code = ("import sys; from cbsbayes import plots; assert 'matplotlib' not in sys.modules; "
            "plots.plot_steps; assert 'matplotlib' in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(dir(plots)) == set(plots.__all__)
    with pytest.raises(AttributeError, match="no attribute 'plot_nothing'"):
        plots.plot_nothing  # noqa: B018
