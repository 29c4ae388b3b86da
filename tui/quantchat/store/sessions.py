"""Sessions on disk: one JSON file each, nothing ever deleted."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quantchat import paths
from quantchat.domain.chat import SCHEMA, UNTITLED, Session, SessionSummary
from quantchat.errors import ErrorReport, SessionConflict, SessionNewer, SessionUnreadable, StorageError
from quantchat.store.atomic import move_aside, private_dir, translate_os_error, write_atomic
from quantchat.store.schema import NewerSchema, decode_readable, decode_summary, encode_session

if TYPE_CHECKING:
    from quantchat.store.index import SessionIndex

Reports = list[ErrorReport]
Rows = list[SessionSummary]
Stamp = tuple[int, ...]
"""Tells one state of a file from another; empty where there is no file."""

_ID = re.compile(r"\d{8}T\d{9}-[0-9a-f]{6}")


def digest(data: bytes) -> bytes:
    """Return what tells one content of a file from another (SHA-256)."""
    from hashlib import sha256

    return sha256(data).digest()


def check_id(session_id: str) -> str:
    """Return an id that is safe in a file name.

    Raises:
        StorageError: `session-missing`, as no session can be called so.
    """
    if not _ID.fullmatch(session_id):
        raise missing(session_id)
    return session_id


class SessionStore:
    """The folder of sessions.

    Attributes:
        problems: What went wrong beside the results, oldest first; see `take_problems`.
        assumed_prompt: The system prompt that new sessions have by themselves; alone it is nothing to keep.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._made: SessionIndex | None = None
        self._refused: set[str] = set()
        self.problems: Reports = []
        self.assumed_prompt = ""

    @property
    def root(self) -> Path:
        """The folder; by default that of `paths`, asked anew each time."""
        return self._root or paths.sessions_dir()

    @property
    def quarantine(self) -> Path:
        """Where files that do not parse are kept."""
        return self.root.parent / paths.quarantine_dir().name

    @property
    def trash(self) -> Path:
        """Where deleted sessions are kept."""
        return self.root.parent / "trash"

    def path(self, session_id: str) -> Path:
        """Return the file of a session."""
        return self.root / f"{check_id(session_id)}.json"

    def is_stored(self, session_id: str) -> bool:
        """Whether a session has a file."""
        return _ID.fullmatch(session_id) is not None and os.path.exists(self.path(session_id))

    def journal_path(self, session_id: str) -> Path:
        """Return the journal of a session's running answer."""
        return self.root / f"{check_id(session_id)}.journal"

    def create(self) -> Session:
        """Start a session in memory; its file appears when there is something to keep."""
        return Session.new()

    def load(self, session_id: str) -> Session:
        """Read a session; one of a later schema as far as it is known here, to be shown and not to be written.

        Raises:
            SessionUnreadable: if it does not parse (it is then in quarantine).
            SessionNewer: if it is of a later schema, and nothing of it is known here.
            StorageError: if there is no such session or the disk refuses.
        """
        return self.load_stamped(session_id)[0]

    def load_stamped(self, session_id: str) -> tuple[Session, Stamp]:
        """Read a session, and the stamp of the file that it was read from; otherwise as `load`."""
        path = self.path(session_id)
        data, stamp = _read(path)
        try:
            session = decode_readable(data)
        except NewerSchema as error:
            raise _newer(path, str(error)) from error
        except msgspec.DecodeError as error:
            raise self._set_aside(path, stamp, str(error)) from error
        # A copied file still names the session that it was copied from; saving must not go there.
        session.id = session_id
        return session, stamp

    def stamp(self, session_id: str) -> Stamp:
        """Return the stamp of a session's file as it is now.

        Raises:
            StorageError: if the disk refuses.
        """
        path = self.path(session_id)
        try:
            return stamp_of(path)
        except OSError as error:
            raise translate_os_error(error, path, reading=True) from error

    def save(self, session: Session) -> None:
        """Write a session; an empty one that has no file yet stays in memory.

        Raises:
            StorageError: if the disk refuses; the file of before is then untouched.
        """
        data = self.encode(session)
        if data is not None:
            self.write(session.id, data)

    def has_content(self, session: Session) -> bool:
        """Whether a session holds anything that somebody wrote."""
        own_prompt = session.system_prompt if session.system_prompt != self.assumed_prompt else ""
        written = session.messages or session.queued or session.draft or own_prompt or session.template
        # What was deleted can be put back, and waits in the file.
        return bool(written or session.deleted or session.edits or session.title != UNTITLED)

    def encode(self, session: Session) -> bytes | None:
        """First half of `save`, for a caller that writes on another thread; None if there is nothing to keep.

        Raises:
            StorageError: `session-invalid`, if the session holds a value that could not be read back.
            SessionNewer: if a later quantchat wrote it.
        """
        path = self.path(session.id)
        if session.version > SCHEMA:
            raise newer_error(path, session.version)
        if not self.has_content(session) and not os.path.exists(path):
            return None
        try:
            return encode_session(session)
        except msgspec.MsgspecError as error:
            raise StorageError(
                "The session could not be saved",
                f"{path.name} holds a value that could not be read back: {error}",
                "Put its settings back to the defaults; what was saved before is untouched",
                code="session-invalid",
            ) from error

    def digest(self, session_id: str) -> bytes:
        """Return the SHA-256 of a session's file; nothing if there is none.

        Raises:
            StorageError: if it cannot be read.
        """
        path = self.path(session_id)
        try:
            return digest(path.read_bytes())
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise translate_os_error(error, path, reading=True) from error

    def write(self, session_id: str, data: bytes, *, onto: Stamp | None = None) -> Stamp:
        """Second half of `save`: put what `encode` made on the disk; return the stamp of the new file.

        Args:
            onto: The stamp of the file that may be replaced; None for any.

        Raises:
            SessionConflict: if the file is another one than `onto`; it is untouched.
            StorageError: if the disk refuses; the file of before is then untouched.
        """
        path = self.path(session_id)
        private_dir(self.root)
        # A file that is gone is no conflict: what is here is then all there is.
        if onto is not None and self.stamp(session_id) not in (onto, ()):
            raise SessionConflict("Another program has changed this session", f"{path.name} is not as it was read")
        write_atomic(path, data)
        return self.stamp(session_id)

    def list(self) -> Rows:
        """Return all readable sessions, the last changed first; what cannot be read goes to `problems`."""
        try:
            return _newest_first(self.index.rows(self._stamps, self._row))
        except FileNotFoundError:
            return []
        except OSError as error:
            self.problems.append(translate_os_error(error, self.root, reading=True).report)
            return []

    def known(self) -> Rows:
        """Return what `list` knows while it is at work on another thread."""
        return _newest_first(self.index.known())

    @property
    def index(self) -> SessionIndex:
        """What is known of the files without reading them; that of the user's own folder is kept between starts."""
        from quantchat.store.index import SessionIndex

        if self._made is None or self._made.root != self.root:
            self._made = SessionIndex(self.root, paths.cache_dir() / "sessions" if self._root is None else None)
        return self._made

    def read_for_index(self, session_id: str) -> tuple[Session, Stamp] | None:
        """Read a session and the stamp of its file; None if it cannot be read, which `list` reports."""
        path = self.path(session_id)
        try:
            data, found = _read_stamped(path)
            session = decode_readable(data)
        except (OSError, NewerSchema, msgspec.DecodeError):
            return None
        session.id = session_id
        return session, found

    def delete(self, session_id: str) -> None:
        """Move a session and its journal to the trash.

        Raises:
            StorageError: if there is no such session or it cannot be moved.
        """
        path = self.path(session_id)
        moved = []
        try:
            # A journal alone, of a session that the disk had no room for, would come back at the next start.
            for file in (path, self.journal_path(session_id)):
                with contextlib.suppress(FileNotFoundError):
                    moved.append(move_aside(file, self.trash))
        except OSError as error:
            raise translate_os_error(error, path) from error
        if not moved:
            raise missing(session_id)

    def rename(self, session_id: str, title: str) -> None:
        """Give a session that is not open another title; its place in the list stays.

        Raises:
            StorageError: as `load` and `save`.
        """
        session = self.load(session_id)
        if words := " ".join(title.split()):
            session.title, session.named_by = words, "user"
        self.save(session)

    def take_problems(self) -> Reports:
        """Return the problems since the last call, and forget them."""
        taken, self.problems = self.problems, []
        return taken

    def _stamps(self) -> dict[str, Stamp]:
        found = {}
        # By descriptor: a path would be walked for each of the files.
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with os.scandir(folder) as files:
                for file in files:
                    name = file.name
                    if name.endswith(".json") and _ID.fullmatch(name, 0, len(name) - 5):
                        with contextlib.suppress(FileNotFoundError):
                            found[name[:-5]] = _stamp(file.stat())
        finally:
            os.close(folder)
        return found

    def _row(self, session_id: str) -> tuple[SessionSummary, Stamp] | None:
        path = self.root / f"{session_id}.json"
        found: Stamp = ()
        try:
            data, found = _read_stamped(path)
            return decode_summary(session_id, data), found
        except FileNotFoundError:
            return None
        except OSError as error:
            self._refuse_once(translate_os_error(error, path, reading=True), session_id)
        except NewerSchema as error:
            self._refuse_once(_newer(path, str(error)), session_id)
        except msgspec.DecodeError as error:
            self._refuse_once(self._set_aside(path, found, str(error)), session_id)
        return None

    def _refuse_once(self, problem: StorageError, session_id: str) -> None:
        if session_id not in self._refused:
            self._refused.add(session_id)
            self.problems.append(problem.report)

    def _set_aside(self, path: Path, stamp: Stamp, reason: str) -> SessionUnreadable:
        try:
            if stamp_of(path) != stamp:
                # Somebody was just copying or repairing it: the next look may find it whole.
                return SessionUnreadable("A session file is being written", f"{path.name}: {reason}", "Try again")
            kept = f"It was moved to {move_aside(path, self.quarantine)}"
        except (OSError, StorageError) as error:
            kept = f"It is still at {path}, as it could not be moved ({error})"
        return SessionUnreadable(
            "A session file does not parse",
            f"{path.name}: {reason.rstrip('.')}. {kept}",
            "It is plain JSON: repair it in an editor and move it back to the sessions folder",
        )


def stamp_of(path: Path) -> Stamp:
    """Return what tells this state of a file from others; empty where there is none.

    Raises:
        OSError: if the disk refuses.
    """
    try:
        # Opened: a network file system asks its server then, and not before.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ()
    try:
        return _stamp(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _read(path: Path) -> tuple[bytes, Stamp]:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(), _stamp(os.fstat(file.fileno()))
    except FileNotFoundError as error:
        raise missing(path.stem) from error
    except OSError as error:
        raise translate_os_error(error, path, reading=True) from error


def _read_stamped(path: Path) -> tuple[bytes, Stamp]:
    with open(path, "rb", buffering=0) as file:
        found = _stamp(os.fstat(file.fileno()))
        return file.read(), found


def _newest_first(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: (row.updated, row.id), reverse=True)


def missing(session_id: str) -> StorageError:
    """Say that a session is not there."""
    return StorageError(
        "There is no such session",
        f"nothing is stored under the id {session_id[:80]!r}",
        "F3 lists the sessions that are there",
        code="session-missing",
    )


def newer_error(path: Path, version: int) -> SessionNewer:
    """Say that a session can only be read here."""
    return _newer(path, str(NewerSchema(version)))


def _newer(path: Path, reason: str) -> SessionNewer:
    return SessionNewer(
        "This session was written by a later quantchat",
        f"{path.name} has {reason}. The file is left as it is",
        "Upgrade quantchat to write it",
    )
