"""Holds reading a model to its CPU time and memory, however busy the machine is."""

from __future__ import annotations

import os
import re
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
MOST_SECONDS = 0.05
MOST_BYTES = 50 * 1024**2
ATTEMPTS = 3
"""A case that takes long is read again: what took long once may have been the garbage collector."""
SELDOM = 25
"""One of so many cases is also measured by what Python allocates: what is taken from free room raises no peak."""
RESET_PEAK = b"5"
_PEAK = re.compile(rb"VmHWM:\s+(\d+) kB")
_NOW = re.compile(rb"VmRSS:\s+(\d+) kB")


class Limits:
    """Measures calls, and fails one that takes more than it may."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.peaks: list[int] = []

    def clear(self) -> None:
        self.seconds.clear()
        self.peaks.clear()

    def hold(self, call: Callable[[], T]) -> T:
        """Call, and return what that returns."""
        with self._memory():
            result, taken = timed(call)
        for _ in range(ATTEMPTS - 1):
            if taken > MOST_SECONDS:
                taken = min(taken, timed(call)[1])
        assert taken <= MOST_SECONDS
        self.seconds.append(taken)
        if len(self.seconds) % SELDOM == 1:
            with self._allocations():
                call()
        return result

    def __str__(self) -> str:
        if not self.seconds:
            return "no cases"
        times, sizes = [one * 1e3 for one in self.seconds], [one / 1024**2 for one in self.peaks]
        return (
            f"{len(times)} cases: CPU median {statistics.median(times):.2f} ms, most {max(times):.1f} ms; "
            f"memory median {statistics.median(sizes):.2f} MiB, most {max(sizes):.1f} MiB"
        )

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Watch the largest resident memory, where the kernel lets it be set back."""
        before = _reset_peak()
        yield
        if before is not None:
            self._judge(_resident(_PEAK) - before)

    @contextmanager
    def _allocations(self) -> Iterator[None]:
        tracemalloc.start()
        try:
            yield
            self._judge(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

    def _judge(self, peak: int) -> None:
        self.peaks.append(peak)
        assert peak <= MOST_BYTES


def timed(call: Callable[[], T]) -> tuple[T, float]:
    started = time.thread_time()
    return call(), time.thread_time() - started


def _reset_peak() -> int | None:
    """Set the peak back to what is resident, and return that in bytes; None where that is not possible."""
    try:
        file = os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return None
    try:
        os.write(file, RESET_PEAK)
    finally:
        os.close(file)
    return _resident(_NOW)


def _resident(pattern: re.Pattern[bytes]) -> int:
    with open("/proc/self/status", "rb", buffering=0) as file:
        found = pattern.search(file.read(8192))
    assert found is not None
    return int(found[1]) * 1024
