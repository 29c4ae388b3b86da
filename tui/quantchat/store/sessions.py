"""Sessions on disk: one JSON file each, nothing ever deleted."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import msgspec

from quantchat import paths
from quantchat.domain.chat import UNTITLED, Session, SessionSummary
from quantchat.errors import ErrorReport, SessionUnreadable, StorageError
from quantchat.store.atomic import move_aside, private_dir, translate_os_error, write_atomic
from quantchat.store.schema import NewerSchema, decode_session, decode_summary, encode_session

Reports = list[ErrorReport]

_ID = re.compile(r"\d{8}T\d{9}-[0-9a-f]{6}")


def check_id(session_id: str) -> str:
    """Return an id that is safe in a file name.

    Raises:
        StorageError: `session-missing`, as no session can be called so.
    """
    if not _ID.fullmatch(session_id):
        raise _missing(session_id)
    return session_id


class SessionStore:
    """The folder of sessions.

    Attributes:
        problems: What went wrong beside the results, oldest first; see `take_problems`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._refused: set[str] = set()
        self.problems: Reports = []

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

    def journal_path(self, session_id: str) -> Path:
        """Return the journal of a session's running answer."""
        return self.root / f"{check_id(session_id)}.journal"

    def create(self) -> Session:
        """Start a session in memory; its file appears when there is something to keep."""
        return Session.new()

    def load(self, session_id: str) -> Session:
        """Read a session.

        Raises:
            SessionUnreadable: if it does not parse (it is then in quarantine) or is of a later schema.
            StorageError: if there is no such session or the disk refuses.
        """
        path = self.path(session_id)
        data = _read(path)
        try:
            session = decode_session(data)
        except NewerSchema as error:
            raise _newer(path, error) from error
        except msgspec.DecodeError as error:
            raise self._set_aside(path, str(error)) from error
        # A copied file still names the session that it was copied from; saving must not go there.
        session.id = session_id
        return session

    def peek(self, session_id: str) -> Session | None:
        """Read a session to look through it; None if it cannot be read, which `list` reports."""
        try:
            session = decode_session(_read(self.path(session_id)))
        except (StorageError, NewerSchema, msgspec.DecodeError):
            return None
        session.id = session_id
        return session

    def save(self, session: Session) -> None:
        """Write a session; an empty one that has no file yet stays in memory.

        Raises:
            StorageError: if the disk refuses; the file of before is then untouched.
        """
        data = self.encode(session)
        if data is not None:
            self.write(session.id, data)

    def encode(self, session: Session) -> bytes | None:
        """First half of `save`, for a caller that writes on another thread; None if there is nothing to keep.

        Raises:
            StorageError: `session-invalid`, if the session holds a value that could not be read back.
        """
        path = self.path(session.id)
        if not _has_content(session) and not os.path.exists(path):
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

    def write(self, session_id: str, data: bytes) -> None:
        """Second half of `save`: put what `encode` made on the disk.

        Raises:
            StorageError: if the disk refuses; the file of before is then untouched.
        """
        private_dir(self.root)
        write_atomic(self.path(session_id), data)

    def list(self) -> list[SessionSummary]:
        """Return all readable sessions, the last changed first; what cannot be read goes to `problems`."""
        try:
            names = [name[:-5] for name in os.listdir(self.root) if name.endswith(".json")]
        except FileNotFoundError:
            return []
        except OSError as error:
            self.problems.append(translate_os_error(error, self.root, reading=True).report)
            return []
        rows = [row for name in names if _ID.fullmatch(name) and (row := self._summary(name))]
        return sorted(rows, key=lambda row: (row.updated, row.id), reverse=True)

    def delete(self, session_id: str) -> None:
        """Move a session and its journal to the trash.

        Raises:
            StorageError: if there is no such session or it cannot be moved.
        """
        path = self.path(session_id)
        try:
            move_aside(path, self.trash)
            with contextlib.suppress(FileNotFoundError):
                move_aside(self.journal_path(session_id), self.trash)
        except FileNotFoundError as error:
            raise _missing(session_id) from error
        except OSError as error:
            raise translate_os_error(error, path) from error

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

    def _summary(self, session_id: str) -> SessionSummary | None:
        path = self.root / f"{session_id}.json"
        try:
            with open(path, "rb", buffering=0) as file:
                return decode_summary(session_id, file.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            self._refuse_once(translate_os_error(error, path, reading=True), session_id)
        except NewerSchema as error:
            self._refuse_once(_newer(path, error), session_id)
        except msgspec.DecodeError as error:
            self._refuse_once(self._set_aside(path, str(error)), session_id)
        return None

    def _refuse_once(self, problem: StorageError, session_id: str) -> None:
        if session_id not in self._refused:
            self._refused.add(session_id)
            self.problems.append(problem.report)

    def _set_aside(self, path: Path, reason: str) -> SessionUnreadable:
        try:
            kept = f"It was moved to {move_aside(path, self.quarantine)}"
        except (OSError, StorageError) as error:
            kept = f"It is still at {path}, as it could not be moved ({error})"
        return SessionUnreadable(
            "A session file does not parse",
            f"{path.name}: {reason.rstrip('.')}. {kept}",
            "It is plain JSON: repair it in an editor and move it back to the sessions folder",
        )


def _has_content(session: Session) -> bool:
    return bool(
        session.messages or session.queued or session.draft or session.system_prompt or session.title != UNTITLED
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _missing(path.stem) from error
    except OSError as error:
        raise translate_os_error(error, path, reading=True) from error


def _missing(session_id: str) -> StorageError:
    return StorageError(
        "There is no such session",
        f"nothing is stored under the id {session_id[:80]!r}",
        "F3 lists the sessions that are there",
        code="session-missing",
    )


def _newer(path: Path, error: NewerSchema) -> SessionUnreadable:
    return SessionUnreadable(
        "This session was written by a later quantchat",
        f"{path.name} has {error}. The file was left as it is",
        "Upgrade quantchat to open it",
        code="session-newer",
    )
