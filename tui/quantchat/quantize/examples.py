"""JSONL files of conversations: all lines are checked, and those that become samples are read again.

Of each line only its place and a digest are kept, so that files of any size can be sampled evenly.
"""

from __future__ import annotations

import codecs
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import msgspec

from quantchat.domain.chat import ChatMessage, Role
from quantchat.domain.text import plain, shortened
from quantchat.errors import JobError
from quantchat.quantize.textfile import size_of

if TYPE_CHECKING:
    from quantchat.quantize.watch import Watch

LONGEST_LINE = 16 * 1024**2
"""Bytes; a line is held in memory as a whole."""
ROLES = ("system", "user", "assistant", "tool")
EXAMPLE = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
REMEDY = f"Write one {EXAMPLE} per line"
READING = "reading the calibration file"
STEP = 1024**2
"""Bytes between two reports."""

_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


class Example(NamedTuple):
    """A conversation and the number of its line."""

    number: int
    messages: list[ChatMessage]


class NotAnExample(ValueError):
    """What stands on a line and is no conversation; the text says why."""


class Examples:
    """The conversations of a file, each once.

    Attributes:
        duplicates: How many were left out because the same conversation stands above.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._places, self._numbers = array("Q"), array("Q")
        self._distinct = array("Q")
        self.duplicates = 0

    def __len__(self) -> int:
        return len(self._distinct)

    def check(self, watch: Watch) -> None:
        """Read the whole file once.

        Raises:
            Cancelled: if the user said stop.
            JobError: if a line is not in order, by its number, or there is none.
        """
        import numpy as np

        digests = array("q")
        for place, number, line in self._lines(watch):
            messages = self._parsed(number, line).messages
            digests.append(hash(tuple((message.role, message.content) for message in messages)))
            self._places.append(place)
            self._numbers.append(number)
        if not digests:
            raise JobError("The calibration file holds no examples", f"{self._path.name} is blank", REMEDY)
        first = np.unique(np.frombuffer(digests, dtype=np.int64), return_index=True)[1]
        self._distinct = array("Q", np.sort(first).tolist())
        self.duplicates = len(digests) - len(self._distinct)

    def _lines(self, watch: Watch) -> Iterator[tuple[int, int, bytes]]:
        """Yield the lines that are not blank, with where they begin and their numbers."""
        size, number, told = size_of(self._file), 0, 0
        self._file.seek(0)
        place = len(codecs.BOM_UTF8) if self._file.read(3) == codecs.BOM_UTF8 else 0
        while line := self._read(place, number + 1):
            watch.check()
            number += 1
            if line.strip():
                yield place, number, line
            place += len(line)
            if place >= told:
                watch.report(READING, place, size)
                told = place + STEP

    def _read(self, place: int, number: int) -> bytes:
        self._file.seek(place)
        line = self._file.readline(LONGEST_LINE + 1)
        if len(line) > LONGEST_LINE:
            raise self._error(number, f"it is longer than {LONGEST_LINE // 1024**2} MiB")
        return line

    def taken(self, count: int) -> Iterator[Example]:
        """Read so many conversations again, spread evenly over the file."""
        for step in range(count):
            index = self._distinct[step * len(self) // count]
            number = self._numbers[index]
            yield self._parsed(number, self._read(self._places[index], number))

    def _parsed(self, number: int, line: bytes) -> Example:
        try:
            return Example(number, parse(line))
        except NotAnExample as error:
            raise self._error(number, str(error)) from error

    def _error(self, number: int, reason: str) -> JobError:
        return JobError(
            "The calibration file is not in order",
            f"line {number} of {self._path.name}: {reason}",
            REMEDY,
            code="calibration-line",
        )


def parse(line: bytes) -> list[ChatMessage]:
    """Read one line.

    Raises:
        NotAnExample: if it is no `{"messages": [...]}` with a role and a text in each message, one of them the user's.
    """
    try:
        value = msgspec.json.decode(line)
    except RecursionError as error:
        raise NotAnExample("it is nested too deeply") from error
    except ValueError as error:
        raise NotAnExample(f"it is not JSON ({error})") from error
    _require_keys(value, ("messages",), "it")
    messages = value["messages"]
    if not isinstance(messages, list):
        raise NotAnExample(f'"messages" is {_kind(messages)}, not a list')
    found = [_message(number, message) for number, message in enumerate(messages, 1)]
    if all(message.role != "user" for message in found):
        raise NotAnExample("no message is the user's" if found else '"messages" is empty')
    return found


def _message(number: int, value: Any) -> ChatMessage:
    _require_keys(value, ("role", "content"), f"message {number}")
    role, content = value["role"], value["content"]
    if role not in ROLES:
        raise NotAnExample(f"message {number} has the role {_shown(role)}; there are {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise NotAnExample(f"the content of message {number} is {_kind(content)}, not a text")
    content = plain(content)
    if not content.strip():
        raise NotAnExample(f"the content of message {number} is empty")
    return ChatMessage(cast(Role, role), content)


def _require_keys(value: Any, expected: tuple[str, ...], what: str) -> None:
    if not isinstance(value, dict):
        raise NotAnExample(f"{what} is {_kind(value)}, not an object")
    if value.keys() == set(expected):
        return
    found = f"has {_names(value)}" if value else "is empty"
    raise NotAnExample(f"{what} {found}, and should have {_names(expected)} alone")


def _names(keys: Iterable[str]) -> str:
    return shortened(" and ".join(f'"{key}"' for key in list(keys)[:8]), 120)


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "a number")


def _shown(value: Any) -> str:
    return f'"{shortened(value, 40)}"' if isinstance(value, str) else f"{_kind(value)}"
