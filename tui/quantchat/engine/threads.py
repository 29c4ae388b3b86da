"""How many CPU threads a model computes with, measured on this machine as it is now."""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch

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
"""A prompt token that takes this share of a decode step: on free cores it is a tenth, on crowded ones all of it."""


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


class Threads:
    """CPU threads of the next pass: all cores for long ones, what was calibrated for decoding.

    When other processes want the cores too, one thread is many times faster than two, which then spin and wait for
    each other. So both counts fall to one when passes take too long.
    """

    def __init__(self, calibrated: DecodeThreads) -> None:
        self._calibrated = calibrated
        self.refresh()

    def refresh(self) -> None:
        """Go back to the full counts: a turn begins, and the box may be quiet again."""
        self._long, self._decode, self._pace = cores(), self._calibrated.count, Pace(self._calibrated)

    def use(self, tokens: int) -> None:
        """Set the count for a pass over so many tokens."""
        count = self._long if tokens >= SEVERAL else self._decode
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)

    def took(self, tokens: int, seconds: float) -> None:
        """Note what a pass over so many tokens took."""
        single = self._calibrated.single_seconds
        if tokens >= LONG:
            if single and seconds > CROWDED * single * tokens:
                self._long = 1
        elif tokens == 1 and self._pace.step(seconds):
            self._decode = 1


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def calibrate(model: Any, device: str) -> DecodeThreads:
    """Find the thread count that decodes fastest: of 1, half, all but one and all cores.

    Decoding is bound by memory, so that more threads gain little; with other busy processes on the cores, OpenMP's
    spinning makes all of them ten times slower than one. On a GPU nothing is measured and one thread is right.
    """
    if device != "cpu":
        return DecodeThreads()
    candidates = sorted({1, max(1, cores() // 2), max(1, cores() - 1), cores()})
    if len(candidates) == 1:
        return DecodeThreads()
    before = torch.get_num_threads()
    try:
        seconds = _measure(model, candidates)
    finally:
        torch.set_num_threads(before)
    best = candidates[0]
    for count in candidates[1:]:
        if seconds[best] > WORTH * seconds[count]:
            best = count
    return DecodeThreads(best, seconds[candidates[0]])


def _measure(model: Any, candidates: list[int]) -> dict[int, float]:
    """Median seconds of a decode step per thread count, the candidates taking turns."""
    ids = torch.zeros((1, 16), dtype=torch.long)
    taken: dict[int, list[float]] = {count: [] for count in candidates}
    with torch.inference_mode():
        cache = model(input_ids=ids, use_cache=True).past_key_values
        for _ in range(ROUNDS):
            for count in candidates:
                torch.set_num_threads(count)
                taken[count] += _steps(model, cache)
    return {count: statistics.median(times) for count, times in taken.items()}


def _steps(model: Any, cache: Any) -> list[float]:
    """Seconds of some decode steps; the first, which wakes the threads, is not counted."""
    token = torch.zeros((1, 1), dtype=torch.long)
    times = []
    for _ in range(STEPS + 1):
        begun = time.perf_counter()
        model(input_ids=token, past_key_values=cache, use_cache=True)
        times.append(time.perf_counter() - begun)
    return times[1:]
