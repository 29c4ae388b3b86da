"""Finding a text in all messages: counted in what was said, marked where it is shown."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby
from typing import NamedTuple

from quantchat.ui.transcript.entry import BAR, Entry

LONGEST = 200
_MARKUP = r"[*_`~]*"
_BARS = " ▌│┆"
_LINE_END = rf"(?:[{_BARS}]*\n[{_BARS}]*)?"
_WHOLE = -1
"""Number of the hit of a span that marks a message in which no hit can be told."""


class Span(NamedTuple):
    """Characters of one line of a message that show (a piece of) its `hit`-th occurrence."""

    line: int
    start: int
    end: int
    hit: int


class Hit(NamedTuple):
    """The `number`-th occurrence within a message."""

    entry: int
    number: int


class Query:
    """What to look for; a capital letter makes the case of letters count."""

    def __init__(self, text: str) -> None:
        words = text[:LONGEST].split()
        self._exact = any(char.isupper() for char in text)
        self._words = words if self._exact else [word.lower() for word in words]
        self._longest = max(self._words, key=len, default="")
        # Markdown may begin or end between two words, and a line may end there.
        self._said = re.compile(rf"{_MARKUP}\s[\s>#|*_`~-]*".join(map(re.escape, self._words)))
        shown = (_LINE_END.join(map(re.escape, word)) for word in words)
        self._shown = re.compile(rf"[\s{_BARS}]+".join(shown), 0 if self._exact else re.IGNORECASE)

    def __bool__(self) -> bool:
        return bool(self._words)

    def fold(self, text: str) -> str:
        """Return `text` as `count` wants it."""
        return text if self._exact else text.lower()

    def count(self, folded: str) -> int:
        """Count the occurrences in the source of a message."""
        if not self._words or self._longest not in folded:
            return 0
        return folded.count(self._longest) if len(self._words) == 1 else sum(1 for _ in self._said.finditer(folded))

    def places(self, lines: Sequence[str]) -> list[list[tuple[int, int, int]]]:
        """Find the occurrences in lines as they are shown; each may go over several of them: (line, start, end)."""
        text = "\n".join(lines)
        starts = [0, *accumulate(len(line) + 1 for line in lines)]
        return [list(_by_line(match, starts)) for match in self._shown.finditer(text)]


def _by_line(match: re.Match[str], starts: Sequence[int]) -> Iterable[tuple[int, int, int]]:
    text, start = match.string, match.start()
    while start < match.end():
        line = bisect_right(starts, start) - 1
        stop = min(match.end(), starts[line + 1] - 1)
        begin = stop - len(text[start:stop].lstrip(_BARS))
        if stop > begin:
            yield line, begin - starts[line], stop - starts[line]
        start = starts[line + 1]


class Search:
    """The hits of a query; messages that change are counted again one by one."""

    def __init__(self, text: str, entries: Sequence[Entry]) -> None:
        self.text = text
        self.current: Hit | None = None
        self._query = Query(text)
        self._entries = entries
        self._counts: list[tuple[int, int]] = []
        self._spans: dict[int, tuple[int, list[Span]]] = {}
        self._lines: dict[int, dict[int, list[Span]]] = {}
        self.recount()

    @property
    def total(self) -> int:
        return sum(map(sum, self._counts))

    @property
    def place(self) -> int:
        """Which of all hits the current one is, from 1; 0 if there is none."""
        if self.current is None:
            return 0
        return sum(map(sum, self._counts[: self.current.entry])) + self.current.number + 1

    def removed(self, number: int) -> None:
        """Look through all messages again, one of which is gone."""
        hit = self.current
        if hit is not None and hit.entry >= number:
            self.current = None if hit.entry == number else hit._replace(entry=hit.entry - 1)
        self.recount()

    def recount(self) -> None:
        """Look through all messages."""
        self._spans.clear()
        self._counts = [self._count(entry) for entry in self._entries] if self._query else []
        self._check_current()

    def changed(self, number: int) -> None:
        """Look through one message that changed or is new."""
        if not self._query:
            return
        count = self._count(self._entries[number])
        if number == len(self._counts):
            self._counts.append(count)
        else:
            self._counts[number] = count
        self._check_current()

    def _count(self, entry: Entry) -> tuple[int, int]:
        query = self._query
        return query.count(query.fold(entry.thinking.shown)), query.count(query.fold(entry.words.shown))

    def _check_current(self) -> None:
        hit = self.current
        if hit is not None and (hit.entry >= len(self._counts) or hit.number >= sum(self._counts[hit.entry])):
            self.current = None

    def first_from(self, entry: int) -> Hit | None:
        """Go to the first hit in a message or below it, else to the first of all."""
        order = [*range(entry, len(self._counts)), *range(min(entry, len(self._counts)))]
        found = next((number for number in order if any(self._counts[number])), None)
        self.current = None if found is None else Hit(found, 0)
        return self.current

    def step(self, direction: int, entry: int) -> Hit | None:
        """Go to the next (1) or previous (-1) hit, around the ends; without a current one, begin at `entry`."""
        if self.current is None:
            return self.first_from(entry)
        number = self.current.number + direction
        if 0 <= number < sum(self._counts[self.current.entry]):
            self.current = self.current._replace(number=number)
            return self.current
        size = len(self._counts)
        order = ((self.current.entry + direction * step) % size for step in range(1, size + 1))
        found = next(number for number in order if any(self._counts[number]))
        self.current = Hit(found, 0 if direction > 0 else sum(self._counts[found]) - 1)
        return self.current

    def is_folded_away(self, hit: Hit) -> bool:
        """Whether a painted message hides this hit, as far as it can be told."""
        entry = self._entries[hit.entry]
        if entry.is_open or not entry.foldable:
            return False
        hides = entry.message.role == "user" or hit.number < self._counts[hit.entry][0]
        return hides and all(span.hit != hit.number for span in self.spans(hit.entry))

    def spans(self, number: int) -> list[Span]:
        """Where the hits of a painted message are shown; its label is marked if they cannot be told."""
        entry = self._entries[number]
        if number >= len(self._counts) or not any(self._counts[number]):
            return []
        version, spans = self._spans.get(number, (-1, []))
        if version != entry.version:
            spans = self._find_spans(entry, self._counts[number])
            self._spans[number] = (entry.version, spans)
            self._lines[number] = {line: list(group) for line, group in groupby(spans, lambda span: span.line)}
        return spans

    def marks(self, number: int, line: int) -> list[tuple[Span, bool]]:
        """What is marked in a line of a painted message, and whether it is the current hit."""
        if not self.spans(number) or line not in self._lines[number]:
            return []
        now = self.spans_of(self.current) if self.current is not None and self.current.entry == number else ()
        return [(span, span in now) for span in self._lines[number][line]]

    def _find_spans(self, entry: Entry, counts: tuple[int, int]) -> list[Span]:
        (thinking, words), parts = counts, entry.parts
        found = [
            *self._part_spans(entry, parts.thinking, parts.words, 0, thinking),
            *self._part_spans(entry, parts.words, parts.end, thinking, words),
        ]
        return found or [Span(0, BAR, len(entry.lines[0].text.rstrip()), _WHOLE)]

    def _part_spans(self, entry: Entry, first: int, last: int, base: int, count: int) -> Iterable[Span]:
        if not count:
            return
        strips = enumerate(entry.lines[first:last], first)
        lines = ["" if number in entry.handles else strip.text[BAR:].rstrip() for number, strip in strips]
        for index, places in enumerate(self._query.places(lines)):
            for line, start, end in places:
                yield Span(first + line, start + BAR, end + BAR, base + min(index, count - 1))

    def spans_of(self, hit: Hit) -> list[Span]:
        """Where one hit is shown; the nearest that is shown if it is not."""
        spans = self.spans(hit.entry)
        own = [span for span in spans if span.hit == hit.number]
        return own or [span for span in spans if span.hit <= hit.number][-1:] or spans[:1]
