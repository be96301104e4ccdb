"""A second process that draws figures of a saved fit beside this one.

Matplotlib draws in one thread only, so a second core is of use to a second process alone. It is a
fresh interpreter, not a fork: a fork of a process whose samplers have run threads may hang. It is
started before the fit is there, so that its imports run while the samplers work; then both take
figures from one list, this process from the front and the second from the end, until none is
left. Whatever becomes of the second process, this one draws what is missing.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cbsbayes.errors import CBSDataError
from cbsbayes.store import write_whole

if TYPE_CHECKING:
    from cbsbayes.plots.gallery import GalleryItem
    from cbsbayes.result import Fit

__all__ = ["FORMATS", "Drawn", "SecondProcess", "draw_all", "draw_item", "drawing",
           "second_process"]

type Drawn = tuple[GalleryItem, str]
"""A figure, and the reason why there is none or ''."""

FORMATS = ("png", "pdf")
_START = ("import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
          "from cbsbayes.plots.second import serve; serve(sys.stdin, sys.stdout)")
# the clock, least squares and measured noise stand on the page too: this process has them already
_COMPUTED_HERE = ("step_time", "clock_map", "time_cost", "wall_clock", "noise_against_fit",
                  "steps_", "samples_", "comparison_")
_LONG = ("gradient_noise", "trace", "prior_posterior")  # begun at once by the second process
_PATIENCE = 5.0  # seconds for it to end once its input has


def draw_item(item: GalleryItem, folder: Path) -> str:
    """Draw one figure and write its files; return why there is none, '' where there is one."""
    from cbsbayes.plots.files import figure_files

    try:
        figure = item.draw()
    except CBSDataError as error:
        return str(error)
    for fmt, content in figure_files(figure, FORMATS).items():
        write_whole(folder / f"{item.slug}.{fmt}", content)
    return ""


def draw_all(
    fit: Fit, folder: Path, second: SecondProcess | None = None, *, saved: Path
) -> list[Drawn]:
    """Draw every figure of a fit into a folder; see `drawing`."""
    with drawing(fit, folder, second, saved=saved) as finish:
        return finish()


@contextmanager
def drawing(
    fit: Fit, folder: Path, second: SecondProcess | None = None, *, saved: Path
) -> Iterator[Callable[[], list[Drawn]]]:
    """Let every figure of a fit be drawn into a folder while this process does other things.

    Parameters
    ----------
    fit : Fit
        The fit.
    folder : Path
        Where PNG and PDF go; it exists.
    second : SecondProcess, optional
        Draws from here on, until the block is left.
    saved : Path
        The fit as a file, which `second` reads.

    Yields
    ------
    callable
        Draws what is left and returns all figures in reading order, each with the reason why
        there is no such figure, or ''.
    """
    from cbsbayes.plots.gallery import all_figures

    items = list(all_figures(fit))
    left, reasons = deque(sorted(items, key=_turn)), dict[str, str]()
    waits: list[Callable[[], None]] = []

    def finish() -> list[Drawn]:
        _draw_left(left, folder, reasons)
        for wait in waits:
            wait()
        _draw_left(left, folder, reasons)  # what a second process that broke down gave back
        return [(item, reasons[item.slug]) for item in items]

    with ExitStack() as beside:
        if second is not None:
            waits.append(beside.enter_context(second.drawing(saved, folder, left, reasons)))
        yield finish


def _turn(item: GalleryItem) -> int:
    """Return when this process takes a figure: first what rests on what it has computed."""
    if item.slug.startswith(_COMPUTED_HERE):
        return 0
    return 2 if item.slug in _LONG else 1


def _draw_left(left: deque[GalleryItem], folder: Path, reasons: dict[str, str]) -> None:
    while left:
        with contextlib.suppress(IndexError):  # the second process took the last one
            item = left.popleft()
            reasons[item.slug] = draw_item(item, folder)


class SecondProcess:
    """A fresh interpreter that draws figures named to it, one line of JSON each."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8")

    @contextmanager
    def drawing(
        self, saved: Path, folder: Path, left: deque[GalleryItem], reasons: dict[str, str]
    ) -> Iterator[Callable[[], None]]:
        """Draw from the end of `left` while the caller draws from its front.

        Yields what waits for the last one; none is begun once the block is left.
        """
        def work() -> None:
            if self._ask({"saved": str(saved.resolve()), "folder": str(folder.resolve())}) is None:
                return
            while left:
                with contextlib.suppress(IndexError):
                    item = left.pop()
                    reason = self._ask({"slug": item.slug})
                    if reason is None:  # broken down: the caller draws it
                        left.append(item)
                        return
                    reasons[item.slug] = reason

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield thread.join
        finally:
            left.clear()
            thread.join()

    def _ask(self, question: dict[str, str]) -> str | None:
        """Return the answer to one line, None where there is none any more."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        try:
            asked.write(json.dumps(question) + "\n")
            asked.flush()
            return json.loads(answers.readline())
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """End the process."""
        try:
            self._process.communicate(timeout=_PATIENCE)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.communicate()


@contextmanager
def second_process(cores: int | None = None) -> Iterator[SecondProcess | None]:
    """Start a second process to draw with, and end it; None where there is one core only."""
    if (_cores() if cores is None else cores) < 2:
        yield None
        return
    second = SecondProcess()
    try:
        yield second
    finally:
        second.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve(questions: IO[str], answers: IO[str]) -> None:
    """Answer lines until there are no more: the second process's whole life.

    A line that names a saved fit and a folder is answered when the fit is read; one that names a
    figure, when it is written, with the reason why there is none, or ''.
    """
    from cbsbayes import result  # while there is nothing to draw yet
    from cbsbayes.plots import files, gallery  # noqa: F401

    gc.freeze()  # modules live as long as the process: not to be looked through again and again
    draw: Callable[[str], str] | None = None
    for line in questions:
        question = json.loads(line)
        if "saved" in question:
            draw = _drawer(result.Fit.load(Path(question["saved"])), Path(question["folder"]))
            answer = ""
        else:
            assert draw is not None
            answer = draw(question["slug"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _drawer(fit: Fit, folder: Path) -> Callable[[str], str]:
    from cbsbayes.plots.gallery import all_figures

    items: Sequence[GalleryItem] = list(all_figures(fit))
    by_slug = {item.slug: item for item in items}
    return lambda slug: draw_item(by_slug[slug], folder)
