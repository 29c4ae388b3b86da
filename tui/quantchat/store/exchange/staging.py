"""Sessions that come in from files: all of them together, or none.

They are written to a folder of their own first. Once all are on the disk, a file named `ready` says so, and they move
to the sessions folder; whoever finds such a folder after a crash moves what is left in it, or takes it away if it is
not ready.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec

from quantchat.domain.chat import Origin, Session
from quantchat.domain.text import clean
from quantchat.store.atomic import (
    ABANDONED_SECONDS,
    host_label,
    private_dir,
    process_lives,
    sync_folder,
    translate_os_error,
)
from quantchat.store.exchange.progress import Progress
from quantchat.store.exchange.stamps import stamped
from quantchat.store.exchange.tree import NotATree
from quantchat.store.schema import NewerSchema, decode_session, encode_session
from quantchat.store.sessions import SessionStore

READY = "ready"
_ID = re.compile(r"\d{8}T\d{9}-[0-9a-f]{6}")
_FOLDER = re.compile(r"(?P<host>[^.]+)\.(?P<pid>\d+)\.[0-9a-f]+")
_own: set[str] = set()
"""Folders of this process: its id alone does not tell, as another one may have had it before."""


class Row(NamedTuple):
    """A session that came in."""

    id: str
    title: str
    messages: int


class Incoming:
    """Sessions that wait to come in; leaving the `with` block before `commit` forgets them.

    Attributes:
        rows: What waits.
        known: How many were left out because they are here already.
    """

    def __init__(self, store: SessionStore, progress: Progress | None = None) -> None:
        self.rows: list[Row] = []
        self.known = 0
        self._store = store
        self._progress = progress or Progress()
        self._folder = _incoming(store.root) / f"{host_label()}.{os.getpid()}.{os.urandom(4).hex()}"
        self._ids: set[str] = set()

    def __enter__(self) -> Incoming:
        _own.add(self._folder.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def add(self, session: Session, source: str) -> None:
        """Write a session beside the others, under an id that is free, unless it is here already.

        Raises:
            StorageError: if the disk refuses.
            NotATree: if it holds a value that could not be read back.
        """
        self._progress.check()
        if self._is_known(session):
            self.known += 1
            return
        session.id = self._free_id(session)
        session.origin = session.origin or Origin(source=clean(source, newlines=False))
        try:
            data = encode_session(session)
        except msgspec.MsgspecError as error:
            raise NotATree(str(error)) from error
        path = private_dir(self._folder) / f"{session.id}.json"
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(data)
        except OSError as error:
            raise translate_os_error(error, path) from error
        self._ids.add(session.id)
        self.rows.append(Row(session.id, session.title, len(session.messages)))

    def _is_known(self, session: Session) -> bool:
        """Whether a session of this id is on the disk that has all messages of this one."""
        if not _ID.fullmatch(session.id):
            return False
        try:
            there = decode_session(self._store.path(session.id).read_bytes())
        except (OSError, msgspec.MsgspecError, NewerSchema):
            return False
        return all(there.messages.get(key) == message for key, message in session.messages.items())

    def _free_id(self, session: Session) -> str:
        wanted, number = session.id, 0
        while not _ID.fullmatch(wanted) or wanted in self._ids or os.path.lexists(self._store.path(wanted)):
            number += 1
            wanted = stamped(session.created, f"{session.id} {number}")
        return wanted

    def commit(self) -> int:
        """Let all come in; return how many.

        Raises:
            StorageError: if the disk refuses; then none came in.
            Cancelled: if the user said stop before.
        """
        self._progress.check()
        if not self.rows:
            return 0
        self._progress.may_be_left = False
        try:
            self._sync()
            _move_in(self._folder, private_dir(self._store.root))
        except OSError as error:
            raise translate_os_error(error, self._folder) from error
        return len(self.rows)

    def _sync(self) -> None:
        self._progress.total, self._progress.done = len(self.rows), 0
        for row in self.rows:
            self._progress.check()
            _sync_file(self._folder / f"{row.id}.json")
            self._progress.done += 1
        (self._folder / READY).touch(mode=0o600)
        _sync_file(self._folder / READY)
        sync_folder(self._folder)

    def discard(self) -> None:
        """Forget what did not come in."""
        _take_away(self._folder)
        _own.discard(self._folder.name)


def finish_imports(root: Path) -> None:
    """Bring to an end what dead processes began: let in what was ready, forget the rest.

    Raises:
        StorageError: if the disk refuses; it is tried again at the next start.
    """
    folder = _incoming(root)
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        left = folder / name
        if not _abandoned(left):
            continue
        try:
            if (left / READY).exists():
                _move_in(left, private_dir(root))
        except OSError as error:
            raise translate_os_error(error, left) from error
        _take_away(left)
    # Killed before it had made its own folder in there.
    with contextlib.suppress(OSError):
        folder.rmdir()


def _move_in(folder: Path, root: Path) -> None:
    """Move sessions to where they belong; an error, or Ctrl+C, takes back what was moved."""
    moved: list[Path] = []
    try:
        for path in sorted(folder.glob("*.json")):
            # The link comes first: after a crash in between, the second try finds its own file there.
            with contextlib.suppress(FileExistsError):
                _link(path, root / path.name)
                moved.append(root / path.name)
        sync_folder(root)
    except BaseException:
        with contextlib.suppress(OSError):
            (folder / READY).unlink()
        for path in moved:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def _link(path: Path, target: Path) -> None:
    """Give a file its second name; where the file system has no such thing, move it."""
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        path.rename(target)


def _incoming(root: Path) -> Path:
    return root.parent / "incoming"


def _abandoned(folder: Path) -> bool:
    writer = _FOLDER.fullmatch(folder.name)
    if writer is None or folder.name in _own:
        return False
    pid = int(writer["pid"])
    if writer["host"] == host_label() and (pid == os.getpid() or not process_lives(pid)):
        return True
    # The process is of another machine, or its id belongs to somebody else since the machine was started again.
    with contextlib.suppress(OSError):
        return time.time() - folder.stat().st_mtime > ABANDONED_SECONDS
    return False


def _take_away(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
