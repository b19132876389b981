"""The learner gives way to the robots of its machine, thread by thread."""

import os
import sys
import threading

import pytest

from hildaft.runtime.precedence import YIELD, yield_to_robots

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells threads apart")


def seen() -> tuple[int, set[int]]:
    return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)


def in_a_thread(cores: set[int] | None = None) -> list[tuple[int, set[int]]]:
    """What a thread sees once it has given way, what a thread it then starts sees, and the caller's view after."""
    found: list[tuple[int, set[int]]] = []

    def learn() -> None:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        yield_to_robots()
        found.append(seen())
        started = threading.Thread(target=lambda: found.append(seen()))
        started.start()
        started.join()

    learner = threading.Thread(target=learn)
    learner.start()
    learner.join()
    return [*found, seen()]


def test_the_learner_gets_less_and_leaves_a_core_to_the_robots() -> None:
    niceness, cores = seen()
    learner, started, robots = in_a_thread()
    assert learner[0] == min(19, niceness + YIELD)
    assert learner[1] == (cores - {min(cores)} or cores)
    assert started == learner
    assert robots == (niceness, cores)


def test_the_only_core_is_shared() -> None:
    one = {min(os.sched_getaffinity(0))}
    assert in_a_thread(one)[0][1] == one


def test_what_is_not_permitted_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    before = seen()
    yield_to_robots()
    assert seen() == before
