"""A strict reader of what the program writes: every byte must be of a form that the program itself uses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Set
from typing import NamedTuple

# As the program writes them; foreign sequences in these tests carry leading zeros or colours that it never uses.
_N = r"[1-9]\d{0,3}"

_FORMS = re.compile(
    "|".join(
        f"(?P<{name}>{pattern})"
        for name, pattern in {
            "text": "[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]+",
            "style": r"\x1b\[(?P<codes>[\d;]*)m",
            # The program's own lines scroll inside margins, and the margins are taken away at once.
            "scroll": rf"\x1b\[{_N};{_N}r\x1b\[{_N}H(?:(?:\r?\n)+|(?:\x1bM)+)\x1b\[r",
            # Wrapping off: part of a whole repaint.
            "margins": r"\x1b\[r(?:\x1b\[\?7l)?",
            "place": rf"\x1b\[(?P<row>{_N})?(?:;(?P<column>{_N}))?H",
            "step": rf"\x1b\[(?:{_N})?[ABCDGX]",
            "erase": r"\x1b\[K",
            "line": r"\r\n",
            "return": r"\r",
            "back": r"\x08{1,3}",
            # Only ever the end of a link: no address of a model's link is part of a sequence.
            "link": r"\x1b\]8;;\x1b\\",
            "frame": r"\x1b\[\?2026[hl]",
            # When the terminal has answered that it knows them.
            "answered": r"\x1b\[\?(?:2048|1016)h",
            "mode": r"\x1b\[\?(?:1000|1003|1004|1006|1015|1016|1049|2004|2048|25|7)[hl]",
            "pointer": r"\x1b\]22;(?:default|pointer|text)\x07",
            "query": r"\x1b\[\?(?:2026|2048)\$p",
            "keyboard": r"\x1b\[>25u|\x1b\[<u",
            "clipboard": r"\x1b\]52;c;[A-Za-z0-9+/]*={0,2}\x07",
        }.items()
    )
)
_ATTRIBUTES = {"", *map(str, (0, 1, 2, 3, 4, 7, 9, 22, 23, 24, 27, 29, 39, 49))}
_ANSI_COLORS = {str(first + color) for first in (30, 40, 90, 100) for color in range(8)} - {"31"}
"""Red is what a sequence in hostile texts sets."""
FOREIGN_COLOR = ("1", "2", "3")
"""No theme has it; sequences in hostile texts set it."""


class ForeignSequence(AssertionError):
    """Something reached the terminal that the program did not write by itself."""


class _Piece(NamedTuple):
    at: int
    kind: str
    text: str


def check_stream(
    raw: bytes, *, columns: int, lines: int, clipboard: bool = False, ansi: bool = False
) -> dict[str, int]:
    """Read all of a stream, with the ANSI themes' colours or without; return how often each form occurred.

    Raises:
        ForeignSequence: at the first byte that belongs to none of the forms, with what surrounds it.
    """
    text = raw.decode("utf-8")
    pieces = list(_cut(text, columns, lines, _ATTRIBUTES | _ANSI_COLORS if ansi else _ATTRIBUTES))
    words = [index for index, piece in enumerate(pieces) if piece.kind == "text"] or [0]
    for index, piece in enumerate(pieces):
        # Modes are set before the first word is drawn, and set back after the last.
        late = piece.kind in ("mode", "keyboard", "query") and words[0] < index < words[-1]
        if late or (piece.kind == "clipboard" and not clipboard):
            raise _foreign(text, piece.at)
    return Counter(piece.kind for piece in pieces)


def _cut(text: str, columns: int, lines: int, codes: Set[str]) -> Iterator[_Piece]:
    at = 0
    while at < len(text):
        found = _FORMS.match(text, at)
        # `lastgroup` is the form itself: its inner groups close before it does.
        kind = found.lastgroup if found else None
        if found is None or kind is None or not _sound(found, kind, columns, lines, codes):
            raise _foreign(text, at)
        yield _Piece(at, kind, found.group())
        at = found.end()


def _foreign(text: str, at: int) -> ForeignSequence:
    return ForeignSequence(f"at {at}: {text[max(0, at - 80) : at]!r} >>> {text[at : at + 60]!r}")


def _sound(found: re.Match[str], kind: str, columns: int, lines: int, codes: Set[str]) -> bool:
    if kind == "style":
        return _is_own_style(found["codes"].split(";"), codes)
    if kind == "place":
        return int(found["row"] or 1) <= lines and int(found["column"] or 1) <= columns
    return True


def _is_own_style(codes: list[str], known: Set[str]) -> bool:
    """Codes that the program uses and true colours; all its themes but the ANSI ones have no other colours."""
    while codes:
        if codes[0] in ("38", "48"):
            color = codes[2:5]
            if codes[1:2] != ["2"] or len(color) != 3 or tuple(color) == FOREIGN_COLOR or not all(map(_is_byte, color)):
                return False
            codes = codes[5:]
        elif codes[0] in known:
            codes = codes[1:]
        else:
            return False
    return True


def _is_byte(code: str) -> bool:
    return code.isdecimal() and str(int(code)) == code and int(code) < 256
