"""Unloads a model that nobody uses; the next prompt loads it again."""

from __future__ import annotations

import time
from collections.abc import Callable


class IdleUnload:
    """Watches how long a loaded model has answered nothing.

    Args:
        minutes: After so many it is unloaded; 0 never.
        in_use: Whether a model is loading, answering, or has prompts that wait for it.
        loaded: Whether there is one.
        unload: Unloads it; is told the note to show.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        minutes: int,
        *,
        in_use: Callable[[], bool],
        loaded: Callable[[], bool],
        unload: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._minutes = minutes
        self._in_use, self._loaded, self._unload, self._clock = in_use, loaded, unload, clock
        self._since = clock()

    def touch(self) -> None:
        """Say that it answered: an answer may be over before anybody looks."""
        self._since = self._clock()

    def check(self) -> None:
        """Look, once in a while; unload when the time is over."""
        now = self._clock()
        if not self._minutes or self._in_use() or not self._loaded():
            self._since = now
        elif now - self._since >= 60 * self._minutes:
            self._since = now
            self._unload(f"Unloaded after {self._minutes} min idle; it loads again when you send")
