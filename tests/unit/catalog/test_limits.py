"""What holds the fuzzed cases to time and memory finds those that take too much."""

from __future__ import annotations

import time

import pytest

from unit.catalog.limits import MOST_BYTES, MOST_SECONDS, Limits

MEBIBYTE = 1024**2


def spin(seconds: float) -> None:
    begun = time.thread_time()
    while time.thread_time() - begun < seconds:
        pass


def test_a_call_that_is_always_slow_is_found() -> None:
    with pytest.raises(AssertionError):
        Limits().hold(lambda: spin(2 * MOST_SECONDS))


def test_a_call_that_was_slow_once_is_not_held_against_it() -> None:
    delays = iter((2 * MOST_SECONDS,))
    limits = Limits()
    limits.hold(lambda: spin(next(delays, 0.0)))
    assert max(limits.seconds) < MOST_SECONDS


def test_memory_that_is_given_back_at_once_is_found() -> None:
    with pytest.raises(AssertionError):
        Limits().hold(lambda: len(b"x" * (MOST_BYTES + MEBIBYTE)))
