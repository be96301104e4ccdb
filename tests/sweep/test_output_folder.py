"""Output folders: whole or as before, and nobody else's files are touched."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.output_folder import MANIFEST, growing_folder, named_files, output_folder

COMMAND = "cbsbayes.fit"


def write(target, command=COMMAND, **contents):
    with output_folder(target, command) as new:
        for name, content in contents.items():
            path = new / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)


def tree(folder):
    """Return everything in a folder, hidden files too, with its content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
            for path in folder.rglob("*")}


@pytest.fixture
def out(tmp_path):
    """A folder with an earlier output, its parents made by it."""
    write(tmp_path / "a" / "out", page="old", figures__one="old", figures__two="old")
    return tmp_path / "a" / "out"


def test_the_manifest_names_what_was_written_and_nothing_is_left_beside(out):
    assert sorted(tree(out)) == ["figures", "figures/one", "figures/two", MANIFEST, "page"]
    assert named_files(out) == ["figures/one", "figures/two", "page"]
    assert named_files(out / "figures") is None
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_earlier_output_goes_whole_and_what_the_user_added_stays(out):
    out.chmod(0o750)
    (out / "notes.txt").write_text("mine")
    (out / "figures" / "mine.pdf").write_text("mine")
    (out / "link").symlink_to("nowhere")
    inode = (out / "notes.txt").stat().st_ino
    (out / "figures" / "two").unlink()  # what the user removed is no fault
    write(out, page="new", tables__one="new")
    write(out, page="newer", tables__two="newer")
    assert {name: content for name, content in tree(out).items() if content} == {
        "page": b"newer", "tables/two": b"newer", "notes.txt": b"mine",
        "figures/mine.pdf": b"mine", MANIFEST: (out / MANIFEST).read_bytes()}
    assert (out / "link").readlink() == Path("nowhere")
    assert (out / "notes.txt").stat().st_ino == inode
    assert (out.stat().st_mode & 0o777) == 0o750


def test_a_link_to_a_folder_stays_a_link(out, tmp_path):
    (tmp_path / "link").symlink_to(out)
    write(tmp_path / "link", page="new")
    assert (tmp_path / "link").is_symlink()
    assert (out / "page").read_text() == "new"


@pytest.mark.parametrize(("change", "command", "message"), [
    (lambda out: (out / MANIFEST).unlink(), COMMAND,
     r"it holds what cbsbayes did not write \(.*\); empty it or give another"),
    (lambda out: (out / "figures" / "one").write_text("the user's"), COMMAND,
     "figures/one was changed after cbsbayes wrote it; move it away"),
    (lambda out: None, "cbsbayes.plan", "it holds what cbsbayes.fit wrote; give another folder"),
    (lambda out: (out / MANIFEST).write_text(
        '{"command": "cbsbayes.fit", "files": {"../../x": 1}}'), COMMAND,
     "manifest.json is damaged or not of cbsbayes"),
    (lambda out: (shutil.rmtree(out), out.write_text("mine")), COMMAND,
     "out is a file; give a folder")])
@pytest.mark.parametrize("use", [output_folder, growing_folder])
def test_what_is_not_ours_to_replace_is_refused_before_the_work(out, change, command, message, use):
    change(out)
    before = tree(out.parent)
    with pytest.raises(CBSDataError, match=message), use(out, command):
        pytest.fail("the work was begun")
    assert tree(out.parent) == before


def test_what_came_into_the_way_meanwhile_is_not_overwritten(out):
    def work():
        with output_folder(out, COMMAND) as new:
            (new / "notes").write_text("ours")
            (out / "notes").write_text("mine")

    with pytest.raises(CBSDataError, match="notes, which cbsbayes did not write, has the name"):
        work()
    assert (out / "notes").read_text() == "mine"
    assert (out / "page").read_text() == "old"


@pytest.mark.parametrize(("target", "message"), [
    ("a/out/page/fit", "page is a file; give a folder"), ("x" * 250, "File name too long"),
    ("/proc/fit", "cannot write into /proc/fit"), ("/", "root of a file system")])
def test_what_cannot_be_written_is_said_before_the_work(out, tmp_path, target, message):
    with (pytest.raises(CBSDataError, match=message),
          output_folder(tmp_path / target, COMMAND)):
        pytest.fail("the work was begun")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(),
                                   CBSDataError("no")])
def test_after_a_failure_all_is_as_before_made_parents_gone(out, error):
    before = tree(out.parent)

    def work(target):
        with output_folder(target, COMMAND) as new:
            (new / "page").write_text("half")
            raise error

    for target in (out, out.parent / "new" / "below" / "it"):
        with pytest.raises((CBSDataError, KeyboardInterrupt)):
            work(target)
    assert tree(out.parent) == before


def test_two_commands_cannot_write_one_folder_at_once(out):
    with output_folder(out, COMMAND):
        for use in (output_folder, growing_folder):
            with (pytest.raises(CBSDataError, match="another command is writing"),
                  use(out, COMMAND)):
                pytest.fail("the work was begun")
        write(out.parent / "another", page="at once")
    write(out, page="afterwards")


def test_a_folder_that_grows_keeps_its_files_and_knows_them(tmp_path):
    for k in range(3):
        with growing_folder(tmp_path / "out", COMMAND) as folder:
            assert named_files(folder) == []
            (folder / "page").write_text(f"{k}")
            (folder / f"{k}").write_text("one more")
        (tmp_path / "out" / f"mine {k}").write_text("mine")
    assert named_files(tmp_path / "out") == ["0", "1", "2", "page"]

    def interrupted():
        with growing_folder(tmp_path / "out", COMMAND) as folder:
            (folder / "page").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with growing_folder(tmp_path / "out", COMMAND):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


STAGES = ["writing", "before out.cbsbayes-old", "after out.cbsbayes-old", "after out"]


def work(target, where, stop):
    """Replace a folder and stop while the block writes, or before or after a renaming."""
    rename = Path.rename

    def stopping(path, to):
        if where == f"before {Path(to).name.lstrip('.')}":
            stop()
        rename(path, to)
        if where == f"after {Path(to).name.lstrip('.')}":
            stop()

    with mock.patch.object(Path, "rename", stopping), output_folder(target, COMMAND) as new:
        (new / "page").write_text("new")
        if where == "writing":
            stop()


def interrupt():
    raise KeyboardInterrupt


def assert_new(out):
    assert (out / "page").read_text() == "new"
    assert json.loads((out / MANIFEST).read_text())["files"].keys() == {"page"}
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "figures").exists()


@pytest.mark.parametrize("where", STAGES)
def test_interrupted_at_any_stage_the_folder_is_old_or_new_and_whole(out, where):
    (out / "notes.txt").write_text("mine")
    before = tree(out.parent)
    with pytest.raises(KeyboardInterrupt):
        work(out, where, interrupt)
    if where == "after out":
        assert_new(out)
        assert list(out.parent.iterdir()) == [out]
    else:
        assert tree(out.parent) == before


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path += sys.argv[3:]
from test_output_folder import work
work(Path(sys.argv[1]), sys.argv[2], lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.parametrize("where", STAGES)
def test_what_a_killed_command_left_is_cleared_up_by_the_next(out, where):
    (out / "notes.txt").write_text("mine")
    done = subprocess.run([sys.executable, "-c", KILLED, out, where, Path(__file__).parent],
                          check=False, timeout=900)
    assert done.returncode == -signal.SIGKILL
    write(out.parent / "another", page="x")  # of other folders nothing is cleared up
    assert len(list(out.parent.iterdir())) > 2
    write(out, page="new")
    assert_new(out)
