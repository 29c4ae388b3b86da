"""Stages of a load: how far, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

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


class _Bar:
    """Stands in for a tqdm bar of transformers, which either iterates it or updates it."""

    def __init__(self, stages: Stages, items: Iterable[Any], total: int) -> None:
        self._stages, self._items, self._total, self._done = stages, items, total, 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            yield item
            self.update()

    def update(self, count: int = 1) -> None:
        self._done += int(count)
        self._stages.step(self._done, self._total, "tensors")

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


@contextmanager
def weight_progress(stages: Stages) -> Iterator[None]:
    """Turn transformers' progress bars into steps of the current stage."""
    from transformers.utils import logging

    def hook(factory: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Bar:
        items = args[0] if args else kwargs.get("iterable") or ()
        total = kwargs.get("total") or (len(items) if hasattr(items, "__len__") else 0)
        return _Bar(stages, items, int(total))

    previous = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)
