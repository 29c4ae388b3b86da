"""How far a download is, how fast, and when it will be done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from quantchat.services.pull.files import RemoteFile
from quantchat.services.pull.words import FileMoved, Moved

WINDOW_SECONDS = 8.0
"""Speed is taken over so long."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One download at one moment.

    Attributes:
        done: Bytes that are there, those of earlier attempts too.
        rate: Bytes per second that come over the network now; 0 if that is not known yet.
        seconds_left: None if it cannot be told.
        note: What a file waits for, if all that are under way wait.
    """

    done: int
    total: int
    files_done: int
    files: int
    rate: float = 0.0
    seconds_left: float | None = None
    note: str = ""

    @property
    def share(self) -> float:
        """How much of it is there, 0 to 1."""
        return self.done / self.total if self.total else 1.0


class Tracker:
    """Puts the reports of a download together; `clock` counts seconds."""

    def __init__(self, files: Sequence[RemoteFile], clock: Callable[[], float] = time.monotonic) -> None:
        self.files = {file.path: FileMoved(path=file.path, done=0, state="waiting") for file in files}
        self._sizes = {file.path: file.size for file in files}
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque([(clock(), 0)])

    def take(self, moved: Moved) -> Progress:
        """Take a report; return how things stand."""
        self.files |= {file.path: file for file in moved.files}
        now = self._clock()
        self._seen.append((now, moved.received))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_SECONDS:
            self._seen.popleft()
        return self.now()

    def now(self) -> Progress:
        """Return how things stand."""
        done, total = sum(file.done for file in self.files.values()), sum(self._sizes.values())
        (began, before), (ended, after) = self._seen[0], self._seen[-1]
        rate = (after - before) / (ended - began) if ended > began else 0.0
        under_way = [file for file in self.files.values() if file.state in ("fetching", "checking")]
        waits = bool(under_way) and all(file.note for file in under_way)
        return Progress(
            done=done,
            total=total,
            files_done=sum(file.state == "done" for file in self.files.values()),
            files=len(self.files),
            rate=rate,
            seconds_left=(total - done) / rate if rate else None,
            note=under_way[0].note if waits else "",
        )
