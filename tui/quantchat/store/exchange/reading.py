"""Sessions out of files of any kind that is known; the kind is told by what a file holds, never by its name."""

from __future__ import annotations

import contextlib
import re
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import msgspec

from quantchat.domain.chat import Session
from quantchat.domain.text import clean
from quantchat.errors import StorageError
from quantchat.store.atomic import translate_os_error
from quantchat.store.exchange.chatgpt import read_conversation
from quantchat.store.exchange.markdown import MARK, NotMarked, read_markdown
from quantchat.store.exchange.messages import History, NotAMessage, read_messages
from quantchat.store.exchange.progress import Progress
from quantchat.store.exchange.tree import read_tree
from quantchat.store.exchange.values import LARGEST, Broken, JsonValues, Value

CHUNK = 1 << 20
SNIFFED = 4096
ZIP = b"PK\x03\x04"
CONVERSATIONS = re.compile(r"(?:^|/)conversations[-_.\d]*\.json$")
KNOWN = (
    "quantchat reads its own JSON and Markdown, ChatGPT's export (the zip or its conversations.json), and lists of "
    "messages with role and content as JSON or JSONL"
)


class Bad(NamedTuple):
    """A part of a file that is no session, and why."""

    line: int
    cause: str


class Read(NamedTuple):
    """A session of a file, the line on which it begins, and the kind of what it was read from."""

    session: Session
    line: int
    kind: str


class Reader:
    """Reads files.

    Attributes:
        left_out: How much of what has no place in a session was passed over, by its name.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress or Progress()
        self.left_out: Counter[str] = Counter()

    def read_path(self, path: Path) -> Iterator[Read | Bad]:
        """Yield the sessions of a file.

        Raises:
            StorageError: if it cannot be read, or is of no known kind.
            Cancelled: if the user said stop.
        """
        try:
            with path.open("rb") as file:
                self.progress.total, self.progress.done = path.stat().st_size, 0
                yield from self.read(file, path.name)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _refused(str(path), "there is no such file", "") from error
        except IsADirectoryError as error:
            raise _refused(str(path), "it is a folder", "Name the files in it") from error
        except OSError as error:
            raise translate_os_error(error, path, reading=True) from error

    def read(self, file: BinaryIO, name: str) -> Iterator[Read | Bad]:
        """Yield the sessions of an open file, which need not be able to go back; see `read_path`."""
        begin = file.read(SNIFFED)
        if begin.startswith(ZIP):
            yield from self._read_zip(file, begin, name)
            return
        source = _Source(file, begin, self.progress)
        bare = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
        if bare[:1] in (b"[", b"{"):
            yield from self._read_json(source)
        elif MARK.encode() in begin:
            yield self._read_markdown(source)
        else:
            raise _unknown(name, bare)

    def _read_zip(self, file: BinaryIO, begin: bytes, name: str) -> Iterator[Read | Bad]:
        try:
            with _seekable(file, begin) as whole, zipfile.ZipFile(whole) as archive:
                members = [one for one in archive.infolist() if CONVERSATIONS.search(one.filename)]
                if not members:
                    raise _refused(name, "the zip holds no conversations.json", KNOWN)
                self.progress.total, self.progress.done = sum(one.file_size for one in members), 0
                for member in sorted(members, key=lambda one: one.filename):
                    with archive.open(member) as inside:
                        yield from self._read_json(_Source(inside, b"", self.progress))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise _refused(name, f"the zip cannot be unpacked ({error})", "Fetch the export again") from error

    def _read_markdown(self, source: _Source) -> Read | Bad:
        data = b"".join(iter(lambda: source.read(CHUNK), b""))
        if len(data) > LARGEST:
            return Bad(1, f"it is longer than {LARGEST:,} bytes")
        try:
            return Read(read_markdown(data.decode("utf-8-sig")), 1, "markdown")
        except UnicodeDecodeError as error:
            return Bad(data.count(b"\n", 0, error.start) + 1, f"the file is not UTF-8 text ({error.reason})")
        except NotMarked as error:
            return Bad(error.line, str(error))

    def _read_json(self, source: _Source) -> Iterator[Read | Bad]:
        found = False
        for item in self._gathered(JsonValues(source.read)):
            self.progress.check()
            found = True
            yield item
        if not found:
            yield Bad(1, "the file holds no conversations")

    def _gathered(self, values: Iterable[Value | Broken]) -> Iterator[Read | Bad]:
        """Put messages that stand alone together to one history for each list; everything else is a conversation."""
        history: _Lines | None = None
        for value in values:
            loose = isinstance(value, Value) and isinstance(value.value, dict) and "role" in value.value
            if history is not None and not (loose and isinstance(value, Value) and value.group == history.group):
                yield history.finished()
                history = None
            if isinstance(value, Broken):
                yield Bad(value.line, value.cause)
            elif loose:
                history = history or _Lines(value.line, value.group, self.left_out)
                history.add(value)
            else:
                yield self._one(value)
        if history is not None:
            yield history.finished()

    def _one(self, value: Value) -> Read | Bad:
        try:
            session, kind = self._interpreted(value.value)
            return Read(session, value.line, kind)
        except msgspec.ValidationError as error:
            return Bad(value.line, str(error))
        except (NotAMessage, ValueError) as error:
            return Bad(value.line, str(error))
        except RecursionError:
            return Bad(value.line, "its values are nested too deeply")

    def _interpreted(self, value: Any) -> tuple[Session, str]:
        if isinstance(value, list):
            return read_messages({"messages": value}, self.left_out), "messages"
        if not isinstance(value, dict):
            raise NotAMessage(f"a conversation should stand here, and not {_kind(value)}")
        if "mapping" in value:
            return read_conversation(value, self.left_out), "ChatGPT"
        if isinstance(value.get("messages"), list):
            return read_messages(value, self.left_out), "messages"
        if "id" in value and "created" in value:
            return read_tree(value), "json"
        raise NotAMessage("an object that is no conversation: it has neither messages nor a mapping")


class _Lines:
    """One history whose messages come one at a time; the first that is none spoils it."""

    def __init__(self, line: int, group: int, left_out: Counter[str]) -> None:
        self.group = group
        self._line = line
        self._history = History(left_out)
        self._bad: Bad | None = None

    def add(self, value: Value) -> None:
        if self._bad is None:
            try:
                self._history.add(value.value)
            except NotAMessage as error:
                self._bad = Bad(value.line, str(error))

    def finished(self) -> Read | Bad:
        if self._bad is not None:
            return self._bad
        try:
            return Read(self._history.session({}), self._line, "messages")
        except NotAMessage as error:
            return Bad(self._line, str(error))


class _Source:
    """A file of which the beginning was read; counts what is read, and stops where the user said so."""

    def __init__(self, file: IO[bytes], begin: bytes, progress: Progress) -> None:
        self._file, self._begin, self._progress = file, begin, progress
        progress.done += len(begin)

    def read(self, size: int) -> bytes:
        self._progress.check()
        if self._begin:
            begin, self._begin = self._begin, b""
            return begin
        pieces = []
        while size > 0 and (data := self._file.read(min(size, CHUNK))):
            self._progress.check()
            self._progress.done += len(data)
            pieces.append(data)
            size -= len(data)
        return b"".join(pieces)


@contextlib.contextmanager
def _seekable(file: BinaryIO, begin: bytes) -> Iterator[IO[bytes]]:
    if file.seekable():
        file.seek(0)
        yield file
        return
    with tempfile.TemporaryFile() as whole:
        whole.write(begin)
        while data := file.read(CHUNK):
            whole.write(data)
        whole.seek(0)
        yield whole


def _kind(value: object) -> str:
    return {"str": "a text", "int": "a number", "float": "a number", "bool": "true or false"}.get(
        type(value).__name__, "nothing"
    )


def _unknown(name: str, begin: bytes) -> StorageError:
    cause = "it is empty" if not begin else "it is of no kind that is known"
    if begin[:2] in (b"\xff\xfe", b"\xfe\xff"):
        cause = "it is UTF-16 text, and not UTF-8"
    return _refused(name, cause, KNOWN)


def _refused(name: str, cause: str, remedy: str) -> StorageError:
    return StorageError(
        "This file cannot be imported", f"{clean(name, newlines=False)}: {cause}", remedy, code="import-unreadable"
    )
