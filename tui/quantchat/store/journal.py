"""What a running answer has said so far, kept safe while it streams.

`sessions/<id>.journal` holds JSON lines: `{"message": {...}, "version": 2}` opens an answer, with the text that it had
before if it goes on, and with the message that it answers, in case the disk had no room for the session;
`{"text": "..."}` and `{"thinking": "..."}` add to it; `{"finish": "...", "statistics": {...}}` closes it. The version
is the session's.
"""

from __future__ import annotations

import contextlib
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from quantchat.domain.chat import SCHEMA, Message
from quantchat.domain.generation import FinishReason, TurnStatistics
from quantchat.domain.thinking import Channel, split_thinking
from quantchat.errors import StorageError
from quantchat.store.atomic import private_dir, sync_folder, translate_os_error
from quantchat.store.schema import encode_json

INTERVAL_SECONDS = 0.5
CLOSE_SECONDS = 5.0


class _Line(msgspec.Struct, omit_defaults=True):
    message: Message | None = None
    question: Message | None = None
    text: str = ""
    thinking: str = ""
    version: int = 1
    finish: FinishReason | None = None
    statistics: TurnStatistics | None = None


_lines = msgspec.json.Decoder(_Line)


class Journal:
    """The journal of one answer. Its own thread writes, so that a slow disk never holds up the screen.

    Attributes:
        error: Why the last write failed; None as soon as one succeeds. What could not be
            written is kept and tried again.
    """

    def __init__(
        self,
        path: Path,
        message: Message,
        *,
        question: Message | None = None,
        interval: float = INTERVAL_SECONDS,
        begin: bool = True,
    ) -> None:
        """Open the journal of `message` and write at most each `interval` seconds; the first text at once.

        With `begin` false the file is not touched before `begin()`.
        """
        self.path = path
        self.error: StorageError | None = None
        self._interval = interval
        opened = msgspec.structs.replace(message, finish=None, statistics=None, error=None)
        self._unwritten = _encode(_Line(message=opened, question=question, version=SCHEMA))
        self._pieces: list[tuple[Channel, str]] = []
        self._ending: _Line | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._descriptor: int | None = None
        self._named = False
        self._start = 0
        self._end = 0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        if begin:
            self.begin()

    def begin(self) -> None:
        """Start writing; what was appended before is kept."""
        self._thread.start()

    def append(self, text: str, channel: Channel = "answer") -> None:
        """Add to the answer or to what was thought before it; returns at once."""
        with self._changed:
            self._pieces.append((channel, text))
            self._changed.notify()

    def close(self, finish: FinishReason | None = None, statistics: TurnStatistics | None = None) -> None:
        """Write what is left and, where it is known, how the answer ended; then stop the thread.

        Does not raise: look at `error`. Waits for the disk for up to five seconds.
        """
        with self._changed:
            if not self._closing and finish is not None:
                self._ending = _Line(finish=finish, statistics=statistics)
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_SECONDS)

    def remove(self) -> None:
        """Delete the journal, after its text was saved with the session."""
        self.close()
        # What stays is folded in again at the next start, without effect.
        with contextlib.suppress(OSError):
            if self._start:
                os.truncate(self.path, self._start)
            else:
                self.path.unlink()

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self._unwritten or self._closing)
                pieces, self._pieces = self._pieces, []
                closing = self._closing
            if pieces:
                said = _Line(text=_joined(pieces, "answer"), thinking=_joined(pieces, "thinking"))
                self._unwritten += _encode(said)
            if closing and self._ending is not None:
                self._unwritten += _encode(self._ending)
            self._write()
            if pieces or self.error:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, timeout=self._interval)
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _write(self) -> None:
        if not self._unwritten:
            return
        try:
            descriptor = self._opened()
            _write_at(descriptor, self._unwritten, self._end)
            os.fsync(descriptor)
            self._end += len(self._unwritten)
            self._unwritten = b""
            self._sync_name()
        except StorageError as error:
            self.error = error
        except OSError as error:
            self.error = translate_os_error(error, self.path)
            if self._descriptor is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._end)
        else:
            self.error = None

    def _opened(self) -> int:
        if self._descriptor is None:
            private_dir(self.path.parent)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # An answer that nobody has folded in yet stays in front of this one.
            self._start = self._end = os.fstat(self._descriptor).st_size
            if self._start:
                self._unwritten = b"\n" + self._unwritten
        return self._descriptor

    def _sync_name(self) -> None:
        """Bring the file's name to the disk, behind its first lines: they are worth more than a name that is sure."""
        if not self._named:
            sync_folder(self.path.parent)
            self._named = True


class Replayed(NamedTuple):
    """An answer of a journal.

    Attributes:
        question: What it answers, where the journal tells.
        version: Schema of the program that wrote it.
    """

    answer: Message
    question: Message | None = None
    version: int = SCHEMA


def replay(path: Path) -> tuple[Message, ...]:
    """Read the answers of a journal; lines that are cut off or broken are passed over.

    `finish` is None where the journal does not say how an answer ended. Text whose opening line was lost becomes an
    answer of its own, named after the file.

    Raises:
        OSError: if it cannot be read.
    """
    return tuple(replayed.answer for replayed in replay_whole(path))


def replay_whole(path: Path) -> tuple[Replayed, ...]:
    """Read the answers of a journal, and what they answer; otherwise as `replay`."""
    answers: list[Replayed] = []
    said: list[list[_Line]] = []
    for line in _readable_lines(path.read_bytes()):
        if line.message is not None:
            answers.append(Replayed(line.message, line.question, line.version))
            said.append([])
        elif not answers:
            answers.append(Replayed(_orphan(path)))
            said.append([])
        said[-1].append(line)
    for replayed, lines in zip(answers, said, strict=True):
        _complete(replayed.answer, lines)
    return tuple(answers)


def _complete(answer: Message, lines: list[_Line]) -> None:
    answer.text += "".join(line.text for line in lines)
    answer.thinking += "".join(line.thinking for line in lines)
    if lines[0].message is not None and lines[0].version == 1:
        answer.thinking, answer.text = split_thinking(answer.text)
    for line in lines:
        if line.finish is not None:
            answer.finish, answer.statistics = line.finish, line.statistics


def _readable_lines(data: bytes) -> list[_Line]:
    lines = []
    for raw in data.split(b"\n"):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            line = _lines.decode(raw)
            if line != _Line():
                lines.append(line)
    return lines


def _orphan(path: Path) -> Message:
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return Message(id=f"{path.stem}-recovered", role="assistant", text="", created=written)


def _joined(pieces: list[tuple[Channel, str]], channel: Channel) -> str:
    return "".join(text for its, text in pieces if its == channel)


def _encode(line: _Line) -> bytes:
    return encode_json(line) + b"\n"


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
