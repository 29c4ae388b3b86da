"""Foreign text made safe: to store and send, and to show. Model output, file names, titles and prompts are data."""

from __future__ import annotations

import re
from typing import Any

TAB = 4

_DROPPED = [
    *(code for code in range(0x20) if code not in (0x09, 0x0A)),
    *range(0x7F, 0xA0),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    0xFE0F,
]
# Lone surrogates cannot be encoded, so one of them would end the program when the screen is written.
_SURROGATES = range(0xD800, 0xE000)
_SEPARATORS = (0x2028, 0x2029)

_KEEP_LINES: dict[int, str | None] = (
    dict.fromkeys(_DROPPED, None)
    | dict.fromkeys(_SURROGATES, "\N{REPLACEMENT CHARACTER}")
    | dict.fromkeys(_SEPARATORS, "\n")
)
_ONE_LINE: dict[int, str | None] = _KEEP_LINES | dict.fromkeys((0x0A, *_SEPARATORS), " ")

# Most texts hold none of these, and to look for them takes a tenth of the time that translating takes.
_UNSAFE = re.compile("[\\0-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ufe0f\\ud800-\\udfff]")

# Expressions, not `translate`: a megabyte of pasted text goes through here.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONE = re.compile(r"[\ud800-\udfff]")


def plain(text: str) -> str:
    """Return what may be stored and sent of a typed or pasted text; `clean` what is shown of it.

    Line ends become newlines, control characters but tabs are dropped, everything else is kept as it is.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _LONE.sub("\N{REPLACEMENT CHARACTER}", _CONTROLS.sub("", text))


def clean(text: str, *, newlines: bool = True) -> str:
    """Drop what a terminal would obey or reorder: control characters, bidi overrides and variation selectors.

    Tabs become spaces up to the next multiple of four; without `newlines`, line ends become spaces.
    """
    if not newlines:
        text = text.translate(_ONE_LINE)
    elif _UNSAFE.search(text):
        text = text.translate(_KEEP_LINES)
    return text.expandtabs(TAB)


def without_surrogates(value: Any) -> Any:
    """Replace lone surrogates, which UTF-8 cannot hold, by question marks, in a text or all texts of plain data."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_surrogates(item) for item in value]
    return value
