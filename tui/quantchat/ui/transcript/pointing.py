"""Finding some characters of a message's source where it is shown, to mark them there."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from textual.strip import Strip

from quantchat.domain.text import clean
from quantchat.domain.thinking import Channel
from quantchat.ui.transcript.entry import BAR, Entry
from quantchat.ui.transcript.search import Span

_MARKUP = "*_`~#>|[]()\\$-+=<"
_EMPHASIS = "*_`~"
_BARS = " ▌│┆"
_WRAP = rf"(?:[{_BARS}]*\n[{_BARS}]*)?"
_SHOWN_GAP = rf"[\s{_BARS}•]+"
_SAID_GAP = rf"[\s{re.escape(_MARKUP)}]+"
_CONTEXTS = (6, 3, 1, 0)
"""So many words before the token are looked for with it; fewer where they are shown otherwise than they were said."""
_BEFORE = 120
_NEXT = re.compile(r"\w+")


class Pointer:
    """Finds a token of a message in its painted lines, by its words and those before it.

    Markdown shows a text otherwise than it was said, so that places cannot be counted; a token that is nothing but
    markup stands for the word behind it.

    Args:
        start: First character of the token in the source of its channel; `end` is behind its last.
    """

    def __init__(self, channel: Channel, start: int, end: int) -> None:
        self.place = channel, start, end
        self._version = -1
        self._spans: list[Span] = []
        self._strips: list[Strip] = []

    def spans(self, entry: Entry) -> list[Span]:
        """Where a painted message shows the token; nowhere if that cannot be told, or it is folded away."""
        if self._version != entry.version:
            self._version = entry.version
            if not self._still_shown(entry):
                self._spans = list(self._find(entry))
                self._strips = [entry.lines[span.line] for span in self._spans]
        return self._spans

    def _still_shown(self, entry: Entry) -> bool:
        """Whether the lines are those of before: text that streams in below changes nothing above."""
        lines = entry.lines
        pairs = zip(self._spans, self._strips, strict=True)
        return bool(self._spans) and all(span.line < len(lines) and lines[span.line] is strip for span, strip in pairs)

    def _find(self, entry: Entry) -> Iterator[Span]:
        channel, start, end = self.place
        source = entry.words if channel == "answer" else entry.thinking
        before = len(clean(source.raw[:start]))
        core = _core(source.shown, before, before + len(clean(source.raw[start:end])))
        if core is None:
            return
        parts = entry.parts
        first, last = (parts.words, parts.end) if channel == "answer" else (parts.thinking, parts.words)
        strips = enumerate(entry.lines[first:last], first)
        lines = ["" if number in entry.handles else strip.text[BAR:].rstrip() for number, strip in strips]
        yield from _shown(lines, first, source.shown, *core)


def _core(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The part of a token that can be seen; of pure markup, the word behind it."""
    token = text[start:end]
    seen = token.strip(_MARKUP + " \t\n")
    if seen:
        begin = start + token.index(seen)
        return begin, begin + len(seen)
    word = _NEXT.search(text, start)
    return word.span() if word is not None and end > start else None


def _shown(lines: list[str], first: int, text: str, start: int, end: int) -> Iterator[Span]:
    shown = "\n".join(lines)
    for count in _CONTEXTS:
        words = text[max(0, start - _BEFORE) : start].split()[-count:] if count else []
        tight = bool(words) and not text[start - 1].isspace()
        seen = [word for word in (word.strip(_MARKUP) for word in words) if word]
        found = [m.span("token") for m in _pattern(seen, text[start:end], _SHOWN_GAP, tight).finditer(shown)]
        if found:
            said = _pattern(seen, text[start:end], _SAID_GAP, tight)
            number = sum(1 for _ in said.finditer(text, 0, end)) - 1
            yield from _by_line(shown, lines, first, *found[min(max(number, 0), len(found) - 1)])
            return


def _pattern(words: list[str], token: str, gap: str, tight: bool) -> re.Pattern[str]:
    """The token behind some words; `tight` where no space is between them."""
    head = gap.join(map(_word, words))
    joint = "" if not words else f"[{re.escape(_MARKUP)}]*{_WRAP}" if tight else gap
    body = gap.join(map(_word, token.split()))
    return re.compile(rf"{head}{joint}(?P<token>{body})")


def _word(word: str) -> str:
    """A word that may be wrapped, and of which marks of emphasis may not be shown."""
    return _WRAP.join(re.escape(char) + ("?" if char in _EMPHASIS else "") for char in word)


def _by_line(shown: str, lines: list[str], first: int, start: int, end: int) -> Iterator[Span]:
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    while start < end:
        line = bisect_right(starts, start) - 1
        stop = min(end, starts[line + 1] - 1)
        begin = stop - len(shown[start:stop].lstrip(_BARS))
        if stop > begin:
            yield Span(first + line, begin - starts[line] + BAR, stop - starts[line] + BAR, 0)
        start = starts[line + 1]
