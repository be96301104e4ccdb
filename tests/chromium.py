"""What a page does when it is opened, in the machine's Chromium, driven by Playwright."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")
PATIENCE = 900e3  # milliseconds for one answer; the machine may be busy
# Two frames later, late requests and reports have had their turn.
MEASURE = """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
  const root = document.documentElement, wide = [];
  for (const e of document.body.querySelectorAll('*'))
    if (!e.parentElement.closest('.scroll, .formula')
        && e.getBoundingClientRect().right > root.clientWidth + 1)
      wide.push(e.tagName + '#' + e.id + '.' + e.className);
  const pictures = [...document.images].filter(i => i.naturalWidth > 1).map(i => i.src);
  const bottoms = Object.fromEntries(
    [...document.querySelectorAll('#answer, .verdict, #figure-map img')].filter(
      e => e.offsetParent).map(
      e => [e.id || e.className.split(' ')[0] || 'map', e.getBoundingClientRect().bottom]));
  done([root.clientWidth, Math.max(root.scrollWidth, document.body.scrollWidth), wide, pictures,
        bottoms]);
})))"""


CHOSEN = """() => [...document.querySelectorAll('[class*=target-]')].filter(e =>
  e.tagName == 'circle' ? getComputedStyle(e).stroke != 'none' : e.offsetParent
  && e.matches('.picture')).map(e => e.tagName + ' ' + e.getAttribute('class').split(' ').filter(
  c => c.startsWith('target-'))[0])"""


def find_chromium() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


@dataclass
class Visit:
    """What was seen when a page was opened."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    width: int = 0
    content_width: int = 0
    overflowing: list[str] = field(default_factory=list)
    decoded: list[str] = field(default_factory=list)
    bottoms: dict[str, float] = field(default_factory=dict)
    chosen: set[str] = field(default_factory=set)
    picture: bytes = b""
    printed_pages: int = 0

    def outside(self, own: str) -> list[str]:
        return [url for url in self.requests if url != own and not url.startswith("data:")]


class Chromium:
    """One browser process; use as a context manager."""

    def __init__(self, binary: str):
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=binary, args=FLAGS, timeout=PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._browser.close()
        self._playwright.stop()

    def visit(self, path: Path, *, width: int = 1200, height: int = 900, dark: bool = False,
              picture: bool = False, printed: bool = False, click: str = "") -> Visit:
        """Open a file at a viewport, click on something and return what happened."""
        seen = Visit()
        with self._browser.new_context(
                viewport={"width": width, "height": height}, is_mobile=width < 600,
                color_scheme="dark" if dark else "light") as context:
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            page.on("request", lambda request: seen.requests.append(request.url))
            page.on("pageerror", lambda error: seen.errors.append(str(error)))
            page.on("console", lambda told: seen.errors.append(told.text)
                    if told.type in ("error", "warning", "assert") else None)
            page.goto(path.as_uri())
            (seen.width, seen.content_width, seen.overflowing, seen.decoded,
             seen.bottoms) = page.evaluate(MEASURE)
            if click:
                page.click(click)
            seen.chosen = set(page.evaluate(CHOSEN))
            if picture:
                seen.picture = page.screenshot(full_page=True)
            if printed:
                seen.printed_pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4")))
        return seen
