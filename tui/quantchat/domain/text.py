"""Foreign text made safe: to store and send, and to show. Model output, file names, titles and prompts are data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

TAB = 4

Ranges = tuple[tuple[int, int], ...]

_CONTROLS: Ranges = ((0x00, 0x08), (0x0B, 0x1F), (0x7F, 0x9F))
_BIDI: Ranges = ((0x202A, 0x202E), (0x2066, 0x2069))
# What has no width and no shape: terminals disagree about its cells, and text can hide in it. The joiners that
# scripts and emoji need (U+200C, U+200D) and the direction marks (U+061C, U+200E, U+200F) are not among them.
_INVISIBLE: Ranges = (
    (0xAD, 0xAD),  # soft hyphen
    (0x180E, 0x180E),
    (0x200B, 0x200B),  # zero width space
    (0x2060, 0x2064),  # word joiner, invisible operators
    (0x206A, 0x206F),  # deprecated format characters
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),  # byte order mark
    (0xFFF9, 0xFFFB),  # interlinear annotation
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE007F),  # tags
    (0xE0100, 0xE01EF),  # variation selectors
)
# Lone surrogates cannot be encoded, so one of them would end the program when the screen is written.
_SURROGATES: Ranges = ((0xD800, 0xDFFF),)
_SEPARATORS: Ranges = ((0x2028, 0x2029),)


def _codes(ranges: Ranges) -> Iterator[int]:
    return (code for first, last in ranges for code in range(first, last + 1))


def _pattern(*sets: Ranges) -> re.Pattern[str]:
    inside = "".join(f"\\U{first:08x}-\\U{last:08x}" for ranges in sets for first, last in ranges)
    return re.compile(f"[{inside}]")


_KEEP_LINES: dict[int, str | None] = (
    dict.fromkeys(_codes((*_CONTROLS, *_BIDI, *_INVISIBLE)), None)
    | dict.fromkeys(_codes(_SURROGATES), "\N{REPLACEMENT CHARACTER}")
    | dict.fromkeys(_codes(_SEPARATORS), "\n")
)
_ONE_LINE: dict[int, str | None] = _KEEP_LINES | dict.fromkeys((0x0A, *_codes(_SEPARATORS)), " ")

# Most texts hold none of these, and to look for them takes a tenth of the time that translating takes.
_UNSAFE = _pattern(_CONTROLS, _BIDI, _INVISIBLE, _SURROGATES, _SEPARATORS)

# Expressions, not `translate`: a megabyte of pasted text goes through here.
_CONTROL = _pattern(_CONTROLS)
_LONE = _pattern(_SURROGATES)
_EMOJI_SELECTORS = _pattern(((0xFE00, 0xFE0F),))


def plain(text: str) -> str:
    """Return what may be stored and sent of a typed or pasted text; `clean` what is shown of it.

    Line ends become newlines, control characters but tabs are dropped, everything else is kept as it is.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _LONE.sub("\N{REPLACEMENT CHARACTER}", _CONTROL.sub("", text))


def clean(text: str, *, newlines: bool = True) -> str:
    """Drop what a terminal would obey or reorder and what nobody would see: see `_CONTROLS`, `_BIDI`, `_INVISIBLE`.

    Tabs become spaces up to the next multiple of four; without `newlines`, line ends become spaces.
    """
    if not newlines:
        text = text.translate(_ONE_LINE)
    elif _UNSAFE.search(text):
        text = text.translate(_KEEP_LINES)
    return text.expandtabs(TAB)


def spelled(text: str) -> str:
    """Write characters that `clean` drops or replaces as `<U+200B>`, for who wants to see them; line ends stay.

    Selectors of emoji are dropped: they are everywhere and hide nothing.
    """
    return _UNSAFE.sub(_name, _EMOJI_SELECTORS.sub("", text)) if _UNSAFE.search(text) else text


def _name(match: re.Match[str]) -> str:
    return f"<U+{ord(match[0]):04X}>"


def shortened(text: str, limit: int) -> str:
    """Return a text as one clean line without spare white space, cut to `limit` characters."""
    # Cut first: what lies far behind would only cost time, and white space may still shrink.
    line = " ".join(clean(text[: 4 * limit], newlines=False).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def without_surrogates(value: Any) -> Any:
    """Replace lone surrogates, which UTF-8 cannot hold, by question marks, in a text or all texts of plain data."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_surrogates(item) for item in value]
    return value
