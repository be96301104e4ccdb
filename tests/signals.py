"""Signals of child processes, whatever the process that runs the suite ignores or blocks."""

from __future__ import annotations

import signal

PATIENCE = 900  # seconds after which a child hangs, however loaded the machine

__all__ = ["PATIENCE", "usual_signals"]


def usual_signals() -> None:
    """Take the signals that end it as a shell's foreground job does; for `preexec_fn`."""
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
