"""A second process that draws figures of a fit beside this one.

Matplotlib draws in one thread only, so a second core is of use to a second process alone. It is a
fresh interpreter, not a fork: a fork of a process whose samplers have run threads may hang. Its
imports run while the first law is sampled. While others are, it draws what rests on the first law
alone, into a folder aside; then both take what is left from two ends of a list. Whatever becomes of
the second process, this one draws what is missing.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.files import write_whole

if TYPE_CHECKING:
    from cbsbayes.plots.gallery import GalleryItem
    from cbsbayes.posterior.fit import Fit

__all__ = ["FORMATS", "Drawn", "SecondProcess", "available_cores", "draw_item", "drawing",
           "second_process"]

type Drawn = tuple[GalleryItem, str]
"""A figure, and the reason why there is none or ''."""

FORMATS = ("png", "pdf")
_START = ("import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
          "from cbsbayes.plots.second import serve; serve(sys.stdin, sys.stdout)")
# what compares laws is not there yet when the second process begins
_OF_ALL_LAWS = ("cbs_", "comparison_", "laws", "noise_against_fit")
# the clock and measured noise stand on the page too: this process has them already
_COMPUTED_HERE = ("step_time", "clock_map", "time_cost", "wall_clock", "noise_against_fit")
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

    items = {item.slug: item for item in all_figures(fit)}
    if second is None:
        yield lambda: _draw_all(items, folder, [])
        return
    second.go_on(fit)
    try:
        yield lambda: _draw_all(items, folder, second.shares)
    finally:
        second.stop()


def _draw_all(
    items: Mapping[str, GalleryItem], folder: Path, shares: Sequence[_Share]
) -> list[Drawn]:
    reasons: dict[str, str] = {}
    for share in reversed(shares):
        while share.left:
            with contextlib.suppress(IndexError):  # the second process took the last one
                slug = share.left.popleft()
                reasons[slug] = draw_item(items[slug], folder)
    for share in shares:
        reasons |= share.handed_over(folder)
    reasons |= {slug: draw_item(item, folder) for slug, item in items.items()
                if slug not in reasons}  # what a second process that broke down was at
    return [(item, reasons[slug]) for slug, item in items.items()]


class _Share:
    """Figures that both processes draw: the second takes from the end, this one from the front.

    Parameters
    ----------
    slugs : iterable of str
        The figures.
    aside : Path
        Where the second process puts them.
    work : callable
        Has the second process draw a share, in a thread of its own.
    """

    def __init__(self, slugs: Iterable[str], aside: Path, work: Callable[[_Share], None]) -> None:
        self.left = deque(sorted(slugs, key=_turn))
        self.reasons: dict[str, str] = {}
        self._aside = aside
        self._thread = threading.Thread(target=work, args=(self,))
        self._thread.start()

    def wait(self) -> None:
        """Wait until the second process draws none of these any more."""
        self._thread.join()

    def handed_over(self, folder: Path) -> dict[str, str]:
        """Wait, give `folder` what the second process has drawn, and return the reasons."""
        self.wait()
        for slug in (slug for slug, reason in self.reasons.items() if not reason):
            for fmt in FORMATS:
                name = f"{slug}.{fmt}"
                write_whole(folder / name, (self._aside / name).read_bytes())
        return self.reasons


def _turn(slug: str) -> int:
    """Return when this process takes a figure: first what rests on what it has computed."""
    return 0 if slug.startswith(_COMPUTED_HERE) else 2 if slug in _LONG else 1


class SecondProcess:
    """A fresh interpreter that draws figures named to it, one line of JSON each.

    Attributes
    ----------
    shares : list
        What it has been given of one fit.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8")
        self._folder = TemporaryDirectory(prefix="cbsbayes-", ignore_cleanup_errors=True)
        self.shares: list[_Share] = []

    def begin(self, fit: Fit) -> None:
        """Draw from now on what rests on the fit's own law alone; an earlier fit is given up.

        Parameters
        ----------
        fit : Fit
            What `cbsbayes.posterior.fit_sweep.fit_sweep` gives early, or a whole fit.
        """
        self.stop()
        aside = Path(self._folder.name)

        def work(share: _Share) -> None:
            with contextlib.suppress(OSError, CBSDataError):  # no room aside: none drawn
                fit.save(aside / "fit.nc")
                self._draw(share, {"saved": str(aside / "fit.nc"), "folder": str(aside)})

        early = {slug for slug in _slugs(fit) if not slug.startswith(_OF_ALL_LAWS)}
        self.shares = [_Share(early, aside, work)]

    def go_on(self, fit: Fit) -> None:
        """Draw the others too, now that the fit is whole."""
        if not self.shares:
            self.begin(fit)
        before = self.shares[0]
        attrs = {str(name): value for name, value in fit.tree.attrs.items()}

        def work(share: _Share) -> None:
            before.wait()
            self._draw(share, {"attrs": attrs})

        late = {slug for slug in _slugs(fit) if slug.startswith(_OF_ALL_LAWS)}
        self.shares.append(_Share(late, Path(self._folder.name), work))

    def _draw(self, share: _Share, first: Mapping[str, Any]) -> None:
        if not share.left or self._ask(first) is None:
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
        for share in self.shares:
            share.left.clear()
        for share in self.shares:
            share.wait()
        self.shares = []

    def _ask(self, question: Mapping[str, Any]) -> str | None:
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
        self._folder.cleanup()


@contextmanager
def second_process(cores: int | None = None) -> Iterator[SecondProcess | None]:
    """Start a second process to draw with, and end it; None where there is one core only."""
    if (available_cores() if cores is None else cores) < 2:
        yield None
        return
    second = SecondProcess()
    try:
        yield second
    finally:
        second.close()


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve(questions: IO[str], answers: IO[str]) -> None:
    """Answer lines until there are no more: the second process's whole life.

    A line that names a saved fit and a folder is answered when the fit is read; one with its
    attributes, once they are the fit's; one that names a figure, when it is written, with the
    reason why there is none, or ''.
    """
    from cbsbayes.plots import files, gallery  # noqa: F401
    from cbsbayes.posterior.fit import Fit  # while there is nothing to draw yet

    gc.disable()  # what figures leave behind is looked through once per fit, not all the time
    fit, folder = None, Path()
    for line in questions:
        question, answer = json.loads(line), ""
        if "saved" in question:
            gc.collect()
            fit, folder = Fit.load(Path(question["saved"])), Path(question["folder"])
            items = {item.slug: item for item in gallery.all_figures(fit)}
        elif "attrs" in question:
            assert fit is not None
            fit.tree.attrs |= question["attrs"]
            items = {item.slug: item for item in gallery.all_figures(Fit(fit.tree))}
        else:
            answer = draw_item(items[question["slug"]], folder)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _slugs(fit: Fit) -> list[str]:
    from cbsbayes.plots.gallery import all_figures

    return [item.slug for item in all_figures(fit)]
