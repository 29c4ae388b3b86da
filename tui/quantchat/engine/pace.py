"""How many CPU threads decode fastest, whatever computes: what is measured, and what is made of it."""

from __future__ import annotations

import os
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

ROUNDS = 3
STEPS = 4
WORTH = 1.05
"""More threads must pay at least this factor: they take cores from the screen, and spin when the box is busy."""
TOO_SLOW = 1.5
RECENT = 8
SEVERAL = 8
"""Tokens from which a pass takes all cores; two of them were 1.3 to 1.5 times as fast as one from 4 tokens on."""
LONG = 64
"""Tokens from which a pass tells whether the cores are free: the weights are then a small part of its cost."""
CROWDED = 0.35
"""A prompt token that takes this share of a decode step may do so on crowded cores: on free ones it is a tenth where
the kernels multiply matrices well, half where they do not, and on crowded ones all of it."""
GROWN = 2.0
"""So much more than on free cores is crowded too; longer contexts alone take less."""


@dataclass(frozen=True)
class DecodeThreads:
    """What the calibration found.

    Attributes:
        count: Threads that decode fastest.
        single_seconds: What a decode step takes with one thread; 0 where nothing was measured.
    """

    count: int = 1
    single_seconds: float = 0.0


class Pace:
    """Watches the steps of a turn: other processes that want the cores too make several threads far slower than one."""

    def __init__(self, threads: DecodeThreads) -> None:
        self._limit = threads.single_seconds * TOO_SLOW
        self._several = threads.count > 1 and self._limit > 0
        self._recent: deque[float] = deque(maxlen=RECENT)

    def step(self, seconds: float) -> bool:
        """Count a decode step; true, once, when the rest of the turn should use one thread."""
        if not self._several:
            return False
        self._recent.append(seconds)
        self._several = len(self._recent) < RECENT or statistics.median(self._recent) <= self._limit
        return not self._several


class ThreadChoice:
    """CPU threads of the next pass: all cores for long ones, what was calibrated for decoding.

    When other processes want the cores too, one thread is many times faster than two, which then spin and wait for
    each other. So both counts fall to one when passes take too long; that of long passes comes back, and what they
    took is known to be right for this processor, if one thread is slower.
    """

    def __init__(self, calibrated: DecodeThreads) -> None:
        self._calibrated = calibrated
        # Seconds of a long pass's token with all cores: at most, and of the last one where it was more.
        self._most = CROWDED * calibrated.single_seconds
        self._doubted = 0.0
        self.refresh()

    def refresh(self) -> None:
        """Go back to the full counts: a turn begins, and the box may be quiet again."""
        self._long, self._decode, self._pace = cores(), self._calibrated.count, Pace(self._calibrated)

    def count(self, tokens: int) -> int:
        """Return the count for a pass over so many tokens."""
        return self._long if tokens >= SEVERAL else self._decode

    def took(self, tokens: int, seconds: float) -> None:
        """Note what a pass over so many tokens took."""
        if tokens >= LONG:
            self._judge(seconds / tokens)
        elif tokens == 1 and self._pace.step(seconds):
            self._decode = 1

    def _judge(self, each: float) -> None:
        """Compare what a token of a long pass took: with all cores to what it may, then with one to that."""
        if self._long == 1:
            if each > self._doubted > 0:
                self._most, self._long = GROWN * self._doubted, cores()
            self._doubted = 0.0
        elif each > self._most > 0:
            self._doubted, self._long = each, 1


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def candidates(count: int) -> list[int]:
    """Counts worth a try on so many cores: 1, half, all but one and all."""
    return sorted({1, max(1, count // 2), max(1, count - 1), count})


def fastest(seconds: Mapping[int, float]) -> DecodeThreads:
    """Choose by the seconds of a step per count, fewest threads first; more must be worth it."""
    first = best = next(iter(seconds))
    for count in seconds:
        if seconds[best] > WORTH * seconds[count]:
            best = count
    return DecodeThreads(best, seconds[first])
