"""The prompts of all sessions, for recalling them: one line of JSON each, the last one newest."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quantchat import paths
from quantchat.domain.attachments import Attachment, Draft
from quantchat.store.atomic import private_dir, translate_os_error, write_atomic
from quantchat.store.schema import encode_json

MOST_ENTRIES = 1000
MOST_BYTES = 4 << 20
SLACK = 1.25
"""The file may exceed its bounds by this factor before it is written anew."""
ENTRY_BYTES = 128 << 10
LOCK_SECONDS = 1.0
PAUSE_SECONDS = 0.01


class _Packed(msgspec.Struct, omit_defaults=True):
    """An attachment with its text compressed."""

    number: int
    text: bytes
    name: str = ""


class Entry(msgspec.Struct, omit_defaults=True):
    """A prompt as the user wrote it, small enough to keep."""

    text: str
    attachments: list[_Packed] = []

    @classmethod
    def of(cls, draft: Draft) -> Entry:
        """Pack a prompt; attachments that are too large for the history stay as the words of their tokens."""
        packed, room = [], ENTRY_BYTES
        text = draft.text
        for attachment in draft.attachments:
            data = zlib.compress(attachment.text.encode("utf-8", "replace"), 1)
            room -= len(data)
            if room >= 0:
                packed.append(_Packed(attachment.number, data, attachment.name))
            else:
                text = text.replace(attachment.token, f"({attachment.token[1:-1]}: too large for the history)")
        return cls(text, packed)

    def draft(self) -> Draft:
        """Unpack the prompt; what does not unpack is left out."""
        attachments = []
        for packed in self.attachments:
            with contextlib.suppress(zlib.error, UnicodeDecodeError):
                text = zlib.decompress(packed.text).decode()
                attachments.append(Attachment(number=packed.number, text=text, name=packed.name))
        return Draft(self.text, tuple(attachments))


class PromptHistory:
    """The file, which several programs may write at once."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or paths.history_file()

    def entries(self) -> list[Entry]:
        """Read all prompts, oldest first; lines that do not parse are passed over, and a file that cannot be read."""
        entries: list[Entry] = []
        for line in self._lines():
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                entry = _decoder.decode(line)
                if not entries or entries[-1] != entry:
                    entries.append(entry)
        return entries[-MOST_ENTRIES:]

    def stamp(self) -> tuple[int, int]:
        """Return something that differs when the file has changed."""
        try:
            status = self.path.stat()
        except OSError:
            return (0, 0)
        return (status.st_mtime_ns, status.st_size)

    def _lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().splitlines()
        except OSError:
            return []

    def append(self, entry: Entry) -> None:
        """Add a prompt.

        Raises:
            StorageError: if the disk refuses.
        """
        private_dir(self.path.parent)
        line = encode_json(entry) + b"\n"
        try:
            with self._locked() as alone:
                size = self._append(line)
                if alone and self._outgrown(size):
                    self._compact()
        except OSError as error:
            raise translate_os_error(error, self.path) from error

    def _append(self, line: bytes) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            # The last writer may have died in the middle of its line.
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, b"\n" + line if torn else line)
            return size + len(line)
        finally:
            os.close(descriptor)

    def _outgrown(self, size: int) -> bool:
        return size > MOST_BYTES * SLACK or (size > MOST_ENTRIES and len(self._lines()) > MOST_ENTRIES * SLACK)

    def _compact(self) -> None:
        kept, room = [], MOST_BYTES
        for line in reversed(self._lines()[-MOST_ENTRIES:]):
            # One prompt may be larger than all the others together: they stay.
            if len(line) < room:
                kept.append(line)
                room -= len(line) + 1
        write_atomic(self.path, b"".join(line + b"\n" for line in reversed(kept)))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Keep others from appending to a file that is being replaced; yield whether that worked."""
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _lock(descriptor)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    end = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < end:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(PAUSE_SECONDS)
        except OSError:
            # A file system without locks: appending is still safe, replacing is not.
            return False
        else:
            return True
    return False


_decoder = msgspec.json.Decoder(Entry)
