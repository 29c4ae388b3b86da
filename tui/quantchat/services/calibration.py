"""One's own sessions as calibration text: in a private file that is there only as long as it is used.

Sessions are read and never changed. What is deleted, hidden in other branches, temporary, or without an answer stays
out of it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quantchat import paths
from quantchat.domain.chat import ChatMessage, Message, Session, SessionSummary
from quantchat.domain.quantizing import CalibrationChoice
from quantchat.domain.text import plain
from quantchat.errors import Cancelled, UsageError
from quantchat.services.background import in_background
from quantchat.services.picking import SessionPick as SessionPick
from quantchat.services.picking import picked
from quantchat.services.picking import read_pick as read_pick
from quantchat.store.atomic import private_dir, sweep_temporaries, temporary_name, translate_os_error
from quantchat.store.schema import decode_session, encode_session

if TYPE_CHECKING:
    from quantchat.services.opened import OpenSessions
    from quantchat.store.sessions import SessionStore

FILE = "calibration.jsonl"
CHARACTERS = 4
"""Per token, about: longer sessions are cut into parts of a sample's length, each beginning with a question."""
MOST_CHARACTERS = 32
"""Per token of a sample: what lies further behind in a message would be cut off in any case."""


class SessionText(msgspec.Struct, frozen=True, kw_only=True):
    """The file, and what went into it.

    Attributes:
        sessions: How many sessions are in it.
        examples: How many conversations; long sessions are cut into several.
        left_out: How many sessions hold no answered question.
        unread: How many could not be read.
    """

    choice: CalibrationChoice
    sessions: int
    examples: int
    left_out: int = 0
    unread: int = 0


@asynccontextmanager
async def session_text(
    pick: SessionPick,
    store: SessionStore,
    opened: OpenSessions | None = None,
    *,
    samples: int = 0,
    length: int = CalibrationChoice().length,
) -> AsyncIterator[SessionText]:
    """Write sessions into a private file, and remove it in the end.

    Args:
        pick: Which sessions.
        store: Where they are kept.
        opened: The sessions that this program has open; they are taken as they are now.
        samples: How many samples are to be made of them, as in `CalibrationChoice`.
        length: The longest sample in tokens.

    Raises:
        UsageError: if no session is meant, or none holds an answered question.
        StorageError: if the disk refuses.
    """
    rows = {row.id: row for row in await in_background(store.list)}
    here = _held(opened) if opened is not None else {}
    rows |= {session.id: SessionSummary.of(session) for session in here.values()}
    meant = picked(rows.values(), pick)
    # Encoded on the loop, so that each is one consistent moment.
    now = {row.id: encode_session(here[row.id]) for row in meant if row.id in here}
    folder = private_dir(paths.cache_dir())
    # What a killed program left: private words.
    sweep_temporaries(folder)
    path = folder / temporary_name(FILE)
    writing = _Writing(store, now, path, length)
    try:
        await asyncio.to_thread(writing.run, meant)
        yield writing.result(
            CalibrationChoice(path=str(path), name=_name(writing.sessions), samples=samples, length=length)
        )
    finally:
        writing.stop()


def _held(opened: OpenSessions) -> dict[str, Session]:
    return {session.id: session for session in opened.opened() if not opened.is_temporary(session.id)}


def _name(sessions: int) -> str:
    return f"{sessions:,} own sessions" if sessions != 1 else "one own session"


class _Writing:
    """Writes the file on another thread; one that is stopped leaves nothing."""

    def __init__(self, store: SessionStore, now: Mapping[str, bytes], path: Path, length: int) -> None:
        self._store, self._now, self._path, self._length = store, now, path, length
        self._stopped = threading.Event()
        self.sessions = self._examples = self._left_out = self._unread = 0

    def stop(self) -> None:
        """Remove the file, now or as soon as the thread hears of it."""
        self._stopped.set()
        self._path.unlink(missing_ok=True)

    def run(self, rows: Sequence[SessionSummary]) -> None:
        """Write the examples of all sessions.

        Raises:
            Cancelled: if it was stopped.
            StorageError: if the disk refuses.
            UsageError: if there is nothing to write.
        """
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                for line in self._lines(rows):
                    file.write(line)
        except OSError as error:
            raise translate_os_error(error, self._path) from error
        finally:
            # What stop() removed may have been made only after that.
            if self._stopped.is_set():
                self._path.unlink(missing_ok=True)
        if not self._examples:
            raise UsageError("The sessions hold nothing to calibrate with", "none of them holds an answered question")

    def _lines(self, rows: Sequence[SessionSummary]) -> Iterator[bytes]:
        for row in rows:
            if self._stopped.is_set():
                raise Cancelled("Stopped")
            session = self._read(row.id)
            if session is None:
                self._unread += 1
                continue
            lines = [_line(example) for example in examples(session, self._length)]
            yield from lines
            self._examples += len(lines)
            self.sessions += bool(lines)
            self._left_out += not lines

    def _read(self, session_id: str) -> Session | None:
        if session_id in self._now:
            return decode_session(self._now[session_id])
        # Not `load`, which moves files that do not parse.
        found = self._store.read_for_index(session_id)
        return found[0] if found else None

    def result(self, choice: CalibrationChoice) -> SessionText:
        """Say what was written."""
        return SessionText(
            choice=choice,
            sessions=self.sessions,
            examples=self._examples,
            left_out=self._left_out,
            unread=self._unread,
        )


def examples(session: Session, length: int) -> Iterator[list[ChatMessage]]:
    """Yield the branch that is shown as conversations of about so many tokens, under the session's system prompt."""
    system = [ChatMessage("system", text)] if (text := _kept(session.system_prompt, length)) else []
    part: list[ChatMessage] = []
    for exchange in _exchanges(session, length):
        if part and _size(part) + _size(exchange) > length * CHARACTERS:
            yield [*system, *part]
            part = []
        part += exchange
    if part:
        yield [*system, *part]


def _exchanges(session: Session, length: int) -> Iterator[list[ChatMessage]]:
    """Yield the questions that were answered, each with what was said to it."""
    said: list[ChatMessage] = []
    for message in filter(_is_whole, session.asked()):
        if message.role == "user":
            if _is_answered(said):
                yield said
            said = []
        if (said or message.role == "user") and (text := _kept(message.text, length)):
            said.append(ChatMessage(message.role, text))
    if _is_answered(said):
        yield said


def _is_whole(message: Message) -> bool:
    """Whether a message is no answer that still streams, or that failed."""
    return message.role != "assistant" or message.finish not in (None, "error")


def _is_answered(said: Sequence[ChatMessage]) -> bool:
    return bool(said) and said[0].role == "user" and said[-1].role == "assistant"


def _kept(text: str, length: int) -> str:
    kept = plain(text[: length * MOST_CHARACTERS])
    return kept if kept.strip() else ""


def _size(messages: Iterable[ChatMessage]) -> int:
    return sum(len(message.content) for message in messages)


def _line(messages: Sequence[ChatMessage]) -> bytes:
    rows = [{"role": message.role, "content": message.content} for message in messages]
    return msgspec.json.encode({"messages": rows}) + b"\n"
