"""Trying again what may go well the next time, and telling meanwhile that there is still somebody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from quantchat.services.pull.refusals import Retry, gave_up
from quantchat.services.pull.words import Waiting

T = TypeVar("T")
ATTEMPTS = 4
PAUSE = 0.5
BEAT = 2.0


class Patience:
    """What the requests of one look-up share; `say` hears every few seconds what they wait for."""

    def __init__(self, say: Callable[[Waiting], None]) -> None:
        self._say = say
        self.note = ""
        threading.Thread(target=self._beat, daemon=True).start()

    def ask(self, request: Callable[[], T], what: str) -> T:
        """Return what a request brings, after some attempts if need be.

        Raises:
            FetchError: if it is refused, or fails each time.
        """
        why = ""
        for attempt in range(ATTEMPTS):
            try:
                return request()
            except Retry as failure:
                why = str(failure)
                if attempt < ATTEMPTS - 1:
                    self._wait(why, failure.seconds if failure.seconds is not None else PAUSE * 2**attempt)
        raise gave_up(what, why)

    def _wait(self, why: str, seconds: float) -> None:
        self.note = f"{why}; trying again" + (f" in {seconds:.0f} s" if seconds > BEAT else "")
        self._say(Waiting(note=self.note))
        time.sleep(seconds)
        self.note = ""

    def _beat(self) -> None:
        while True:
            self._say(Waiting(note=self.note))
            time.sleep(BEAT)
