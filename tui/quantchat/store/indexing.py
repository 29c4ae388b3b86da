"""Puts the texts of sessions into the index, in the background."""

from __future__ import annotations

import contextlib
import errno
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from quantchat.domain.chat import Session
from quantchat.domain.found import fold, parts
from quantchat.errors import StorageError
from quantchat.store.atomic import sweep_temporaries
from quantchat.store.index import MANY, SessionIndex, Stop
from quantchat.store.manifest import UNSETTLED, Entries, Entry
from quantchat.store.segments import END, SUFFIX, SegmentReader, SegmentWriter, Spot
from quantchat.store.sessions import SessionStore

MUCH = 4 * 1024**2
"""Bytes of session files whose text is not in the index; so many are read in each search without being noticed."""
SEGMENT_BYTES = 32 * 1024**2
SPARE_BYTES = 512 * 1024**2
"""A disk that has less to spare is left to the sessions."""
SEGMENTS = 12
"""More of them are joined."""
ORPHAN_SECONDS = 600
"""A segment that the index does not name may be another process's, which is about to name it."""
REST_SECONDS = 300
"""For so long a disk that refused is left alone."""

Tell = Callable[[int, int], None]
Text = tuple[str, Entry, bytes]
"""A session's id, its entry, and all that is searched of it."""


class Indexer:
    """Completes the index of a store."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._rest_until = 0.0

    @property
    def _index(self) -> SessionIndex:
        return self._store.index

    @property
    def due(self) -> bool:
        """Whether so many texts are missing that searches take longer."""
        if self._index.folder is None or time.monotonic() < self._rest_until:
            return False
        missing = self._index.missing().values()
        return len(missing) > MANY or sum(entry.stamp[1] for entry in missing) > MUCH

    def complete(self, stop: Stop, tell: Tell) -> None:
        """Write what is missing, unless another thread is about it or the disk is nearly full.

        Args:
            stop: Asked between two sessions; what is written by then counts.
            tell: Called between two segments with the number of sessions done, and of all.
        """
        if not self._index.writing.acquire(blocking=False):
            return
        try:
            # As they are now: what changed since the last look could not be told from what it was.
            self._store.list()
            if self.due:
                self._write(stop, tell)
                self._index.store()
            self._sweep()
        except (OSError, StorageError):
            self._rest_until = time.monotonic() + REST_SECONDS
        finally:
            self._index.writing.release()

    def _write(self, stop: Stop, tell: Tell) -> None:
        folder, missing, poor = self._index.folder, self._settled(), self._poor()
        if folder is None or not _has_room(folder, sum(entry.stamp[1] for entry in missing.values())):
            raise OSError(errno.ENOSPC, "too little room for an index")
        texts = itertools.chain(self._new(missing, stop), self._kept(poor, stop))
        total, done = len(missing) + sum(map(len, poor.values())), 0
        tell(0, total)
        while written := _write_segment(folder, texts):
            for name, entry in written:
                self._index.put_text(name, entry)
            done += len(written)
            tell(done, total)

    def _settled(self) -> Entries:
        return {name: entry for name, entry in self._index.missing().items() if entry.stamp != UNSETTLED}

    def _poor(self) -> dict[str, list[Spot]]:
        """Return the segments to write anew: those that are half out of date, and small ones if there are many."""
        placed = self._index.placed()
        sizes = {segment: _size(self._index.path(segment)) for segment in placed}
        live = {segment: sum(place.length for place, _ in spots) for segment, spots in placed.items()}
        least = SEGMENT_BYTES // 2 if len(placed) > SEGMENTS else 0
        poor = {segment for segment in placed if live[segment] < sizes[segment] / 2 or sizes[segment] < least}
        return {segment: placed[segment] for segment in poor}

    def _new(self, missing: Entries, stop: Stop) -> Iterator[Text]:
        for name in sorted(missing, reverse=True):
            if stop():
                return
            read = self._store.read_for_index(name)
            # One that has changed since the look is left to the next.
            if read is not None and read[1] == missing[name].stamp:
                yield name, missing[name], text_of(read[0])

    def _kept(self, poor: dict[str, list[Spot]], stop: Stop) -> Iterator[Text]:
        entries = self._index.entries()
        for segment, spots in poor.items():
            with contextlib.suppress(FileNotFoundError), SegmentReader(self._index.path(segment)) as reader:
                for place, name in spots:
                    if stop():
                        return
                    text = reader.text(place)
                    if text is not None and name in entries:
                        yield name, entries[name], text

    def _sweep(self) -> None:
        """Remove what programs left that were killed, and segments that are out of use."""
        folder = self._index.folder
        if folder is None:
            return
        sweep_temporaries(folder)
        named = self._index.placed()
        for path in folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):
                if path.name not in named and time.time() - path.stat().st_mtime > ORPHAN_SECONDS:
                    path.unlink()


def text_of(session: Session) -> bytes:
    """Return all that is searched of a session, folded."""
    return "\0".join(fold(part.text) for part in parts(session)).encode("utf-8", "replace") + END


def _write_segment(folder: Path, texts: Iterator[Text]) -> list[tuple[str, Entry]]:
    written = []
    with SegmentWriter(folder) as writer:
        for name, entry, text in texts:
            written.append((name, Entry(entry.stamp, entry.summary, writer.add(text))))
            if writer.size >= SEGMENT_BYTES:
                break
    return written


def _has_room(folder: Path, needed: int) -> bool:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free - needed > SPARE_BYTES


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
