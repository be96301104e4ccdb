"""Headless Chromium driven through DevTools on a pipe: no driver, no package, no open port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe")
# Chromium reads commands from descriptor 3 and answers on 4, so they are moved there.
LAUNCH = ("import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
          "os.execv(sys.argv[3], sys.argv[3:])")
PATIENCE = 900.0  # seconds for one answer; the machine may be busy


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
    picture: bytes = b""

    def outside(self, own: str) -> list[str]:
        return [url for url in self.requests if url != own and not url.startswith("data:")]


class Chromium:
    """One browser process; use as a context manager."""

    def __init__(self, binary: str):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._to = _high_pipe()
        self._from, theirs_out = _high_pipe()
        command = [sys.executable, "-c", LAUNCH, str(theirs_in), str(theirs_out), binary, *FLAGS,
                   f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._last = b"", 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call("Browser.close")
            self._process.wait(20)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def _read(self) -> dict:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], deadline - time.monotonic())
            if not ready:
                raise TimeoutError("Chromium did not answer")
            data = os.read(self._from, 1 << 16)
            if not data:
                raise OSError("Chromium closed the pipe")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, session: str | None = None, events: list | None = None, **params):
        self._last += 1
        number = self._last
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            if events is not None:
                events.append(answer)

    def visit(self, page: Path, *, width: int = 1200, height: int = 900, dark: bool = False,
              picture: bool = False) -> Visit:
        """Open a file at a viewport and return what happened."""
        events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

        def do(method, **params):
            return self.call(method, session, events, **params)

        for domain in ("Page", "Runtime", "Log", "Network"):
            do(f"{domain}.enable")
        do("Emulation.setDeviceMetricsOverride", width=width, height=height, mobile=width < 600,
           deviceScaleFactor=1)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        do("Emulation.setEmulatedMedia", features=[scheme])
        do("Page.navigate", url=page.as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in events):
            events.append(self._read())
        seen = Visit()
        sizes = do("Runtime.evaluate", returnByValue=True, awaitPromise=True, expression=MEASURE)
        (seen.width, seen.content_width, seen.overflowing, seen.decoded,
         seen.bottoms) = sizes["result"]["value"]
        if picture:
            shot = do("Page.captureScreenshot", format="png", captureBeyondViewport=True)
            seen.picture = base64.b64decode(shot["data"])
        self.call("Target.closeTarget", events=events, targetId=target)
        _sort(events, seen)
        return seen


# Two frames later, late requests and reports have had their turn.
MEASURE = """new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
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


def _high_pipe() -> tuple[int, int]:
    """Return a pipe whose descriptors stay clear of 3 and 4."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high


def _sort(events: list[dict], seen: Visit) -> None:
    for event in events:
        told = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                seen.requests.append(told["request"]["url"])
            case "Runtime.exceptionThrown":
                seen.errors.append(str(told["exceptionDetails"].get("exception", told)))
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                seen.errors.append(str([part.get("value") for part in told["args"]]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                seen.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
