"""Stages of a load: how far, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_SECONDS = 0.05
"""A bar on the screen has no use for more events than this."""


class Stages:
    """Reports the stage a load is in and keeps the seconds of each."""

    def __init__(self, progress: Callable[[str, int, int, str], None]) -> None:
        self._progress = progress
        self._stage = ""
        self._entered = self._stepped = 0.0
        self.seconds: dict[str, float] = {}

    def enter(self, stage: str) -> None:
        """End the current stage and begin another."""
        self.leave()
        self._stage, self._entered = stage, time.perf_counter()
        self._progress(stage, 0, 0, "")

    def leave(self) -> None:
        """End the current stage."""
        if self._stage:
            self.seconds[self._stage] = time.perf_counter() - self._entered
        self._stage = ""

    def step(self, done: int, total: int, unit: str) -> None:
        """Report progress within the stage."""
        now = time.perf_counter()
        if done >= total or now - self._stepped >= STEP_SECONDS:
            self._stepped = now
            self._progress(self._stage, done, total, unit)
