"""The values of a JSON file one at a time, however large it is: those of an array, or one after another as in JSONL."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

CHUNK = 1 << 16
LARGEST = 1 << 27
"""Characters of one value; more would be held in memory at once."""
NEAR_END = 16
"""An error so near the end of what was read may only be the cut."""

_SPACE = re.compile(r"[ \t\r\n]*")


class Value(NamedTuple):
    """A value; `group` numbers the top-level array that it stands in, 0 if it stands in none."""

    line: int
    value: Any
    group: int


class Broken(NamedTuple):
    """A place that is no JSON."""

    line: int
    cause: str


class _Unreadable(Exception):
    pass


class JsonValues:
    """Iterates over `Value` and `Broken`; nothing follows a broken value where the next cannot be found."""

    def __init__(self, read: Callable[[int], bytes], *, largest: int = LARGEST) -> None:
        self._read, self._largest = read, largest
        self._bytes = codecs.getincrementaldecoder("utf-8-sig")()
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=_refuse)
        self._text, self._place, self._line = "", 0, 1
        self._ended = self._lost = False
        self._repeated: list[str] = []

    def __iter__(self) -> Iterator[Value | Broken]:
        try:
            yield from self._values()
        except _Unreadable as error:
            yield Broken(self._line + self._text.count("\n", self._place), str(error))

    def _values(self) -> Iterator[Value | Broken]:
        group = 0
        while not self._is_lost() and self._skip_space():
            if self._text[self._place] == "[":
                group += 1
                yield from self._array(group)
                continue
            yield self._one_line()

    def _one_line(self) -> Value | Broken:
        begun = self._line
        item = self._one(0)
        if self._is_lost():
            self._lost = not self._find_next_line()
            if not self._is_lost() and item.line > begun:
                return Broken(begun, "the line ends in the middle of a value")
        return item

    def _array(self, group: int) -> Iterator[Value | Broken]:
        self._advance(self._place + 1)
        while self._skip_space():
            if self._text[self._place] == "]":
                self._advance(self._place + 1)
                return
            yield self._one(group)
            if self._is_lost() or not self._skip_space():
                break
            if self._text[self._place] == ",":
                self._advance(self._place + 1)
            elif self._text[self._place] != "]":
                yield self._give_up("a comma is missing between two values")
                return
        if not self._is_lost():
            yield self._give_up("the file ends in the middle of a list")

    def _one(self, group: int) -> Value | Broken:
        line = self._line
        while True:
            self._repeated.clear()
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                if self._may_be_cut(error) and self._more():
                    continue
                return self._explain(error)
            except RecursionError:
                return self._give_up("its values are nested too deeply")
            except ValueError as error:
                return self._give_up(str(error).partition(":")[0])
            if end < len(self._text) or self._text[end - 1] in '}]"' or not self._more():
                break
        self._advance(end)
        if self._repeated:
            return Broken(line, f"the key {self._repeated[0][:60]!r} stands twice in one object")
        return Value(line, value, group)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            self._repeated.append(_first_repeated(key for key, _ in pairs))
        return made

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - NEAR_END

    def _explain(self, error: json.JSONDecodeError) -> Broken:
        if self._ended and (error.msg.startswith("Unterminated") or error.pos >= len(self._text.rstrip())):
            return self._give_up("the file ends in the middle of a value")
        line = self._line + self._text.count("\n", self._place, error.pos)
        column = error.pos - self._text.rfind("\n", 0, error.pos)
        self._lost = True
        return Broken(line, f"no JSON at column {column:,}: {error.msg}")

    def _give_up(self, cause: str) -> Broken:
        self._lost = True
        return Broken(self._line, cause)

    def _is_lost(self) -> bool:
        """Whether nobody knows where the next value begins."""
        return self._lost

    # The text

    def _advance(self, place: int) -> None:
        self._line += self._text.count("\n", self._place, place)
        self._place = place

    def _skip_space(self) -> bool:
        """Go to the next character that is none; tell whether there is one."""
        while True:
            found = _SPACE.match(self._text, self._place)
            self._advance(found.end() if found else self._place)
            if self._place < len(self._text):
                return True
            if not self._more():
                return False

    def _find_next_line(self) -> bool:
        """Go to the next line if a value begins it, as in JSONL."""
        while (end := self._text.find("\n", self._place)) < 0:
            if not self._more():
                return False
        self._advance(end + 1)
        return self._skip_space() and self._text[self._place] in "{[" and self._text[self._place - 1] == "\n"

    def _more(self) -> bool:
        """Read on, twice as much each time, so that long values are not looked at too often; tell whether there was."""
        if self._ended:
            return False
        left = len(self._text) - self._place
        if left > self._largest:
            raise _Unreadable(f"a single value is longer than {self._largest:,} characters")
        data = self._read(max(CHUNK, left))
        self._ended = not data
        try:
            new = self._bytes.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise _Unreadable(f"the file is not UTF-8 text ({error.reason})") from error
        if new:
            self._text, self._place = self._text[self._place :] + new, 0
        return not self._ended


def _first_repeated(keys: Iterable[str]) -> str:
    known: set[str] = set()
    for key in keys:
        if key in known:
            return key
        known.add(key)
    raise AssertionError("no key stands twice")


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
