"""Parts of a loop never overlap, and add up to the whole."""

from __future__ import annotations

import threading
import time

import pytest

from penstock.observe import timing
from penstock.observe.timing import Name, Stopwatch, part, switch_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A clock that is set by hand: its first element is the time."""
    now = [100]
    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: now[0])
    return now


def test_a_part_within_another_stops_its_clock_and_nothing_is_counted_twice(clock: list[int]) -> None:
    stopwatch = Stopwatch()
    with stopwatch.running():
        clock[0] += 1
        with part("check"):
            clock[0] += 10
            with part("parse"):
                clock[0] += 100
            clock[0] += 20
        clock[0] += 2
        stopwatch.lap(5)
        clock[0] += 4
        stopwatch.lap(0)
    first, second = stopwatch.laps
    assert (first.rows, first.parts_ns, first.whole_ns) == (5, {"rest": 3, "check": 30, "parse": 100}, 133)
    assert (second.parts_ns, second.whole_ns) == ({"rest": 4}, 4)


def _fail_in(name: Name, clock: list[int]) -> None:
    with part(name):
        clock[0] += 7
        clock[0] //= 0


def test_a_part_that_raises_is_left_too(clock: list[int]) -> None:
    stopwatch = Stopwatch()
    with stopwatch.running():
        with pytest.raises(ZeroDivisionError):
            _fail_in("merge", clock)
        clock[0] += 3
        stopwatch.lap(1)
    assert stopwatch.laps[0].parts_ns == {"rest": 3, "merge": 7}


def test_other_threads_and_runs_without_a_stopwatch_are_not_measured(clock: list[int]) -> None:
    stopwatch = Stopwatch()

    def work() -> None:
        with part("deliver"):
            clock[0] += 50

    with stopwatch.running():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        stopwatch.lap(0)
    work()
    assert stopwatch.laps[0].parts_ns == {"rest": 50}


def test_the_cost_of_a_switch_is_measured() -> None:
    began = time.perf_counter_ns()
    found = switch_ns(1_000)
    assert 0 < found <= (time.perf_counter_ns() - began) / 2_000
