r"""The process behind `training.math_check`: compares LaTeX answers, one JSON line each.

Model output reaches a grammar and a computer algebra system here, so this runs apart from the
trainer, with little memory, and may be killed at any time: ``9^{9^{9^9}}`` keeps one C call busy
for ever, and no alarm inside the process would end it. Only what stood in ``\boxed{}`` comes here,
and only as LaTeX (math-verify's plain-expression reader evaluates its input as Python).
"""

from __future__ import annotations

import json
import logging
import math
import signal
import sys

__all__ = ["main"]

MEMORY = 4 * 1024**3  # bytes of address space; the import alone takes a few hundred MB
ORPHAN_SECONDS = 30  # beyond the time limit, in case nobody is left to kill this process


def main() -> int:
    """Answer lines ``{"truth": …, "answer": …}`` with ``{"same": …}`` until the input ends.

    Returns
    -------
    int
        0, or 1 where math-verify is not installed (said in the first line of output).
    """
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # no such limit on this system: the time limit remains
    try:
        from math_verify import LatexExtractionConfig, parse, verify
    except ImportError as error:
        _say({"error": f"{error}"})
        return 1
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    kinds = [LatexExtractionConfig()]

    def read(latex: str) -> list[object]:
        return parse(rf"\boxed{{{latex}}}", kinds, parsing_timeout=None)

    _say({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        signal.alarm(math.ceil(asked["seconds"]) + ORPHAN_SECONDS)  # unhandled: ends C calls too
        same = verify(read(asked["truth"]), read(asked["answer"]), timeout_seconds=None)
        signal.alarm(0)
        _say({"same": bool(same)})
    return 0


def _say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
