"""Plain text as calibration samples: as many whole paragraphs as fit, taken at places spread evenly over the file."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from quantchat.domain.quantizing import PROSE_SUFFIXES
from quantchat.domain.text import plain
from quantchat.errors import JobError
from quantchat.quantize.textfile import UNREADABLE, size_of

if TYPE_CHECKING:
    from quantchat.quantize.watch import Watch

LINES = frozenset({".jsonl", ".ndjson", ".json"})
READ_AHEAD = 32
"""Bytes per token of a sample: more than any text needs."""
USUAL = 4
"""Characters per token that are tried first."""

_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
_SPACE = re.compile(r"\s+")


def is_prose(path: Path, file: BinaryIO) -> bool:
    """Whether a file is plain text, by its name or else by how it begins."""
    if path.suffix.lower() in PROSE_SUFFIXES | LINES:
        return path.suffix.lower() in PROSE_SUFFIXES
    beginning = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    file.seek(0)
    return not beginning.startswith((b"{", b"["))


class Prose:
    """A text file that becomes samples of at most so many tokens.

    Args:
        tokens: Counts the tokens of a text.
        length: The most tokens of a sample.
    """

    def __init__(self, file: BinaryIO, path: Path, tokens: Callable[[str], int], length: int) -> None:
        self._file, self._path = file, path
        self._tokens, self._length = tokens, length
        self._size = size_of(file)

    def samples(self, count: int, watch: Watch, stage: str) -> Iterator[str]:
        """Yield up to `count` samples.

        Raises:
            Cancelled: if the user said stop.
            JobError: if the file is not text in UTF-8.
        """
        end = len(codecs.BOM_UTF8) if self._bytes(0, 3) == codecs.BOM_UTF8 else 0
        for number in range(count):
            watch.check()
            wanted = number * self._size // count
            # A sample begins where the one before ended if they lie close together.
            start = self._beginning(wanted) if wanted > end else end
            if start >= self._size:
                break
            sample, end = self._sample(start)
            watch.report(stage, end, self._size)
            if sample:
                yield sample

    def _sample(self, start: int) -> tuple[str, int]:
        """Return the text of the sample that begins at a byte, and the byte behind it."""
        text = self._text(start)
        end = self._fitting(text)
        if start + len(text[:end].encode()) < self._size:
            end = _break(text, end)
        return plain(text[:end]).strip(), start + len(text[:end].encode())

    def _fitting(self, text: str) -> int:
        """Return how many characters fit."""
        end = min(len(text), self._length * USUAL)
        while end < len(text) and self._tokens(text[:end]) < self._length:
            end = min(len(text), 2 * end)
        while (tokens := self._tokens(text[:end])) > self._length:
            end = min(end - 1, end * self._length // tokens)
        return end

    def _beginning(self, wanted: int) -> int:
        """Return where the first paragraph behind a byte begins; the first word if that is far."""
        data = self._bytes(wanted, self._length * READ_AHEAD)
        inside = next((place for place, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)
        text = self._decoded(data[inside:], wanted + inside)
        found = _PARAGRAPH.search(text) or _SPACE.search(text)
        return wanted + inside + len(text[: found.end() if found else 0].encode())

    def _text(self, start: int) -> str:
        return self._decoded(self._bytes(start, self._length * READ_AHEAD), start)

    def _bytes(self, start: int, count: int) -> bytes:
        self._file.seek(start)
        return self._file.read(count)

    def _decoded(self, data: bytes, start: int) -> str:
        """Decode what was read at a byte, but for a character that is cut at its end."""
        whole = start + len(data) >= self._size
        try:
            text = codecs.getincrementaldecoder("utf-8")().decode(data, final=whole)
        except UnicodeDecodeError as error:
            raise self._error(f"is not UTF-8 at byte {start + error.start + 1}") from error
        if (place := text.find("\0")) >= 0:
            raise self._error(f"is not text: byte {start + len(text[:place].encode()) + 1} is zero")
        return text

    def _error(self, reason: str) -> JobError:
        return JobError(UNREADABLE, f"{self._path.name} {reason}", "Save it as plain text in UTF-8")


def _break(text: str, end: int) -> int:
    """Return where to break a text before `end`: behind a paragraph, else behind a word, in its second half."""
    for pattern in (_PARAGRAPH, _SPACE):
        ends = [found.end() for found in pattern.finditer(text, end // 2, end)]
        if ends:
            return ends[-1]
    return end
