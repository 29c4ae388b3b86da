"""Earlier prompts, newest first: those of this run at once, those of others from the file they share."""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from quantchat.domain.attachments import Draft
from quantchat.errors import StorageError
from quantchat.store.history import Entry, PromptHistory


class Recall:
    """The prompt history of this program, kept in memory when the disk refuses."""

    def __init__(self, history: PromptHistory | None = None) -> None:
        self._history = history or PromptHistory()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history")
        self._read: list[Entry] = []
        self._stamp = (-1, -1)
        self._last: Entry | None = None
        self._unwritten: deque[Entry] = deque()

    def add(self, draft: Draft) -> None:
        """Remember a prompt that was sent; the file is written in the background."""
        entry = Entry.of(draft)
        if entry == self._last:
            return
        self._last = entry
        self._unwritten.append(entry)
        self._writer.submit(self._write, entry)

    def _write(self, entry: Entry) -> None:
        # What was asked stands in the sessions; a disk that refuses is reported by them.
        with contextlib.suppress(StorageError):
            self._history.append(entry)
            self._unwritten.remove(entry)

    def entries(self) -> list[Entry]:
        """Return all prompts, newest first."""
        unwritten = list(self._unwritten)
        stamp = self._history.stamp()
        if stamp != self._stamp:
            self._read, self._stamp = self._history.entries(), stamp
        # One that is being written now may stand in both.
        return [entry for entry, _ in groupby([*reversed(unwritten), *reversed(self._read)])]

    def flush(self) -> None:
        """Wait until everything is written."""
        self._writer.submit(lambda: None).result()


class Walk:
    """One walk through earlier prompts, from the empty prompt back and forth."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries
        self._place = -1

    def older(self) -> Draft | None:
        """Go one back; None at the oldest."""
        if self._place + 1 >= len(self._entries):
            return None
        self._place += 1
        return self._entries[self._place].draft()

    def newer(self) -> Draft:
        """Go one forward; an empty prompt behind the newest."""
        self._place = max(self._place - 1, -1)
        return self._entries[self._place].draft() if self._place >= 0 else Draft()
