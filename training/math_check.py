"""Compare mathematical answers with math-verify, in processes that can be killed.

math-verify guards itself with ``signal.alarm``, which works only in a main thread; verl scores in
threads. So comparisons run in a few worker processes (`training.math_worker`), each used by one
thread at a time, and a worker that does not answer in time is killed and replaced.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import queue
import select
import subprocess
import sys
from pathlib import Path

from cbsbayes.errors import CBSDataError

__all__ = ["same_math"]

N_WORKERS = 2  # per scoring process; verl starts several of those
START_SECONDS = 120.0  # importing sympy on a busy machine

_WORKER = Path(__file__).with_name("math_worker.py")


class _Worker:
    """One worker process, started when first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def ask(self, truth: str, answer: str, timeout: float) -> bool | None:
        """Return the worker's verdict; None where it gave none in time or died."""
        process = self._started()
        assert process.stdin is not None
        question = json.dumps({"truth": truth, "answer": answer, "seconds": timeout}) + "\n"
        try:
            process.stdin.write(question.encode())
            process.stdin.flush()
            said = self._line(process, timeout)
        except BrokenPipeError:
            said = None
        if said is None:
            self.stop()
            return None
        return said["same"]

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.stop()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL)
        said = self._line(self._process, START_SECONDS) or {"error": "it did not start"}
        if "error" in said:
            self.stop()
            raise CBSDataError(f"cannot check MATH answers ({said['error']}); install it with "
                               "pip install 'math-verify[antlr4_9_3]'")
        return self._process

    def _line(self, process: subprocess.Popen[bytes], timeout: float) -> dict | None:
        """Return the next line of the worker; None where it is late or at its end."""
        assert process.stdout is not None
        while b"\n" not in self._unread:
            ready, _, _ = select.select([process.stdout], [], [], timeout)
            more = process.stdout.read1() if ready else b""  # type: ignore[attr-defined]
            if not more:
                return None
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    def stop(self) -> None:
        """Kill the process, if there is one."""
        process, self._process, self._unread = self._process, None, b""
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):  # a question it never read
                if pipe is not None:
                    pipe.close()


_WORKERS = [_Worker() for _ in range(N_WORKERS)]
_FREE: queue.LifoQueue[_Worker] = queue.LifoQueue()
for _worker in _WORKERS:
    _FREE.put(_worker)


@atexit.register
def _stop_all() -> None:
    for worker in _WORKERS:
        worker.stop()


def same_math(truth: str, answer: str, timeout: float = 10.0) -> bool | None:
    """Return whether two LaTeX expressions are the same answer.

    Parameters
    ----------
    truth : str
        The right answer; the comparison is not symmetric.
    answer : str
        The model's answer.
    timeout : float
        Seconds for the comparison, not counting the start of a worker.

    Returns
    -------
    bool or None
        None where the comparison ran out of time, or the worker died of it.

    Raises
    ------
    CBSDataError
        If math-verify is not installed.
    """
    worker = _FREE.get()
    try:
        return worker.ask(truth, answer, timeout)
    finally:
        _FREE.put(worker)
