"""An index of the sessions on disk: the rows of the list, and texts in which a search looks first.

It only ever says which files need not be read. What is shown as a hit is read from the session itself, and an entry
counts only while the file has the inode, size and time that it was made from. It may be deleted at any time.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from quantchat.domain.chat import SessionSummary
from quantchat.store.manifest import UNSETTLED, Entries, Entry, Manifest, Stamp, settled
from quantchat.store.segments import SegmentReader, Spot, overwrite

MANY = 64
"""Sessions that changed since the index was stored; so many are read again at the next start without being noticed."""

Stamps = dict[str, Stamp]
ReadRow = Callable[[str], "tuple[SessionSummary, Stamp] | None"]
Stop = Callable[[], bool]


class SessionIndex:
    """What is known of the files of a folder; to be used from any thread.

    Args:
        root: The sessions.
        folder: Where it is kept; None keeps the rows in memory and has no texts.

    Attributes:
        total: Sessions that the last look found; less are known while the rest is being read.
        writing: Held by who puts texts into it.
    """

    def __init__(self, root: Path, folder: Path | None) -> None:
        self.root = root
        self.folder = folder
        self.total = 0
        self.writing = threading.Lock()
        self._manifest = Manifest(folder / "manifest", root) if folder is not None else None
        self._entries: Entries = {}
        self._loaded = False
        self._unstored = 0
        self._checked: dict[str, Stamp] = {}
        self._looking = threading.Lock()
        self._change = threading.RLock()

    # Rows

    def known(self) -> list[SessionSummary]:
        """Return what is known now, without a look at the disk."""
        return [entry.summary for entry in self.entries().values()]

    def rows(self, look: Callable[[], Stamps], read: ReadRow) -> list[SessionSummary]:
        """Return the rows of all sessions as they are on the disk; those that changed are read, the newest first.

        Raises:
            OSError: if `look` does.
        """
        with self._looking:
            self.adopt()
            stamps = look()
            self.total = len(stamps)
            self._forget(stamps)
            for name in sorted((name for name in stamps if not self._holds(name, stamps[name])), reverse=True):
                self._put_row(name, read(name))
            if self._unstored > MANY:
                self.store()
            return self.known()

    def adopt(self) -> None:
        """Take over what is stored: all of it at first, later what another process wrote of the files known here."""
        if self._manifest is None or (self._loaded and not self._manifest.replaced):
            return
        theirs = self._manifest.read()
        with self._change:
            same = {name: entry for name, entry in theirs.items() if entry.place and self._holds(name, entry.stamp)}
            self._entries.update(same if self._loaded else theirs)
            self._checked.clear()
            self._loaded = True

    def store(self) -> None:
        """Put it on the disk; one that refuses costs the next start some reading."""
        self.adopt()
        if self._manifest is not None:
            self._unstored = 0
            self._manifest.write(self.entries())

    def _holds(self, name: str, found: Stamp) -> bool:
        entry = self._entries.get(name)
        return entry is not None and entry.stamp == found

    def _forget(self, stamps: Stamps) -> None:
        """Drop what is no longer so, and take its text from the disk."""
        with self._change:
            stale = {name: entry for name, entry in self._entries.items() if stamps.get(name) != entry.stamp}
            for name, entry in stale.items():
                if name in stamps:
                    self._entries[name] = Entry(UNSETTLED, entry.summary)
                else:
                    del self._entries[name]
                    self._unstored += 1
        if self.folder is not None:
            overwrite(self.folder, [entry.place for entry in stale.values() if entry.place is not None])

    def _put_row(self, name: str, row: tuple[SessionSummary, Stamp] | None) -> None:
        with self._change:
            # One that cannot be read stays unknown, however often it is tried.
            self._unstored += row is not None or name in self._entries
            if row is None:
                self._entries.pop(name, None)
            else:
                self._entries[name] = Entry(settled(row[1]), row[0])

    # Texts

    def entries(self) -> Entries:
        """Return what is known of each session."""
        return dict(self._entries)

    def missing(self) -> Entries:
        """Return the entries whose text is not in the index."""
        return {name: entry for name, entry in self.entries().items() if entry.place is None}

    def placed(self) -> dict[str, list[Spot]]:
        """Return by segment which texts it holds, in the order in which they lie there."""
        segments: defaultdict[str, list[Spot]] = defaultdict(list)
        for name, entry in self.entries().items():
            if entry.place is not None:
                segments[entry.place.segment].append((entry.place, name))
        return {segment: sorted(spots, key=lambda spot: spot[0].start) for segment, spots in segments.items()}

    def put_text(self, name: str, entry: Entry) -> None:
        """Take the place of a text, unless the session has changed since it was read."""
        with self._change:
            now = self._entries.get(name)
            if now is not None and now.stamp == entry.stamp:
                self._entries[name] = entry
                self._unstored += 1

    def path(self, segment: str) -> Path:
        """Return the file of a segment."""
        assert self.folder is not None
        return self.folder / Path(segment).name

    def matching(self, needle: str, stop: Stop) -> tuple[set[str], set[str]]:
        """Return the sessions that hold a folded text, and those that must be read to know; call `rows` before."""
        unsure = set(self.missing())
        sure: set[str] = set()
        for segment, spots in self.placed().items():
            lost = self._damaged(segment, spots)
            unsure |= lost
            sound = [spot for spot in spots if spot[1] not in lost] if lost else spots
            try:
                with SegmentReader(self.path(segment)) as reader:
                    sure.update(reader.holding(needle.encode("utf-8", "replace"), sound, stop))
            except OSError:
                unsure |= self.lose(sound)
        return sure - unsure, unsure

    def _damaged(self, segment: str, spots: list[Spot]) -> set[str]:
        """Check a segment that was not checked since it changed; return the sessions that it lost."""
        try:
            with SegmentReader(self.path(segment)) as reader:
                state = reader.state()
                if self._checked.get(segment) == state:
                    return set()
                damaged = set(reader.damaged(spots))
        except OSError:
            return self.lose(spots)
        self._checked[segment] = state
        return self.lose(spot for spot in spots if spot[1] in damaged)

    def lose(self, spots: Iterable[Spot]) -> set[str]:
        """Forget where texts lie that are not there any more; return whose they were."""
        lost = set()
        with self._change:
            for place, name in spots:
                lost.add(name)
                entry = self._entries.get(name)
                if entry is not None and entry.place == place:
                    self._entries[name] = Entry(entry.stamp, entry.summary)
                    self._unstored += 1
        return lost
