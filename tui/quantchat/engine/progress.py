"""Stages of a load: how far, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable

from quantchat.engine.protocol import LoadProgress

STEP_SECONDS = 0.05
"""A bar on the screen has no use for more events than this."""


class Stages:
    """Reports the stage a load is in and keeps the seconds of each."""

    def __init__(self, request: str, emit: Callable[[LoadProgress], None]) -> None:
        self._request, self._emit = request, emit
        self._stage = self._kernel = self._note = ""
        self._entered = self._stepped = 0.0
        self.seconds: dict[str, float] = {}

    def enter(self, stage: str, *, kernel: str | None = None, note: str = "") -> None:
        """End the current stage and begin another; a kernel that is named once runs in all that follow."""
        self.leave()
        self._stage, self._note, self._entered = stage, note, time.perf_counter()
        self._kernel = self._kernel if kernel is None else kernel
        self._tell(0, 0, "")

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
            self._tell(done, total, unit)

    def _tell(self, done: int, total: int, unit: str) -> None:
        self._emit(
            LoadProgress(
                request=self._request,
                stage=self._stage,
                done=done,
                total=total,
                unit=unit,
                kernel=self._kernel,
                note=self._note,
            )
        )
