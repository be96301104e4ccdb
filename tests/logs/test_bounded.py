from __future__ import annotations

import threading

from cbsbayes.logs.bounded import run_bounded


def fail():
    raise OSError("gone")


def test_outcomes_come_in_the_order_of_the_jobs():
    later = threading.Event()
    jobs = {"a": lambda: later.wait(10), "b": later.set, "c": fail}
    outcomes = run_bounded(jobs, workers=2, seconds=60)
    assert list(outcomes) == ["a", "b", "c"]
    assert outcomes["a"] is True
    assert isinstance(outcomes["c"], OSError)


def test_overdue_job_is_given_up_and_the_rest_is_done():
    never = threading.Event()
    counted = []
    outcomes = run_bounded(
        {"stuck": never.wait, "next": lambda: 1, "last": lambda: 2},
        workers=1,
        seconds=0.2,
        done=lambda: counted.append(1),
    )
    never.set()
    assert isinstance(outcomes["stuck"], TimeoutError)
    assert (outcomes["next"], outcomes["last"]) == (1, 2)
    assert len(counted) == 3


def test_a_job_that_ends_after_it_was_given_up_is_not_counted():
    given_up = threading.Event()
    outcomes = run_bounded(
        {"late": lambda: given_up.wait(10), "wait": lambda: threading.Event().wait(0.3)},
        workers=2,
        seconds=0.1,
        done=given_up.set,
    )
    assert [type(outcome) for outcome in outcomes.values()] == [TimeoutError, TimeoutError]
