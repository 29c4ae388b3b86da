"""One import from its files to its report: read, perhaps asked about, then let in or forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from quantchat.domain.text import clean
from quantchat.errors import StorageError
from quantchat.store.exchange.progress import Progress
from quantchat.store.exchange.reading import Bad, Read, Reader
from quantchat.store.exchange.staging import Incoming
from quantchat.store.exchange.tree import NotATree
from quantchat.store.sessions import SessionStore

LISTED = 10
"""Bad parts that are told one by one; more are counted."""


class Fault(NamedTuple):
    """A part of a file that cannot be imported."""

    file: str
    line: int
    cause: str

    def sentence(self) -> str:
        """Name file, line and cause."""
        return clean(f"{self.file}, line {self.line:,}: {self.cause}", newlines=False)


class Import:
    """Sessions on their way in; what was not committed by the end of the `with` block is forgotten.

    Attributes:
        faults: The first bad parts, and `bad`, how many there are.
    """

    def __init__(self, store: SessionStore, progress: Progress | None = None) -> None:
        self.progress = progress or Progress()
        self.faults: list[Fault] = []
        self.bad = 0
        self._reader = Reader(self.progress)
        self.incoming = Incoming(store, self.progress)

    def __enter__(self) -> Import:
        self.incoming.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whoever still reads on another thread must not begin anew.
        self.progress.cancel()
        self.incoming.discard()

    def read(self, path: Path) -> None:
        """Read a file; bad parts of it become `faults`.

        Raises:
            StorageError: if it cannot be read at all, or the disk refuses.
            Cancelled: if the user said stop.
        """
        self._take(self._reader.read_path(path), path.name)

    def read_open(self, file: BinaryIO, name: str) -> None:
        """Read an open file, such as standard input; as `read`."""
        self._take(self._reader.read(file, name), name)

    def _take(self, found: Iterator[Read | Bad], name: str) -> None:
        for item in found:
            if isinstance(item, Bad):
                self._note(Fault(name, *item))
                continue
            try:
                self.incoming.add(item.session, f"{item.kind}: {name}")
            except NotATree as error:
                self._note(Fault(name, item.line, str(error)))
            self.progress.sessions += 1

    def _note(self, fault: Fault) -> None:
        self.bad += 1
        if len(self.faults) < LISTED:
            self.faults.append(fault)

    def refusal(self, remedy: str = "") -> StorageError:
        """Explain why nothing comes in where something is bad."""
        more = f"; and {self.bad - len(self.faults):,} more" if self.bad > len(self.faults) else ""
        told = "; ".join(fault.sentence() for fault in self.faults) + more
        return StorageError("Nothing was imported", told, remedy, code="import-unreadable")

    def commit(self) -> int:
        """Let all that was read come in; return how many sessions.

        Raises:
            StorageError: if the disk refuses; then none came in.
            Cancelled: if the user said stop before.
        """
        return self.incoming.commit()

    def summary(self) -> str:
        """Say in a sentence what there is."""
        rows = self.incoming.rows
        parts = [f"{_count(len(rows), 'session')} with {_count(sum(row.messages for row in rows), 'message')}"]
        if self.incoming.known:
            parts.append(f"{_count(self.incoming.known, 'session')} known already")
        if self.bad:
            parts.append(f"{_count(self.bad, 'part')} that cannot be read")
        left = ", ".join(f"{count:,} {name}" for name, count in self._reader.left_out.items())
        return "; ".join(parts) + (f". Left out: {left}" if left else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
