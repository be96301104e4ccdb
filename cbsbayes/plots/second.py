"""A second process that draws figures of a fit beside this one.

Matplotlib draws in one thread only, so a second core is of use to a second process alone. It is a
fresh interpreter, not a fork: a fork of a process whose samplers have run threads may hang. Its
imports run while the first law is sampled. While others are, it draws all figures that rest on the
first law alone, into a folder aside; this process draws the rest, then takes from the other end of
the list what the second has not begun. Whatever becomes of the second process, this one draws what
is missing.
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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING

from cbsbayes.errors import CBSDataError
from cbsbayes.store import write_whole

if TYPE_CHECKING:
    from cbsbayes.plots.gallery import GalleryItem
    from cbsbayes.result import Fit

__all__ = ["FORMATS", "Drawn", "SecondProcess", "draw_item", "drawing", "second_process"]

type Drawn = tuple[GalleryItem, str]
"""A figure, and the reason why there is none or ''."""

FORMATS = ("png", "pdf")
_START = ("import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
          "from cbsbayes.plots.second import serve; serve(sys.stdin, sys.stdout)")
# what compares laws is not there yet when the second process begins
_OF_ALL_LAWS = ("cbs_", "comparison_", "laws", "noise_against_fit")
_CLOCK = ("step_time", "clock_map", "time_cost", "wall_clock")  # on the page too: computed here
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


@contextmanager
def drawing(
    fit: Fit, folder: Path, second: SecondProcess | None = None
) -> Iterator[Callable[[], list[Drawn]]]:
    """Let figures of a fit be drawn while this process does other things.

    Parameters
    ----------
    fit : Fit
        The fit.
    folder : Path
        Where PNG and PDF go; it exists.
    second : SecondProcess, optional
        Draws until the block is left; if it has not begun with this fit, from here on.

    Yields
    ------
    callable
        Draws what is left and returns all figures in reading order, each with the reason why
        there is no such figure, or ''.
    """
    from cbsbayes.plots.gallery import all_figures

    items = list(all_figures(fit))
    if second is None:
        yield lambda: _draw_all(items, folder, _Share())
        return
    if second.share is None:
        second.begin(fit)
    try:
        yield lambda: _draw_all(items, folder, second.share or _Share())
    finally:
        second.stop()


def _draw_all(items: Sequence[GalleryItem], folder: Path, share: _Share) -> list[Drawn]:
    by_slug = {item.slug: item for item in items}
    reasons = {slug: draw_item(item, folder) for slug, item in by_slug.items()
               if slug not in share.slugs}
    while share.left:
        with contextlib.suppress(IndexError):  # the second process took the last one
            slug = share.left.popleft()
            reasons[slug] = draw_item(by_slug[slug], folder)
    reasons |= share.handed_over(folder)
    reasons |= {slug: draw_item(item, folder) for slug, item in by_slug.items()
                if slug not in reasons}  # what a second process that broke down was at
    return [(item, reasons[item.slug]) for item in items]


@dataclass
class _Share:
    """What the second process may draw of one fit: taken from the end, here from the front."""

    slugs: tuple[str, ...] = ()
    folder: Path = Path()
    reasons: dict[str, str] = field(default_factory=dict)
    wait: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.left = deque(self.slugs)

    def handed_over(self, folder: Path) -> dict[str, str]:
        """Wait for the last figure, give all to `folder`, and return the reasons."""
        self.wait()
        for slug in (slug for slug, reason in self.reasons.items() if not reason):
            for fmt in FORMATS:
                name = f"{slug}.{fmt}"
                write_whole(folder / name, (self.folder / name).read_bytes())
        return self.reasons


def _turn(slug: str) -> int:
    """Return when this process takes a figure: first what rests on what it has computed."""
    return 0 if slug.startswith(_CLOCK) else 2 if slug in _LONG else 1


class SecondProcess:
    """A fresh interpreter that draws figures named to it, one line of JSON each."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8")
        self._aside = TemporaryDirectory(prefix="cbsbayes-", ignore_cleanup_errors=True)
        self.share: _Share | None = None

    def begin(self, fit: Fit) -> None:
        """Draw from now on what rests on the fit's own law alone; an earlier fit is given up.

        Parameters
        ----------
        fit : Fit
            What `cbsbayes.fitting.fit_sweep` gives early, or a whole fit.
        """
        from cbsbayes.plots.gallery import all_figures

        self.stop()
        slugs = sorted((item.slug for item in all_figures(fit)
                        if not item.slug.startswith(_OF_ALL_LAWS)), key=_turn)
        folder = Path(self._aside.name)
        try:
            fit.save(folder / "fit.nc")
        except OSError:  # no room aside: this process draws all
            slugs = []
        share = _Share(tuple(slugs), folder)
        thread = threading.Thread(target=self._draw, args=(share,))
        thread.start()
        share.wait = thread.join
        self.share = share

    def _draw(self, share: _Share) -> None:
        place = str(share.folder)
        if not share.left or self._ask({"saved": f"{place}/fit.nc", "folder": place}) is None:
            return
        while share.left:
            with contextlib.suppress(IndexError):
                slug = share.left.pop()
                reason = self._ask({"slug": slug})
                if reason is None:  # broken down
                    return
                share.reasons[slug] = reason

    def stop(self) -> None:
        """Begin no other figure, and wait for the one begun."""
        if self.share is not None:
            self.share.left.clear()
            self.share.wait()
            self.share = None

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
        self.stop()
        try:
            self._process.communicate(timeout=_PATIENCE)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.communicate()
        self._aside.cleanup()


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
