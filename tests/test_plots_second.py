"""A second process draws the same bytes, and whatever becomes of it every figure is there."""

from __future__ import annotations

import io
import json

import pytest
from fitted import few_figures, run

from cbsbayes.plots.gallery import all_figures
from cbsbayes.plots.second import SecondProcess, draw_all, drawing, second_process, serve


@pytest.fixture(scope="module")
def alone(fit, written, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    with few_figures(6):
        return folder, draw_all(fit, folder, saved=written / "fit.nc")


@pytest.fixture
def second():
    process = SecondProcess()
    yield process
    process.close()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def slugs(drawn):
    return [(item.slug, reason) for item, reason in drawn]


def test_two_processes_draw_what_one_draws(fit, written, alone, second, tmp_path):
    with few_figures(6):
        both = draw_all(fit, tmp_path, second, saved=written / "fit.nc")
    assert slugs(both) == slugs(alone[1])
    assert contents(tmp_path) == contents(alone[0])


def test_the_second_process_does_draw(written, second, tmp_path):
    assert second._ask({"saved": str(written / "fit.nc"), "folder": str(tmp_path)}) == ""
    assert second._ask({"slug": "laws"}) == ""
    assert contents(tmp_path) == {name: (written / "figures" / name).read_bytes()
                                  for name in ("laws.png", "laws.pdf")}


def test_a_figure_that_cannot_be_has_its_reason_from_either_process(fit, written, second, tmp_path):
    item = next(item for item in all_figures(fit) if item.slug == "gradient_noise")
    second._ask({"saved": str(written / "fit.nc"), "folder": str(tmp_path)})
    with pytest.raises(ValueError, match="noise") as error:
        item.draw()
    assert second._ask({"slug": item.slug}) == str(error.value)


@pytest.mark.parametrize("when", ["before", "while"])
def test_all_is_drawn_where_the_second_process_dies(fit, written, alone, second, tmp_path, when):
    if when == "before":
        second._process.kill()
        saved = written / "fit.nc"
    else:
        saved = tmp_path / "none.nc"  # it ends with an error when it reads the fit
    out = tmp_path / "out"
    out.mkdir()
    with few_figures(6):
        both = draw_all(fit, out, second, saved=saved)
    assert slugs(both) == slugs(alone[1])
    assert contents(out) == contents(alone[0])


def test_none_is_begun_once_the_caller_has_given_up(fit, written, second, tmp_path):
    with (pytest.raises(RuntimeError, match="gave up"),
          drawing(fit, tmp_path, second, saved=written / "fit.nc")):
        raise RuntimeError("gave up")
    assert len(contents(tmp_path)) <= 2  # the one it was at, as PNG and PDF


def test_it_ends_with_its_input():
    with second_process(cores=2) as process:
        pass
    assert process._process.returncode is not None


def test_one_core_draws_alone():
    with second_process(cores=1) as process:
        assert process is None


def test_serving_answers_a_line_with_a_line(written, tmp_path):
    asked = [{"saved": str(written / "fit.nc"), "folder": str(tmp_path)}, {"slug": "laws"}]
    answers = io.StringIO()
    serve(io.StringIO("".join(json.dumps(line) + "\n" for line in asked)), answers)
    assert answers.getvalue() == '""\n""\n'
    assert sorted(contents(tmp_path)) == ["laws.pdf", "laws.png"]


def test_timings_name_the_stages(sweep_file, tmp_path, capsys):
    assert run(sweep_file, "-o", tmp_path, "--timings", "--json") == 0
    timings = json.loads(capsys.readouterr().out)[-1]
    stages = [row["stage"] for row in timings["timings"]]
    assert stages[:3] == ["importing", "reading", "sampling total"]
    assert stages[-2:] == ["drawing figures", "writing the page"]
    assert all(row["seconds"] >= 0 for row in timings["timings"])
    assert timings["peak_memory_mib"] > 10


def test_timings_are_printed_where_nothing_else_is(sweep_file, tmp_path, capsys):
    assert run(sweep_file, "-o", tmp_path, "--timings", "--quiet") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0].split() == ["seconds", "CPU", "stage"]
    assert "sampling total" in out
    assert "all stages" in out
