"""What transformers would draw as progress bars, as plain steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

OnStep = Callable[[int, int], None]


class _Bar:
    """Stands in for a tqdm bar, which transformers either iterates or updates."""

    def __init__(self, on_step: OnStep, items: Iterable[Any], total: int) -> None:
        self._on_step, self._items, self._total, self._done = on_step, items, total, 0

    def __iter__(self) -> Iterator[Any]:
        self._on_step(0, self._total)
        for item in self._items:
            yield item
            self.update()

    def update(self, count: int = 1) -> None:
        self._done += int(count)
        self._on_step(self._done, self._total)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


@contextmanager
def transformers_bars(on_step: OnStep) -> Iterator[None]:
    """Call `on_step` with done and total (0: unknown) for every step of a bar; what it raises ends the work."""
    from transformers.utils import logging

    def hook(factory: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Bar:
        items = args[0] if args else kwargs.get("iterable") or ()
        total = kwargs.get("total") or (len(items) if hasattr(items, "__len__") else 0)
        return _Bar(on_step, items, int(total))

    previous = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)
