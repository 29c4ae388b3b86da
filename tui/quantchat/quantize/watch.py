"""How a job reports and hears of a stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from quantchat.errors import Cancelled

T = TypeVar("T")


class Watch:
    """Forwards progress that only rises, and turns a requested stop into an exception."""

    def __init__(self, progress: Callable[[str, int, int], None], cancelled: Callable[[], bool]) -> None:
        self._progress = progress
        self.cancelled = cancelled
        self._stage = ""
        self._done = -1

    def check(self) -> None:
        """Raise `Cancelled` if the user asked for a stop."""
        if self.cancelled():
            raise Cancelled("Stopped")

    def report(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Tell how far a stage is; steps that do not rise are dropped."""
        if stage == self._stage and done <= self._done:
            return
        self._stage, self._done = stage, done
        self._progress(stage, done, total)

    def each(self, items: Iterable[T], stage: str, total: int) -> Iterator[T]:
        """Iterate, reporting and checking between the items."""
        for done, item in enumerate(items):
            self.check()
            self.report(stage, done, total)
            yield item
        self.report(stage, total, total)


class _Bar:
    """Stands in for a tqdm bar of transformers."""

    def __init__(self, watch: Watch, stage: str, items: Iterable[Any], total: int) -> None:
        self._watch, self._stage, self._items, self._total = watch, stage, items, total

    def __iter__(self) -> Iterator[Any]:
        return self._watch.each(self._items, self._stage, self._total)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


@contextmanager
def transformers_progress(watch: Watch, stage: str) -> Iterator[None]:
    """Send transformers' own progress bars to the watch while a model is read."""
    from transformers.utils import logging

    def hook(factory: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Bar:
        items = args[0] if args else kwargs.get("iterable") or ()
        total = kwargs.get("total") or (len(items) if hasattr(items, "__len__") else 0)
        return _Bar(watch, stage, items, total)

    previous = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)
