"""A second process draws the same bytes, and whatever becomes of it every figure is there."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from fitted import SETTINGS, few_figures, quick_sampling, run

from cbsbayes.plots.gallery import all_figures
from cbsbayes.plots.second import SecondProcess, drawing, second_process, serve
from cbsbayes.posterior.fit_sweep import fit_sweep


@pytest.fixture
def second():
    process = SecondProcess()
    yield process
    process.close()


@pytest.fixture(scope="module")
def two_states(prompts_sweep):
    """A fit as it is given before other laws are sampled, and whole."""
    early = []
    with quick_sampling():
        whole = fit_sweep(prompts_sweep, sampler=SETTINGS, early=early.append)
    return early[0], whole


@pytest.fixture(scope="module")
def alone(fit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return folder, drawn(fit, folder)


def drawn(fit, folder, second=None, count=6):
    with few_figures(count), drawing(fit, folder, second) as finish:
        return slugs(finish())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def slugs(items):
    return [(item.slug, reason) for item, reason in items]


def test_two_processes_draw_what_one_draws(fit, alone, second, tmp_path):
    assert drawn(fit, tmp_path, second) == alone[1]
    assert contents(tmp_path) == contents(alone[0])


def test_what_is_drawn_early_is_what_the_whole_fit_gives(two_states, second, tmp_path):
    early, whole = two_states
    second.begin(early)
    (share,) = second.shares
    slugs_early = set(share.left) | set(share.reasons)
    share.wait()
    assert {"gains_total", "training_1_p1", "trace"} <= slugs_early == set(share.reasons)
    for item in all_figures(whole):
        if item.slug.startswith(("cbs_", "comparison_", "laws", "noise_against_fit")):
            assert item.slug not in slugs_early
    assert share.handed_over(tmp_path) == {
        item.slug: share.reasons[item.slug] for item in all_figures(whole)
        if item.slug in slugs_early}
    (tmp_path / "alone").mkdir()
    items = drawn(whole, tmp_path / "alone", count=None)
    assert dict(items).items() >= share.reasons.items()
    for name, content in contents(tmp_path / "alone").items():
        if name.partition(".")[0] in slugs_early:
            assert (tmp_path / name).read_bytes() == content, name


def test_the_whole_fit_tells_the_second_process_what_compares_laws(two_states, second, tmp_path):
    early, whole = two_states
    second.begin(early)
    second.go_on(whole)
    _, late = second.shares
    late.wait()
    assert late.reasons["laws"] == late.reasons["cbs_total"] == ""
    late.handed_over(tmp_path)
    (tmp_path / "alone").mkdir()
    drawn(whole, tmp_path / "alone", count=None)
    for name in ("laws.png", "cbs_total.pdf", "comparison_total.png"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


def test_a_figure_that_cannot_be_has_its_reason_from_either_process(fit, second, tmp_path):
    item = next(item for item in all_figures(fit) if item.slug == "gradient_noise")
    with pytest.raises(ValueError, match="noise") as error:
        item.draw()
    second.begin(fit)
    second.shares[0].wait()
    assert second.shares[0].reasons[item.slug] == str(error.value)


@pytest.mark.parametrize("when", ["before", "while", "no room"])
def test_all_is_drawn_where_the_second_process_fails(fit, alone, second, tmp_path, when):
    if when == "before":
        second._process.kill()
    elif when == "while":  # it ends with an error when it reads the fit
        second._ask({"slug": "laws"})
    else:
        second._folder.cleanup()
    assert drawn(fit, tmp_path, second) == alone[1]
    assert contents(tmp_path) == contents(alone[0])


def test_none_is_begun_once_the_caller_has_given_up(fit, second, tmp_path):
    with pytest.raises(RuntimeError, match="gave up"), drawing(fit, tmp_path, second):
        raise RuntimeError("gave up")
    assert second.shares == []
    assert contents(tmp_path) == {}


def test_another_fit_is_begun_only_after_the_one_before(two_states, fit, alone, second, tmp_path):
    second.begin(two_states[0])  # its group is then refused, say
    second.stop()
    assert drawn(fit, tmp_path, second) == alone[1]
    assert contents(tmp_path) == contents(alone[0])


def test_it_ends_with_its_input_and_leaves_nothing():
    with second_process(cores=2) as process:
        folder = Path(process._folder.name)
        assert folder.is_dir()
    assert process._process.returncode is not None
    assert not folder.exists()


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
