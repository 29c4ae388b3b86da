"""Several sessions into one file or into a folder, with what is left out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from quantchat.domain.chat import Session
from quantchat.errors import ErrorReport, StorageError
from quantchat.store.atomic import translate_os_error
from quantchat.store.exchange.formats import Format
from quantchat.store.exchange.progress import Progress
from quantchat.store.exchange.writing import file_name, free_path, write_file
from quantchat.store.recovery import overlay
from quantchat.store.sessions import SessionStore

Load = Callable[[str], Session]


def stored(store: SessionStore) -> Load:
    """Return what reads a session as it is on the disk, with what its journal holds, and changes nothing there."""

    def load(session_id: str) -> Session:
        session = store.load(session_id)
        overlay(session, store.journal_path(session_id), running=True)
        return session

    return load


class Exporter:
    """Writes sessions in one format.

    Attributes:
        written: The files.
        unread: Why sessions were left out that could not be read.
        lost: What the format could not hold of the sessions.
    """

    def __init__(self, kind: Format, load: Load, *, replace: bool = False, progress: Progress | None = None) -> None:
        self.kind = kind
        self.written: list[Path] = []
        self.unread: list[ErrorReport] = []
        self.lost: dict[str, None] = {}
        self._load, self._replace = load, replace
        self.progress = progress or Progress()

    def write(self, session_ids: Sequence[str], target: Path) -> None:
        """Write sessions to a file, or files into a folder; a folder is made where the format holds but one session.

        Raises:
            StorageError: if the disk refuses; a file is then not there, those before it are.
            Cancelled: if the user said stop.
        """
        several = len(session_ids) > 1
        self.progress.total = len(session_ids)
        if several and self.kind.brackets is None:
            self._write_each(session_ids, target)
        elif target.is_dir() and several:
            self._write_one(session_ids, free_path(target, f"sessions{self.kind.suffix}"))
        elif target.is_dir():
            session = self._load(session_ids[0])
            self._write_one(session_ids, free_path(target, file_name(session.title, self.kind)))
        else:
            self._write_one(session_ids, target)

    def text(self, session_ids: Sequence[str]) -> Iterator[str]:
        """Yield the sessions as the pieces of one text."""
        return self.kind.document(self.sessions(session_ids), several=len(session_ids) > 1)

    def _write_one(self, session_ids: Sequence[str], path: Path) -> None:
        several = len(session_ids) > 1
        write_file(path, self.kind, self.sessions(session_ids), several=several, replace=self._replace)
        self.written.append(path)

    def _write_each(self, session_ids: Sequence[str], folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise translate_os_error(error, folder) from error
        for session in self.sessions(session_ids):
            path = free_path(folder, file_name(session.title, self.kind))
            write_file(path, self.kind, [session], several=False)
            self.written.append(path)

    def sessions(self, session_ids: Sequence[str]) -> Iterator[Session]:
        """Read sessions one by one; one alone that cannot be read is an error, of several it is noted."""
        for session_id in session_ids:
            self.progress.check()
            try:
                session = self._load(session_id)
            except StorageError as error:
                if len(session_ids) == 1:
                    raise
                self.unread.append(error.report)
                continue
            self.lost |= dict.fromkeys(self.kind.losses(session))
            yield session
            self.progress.sessions += 1
            self.progress.done += 1
        # What was stopped while the disk hung must not take its place later.
        self.progress.check()
