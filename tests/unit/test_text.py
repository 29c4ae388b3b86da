"""Two ways of making foreign text safe: `plain` for the model, `clean` for the eye."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.text import clean, plain, shortened

EVERYTHING = [chr(code) for code in range(0x110000)]
KEPT = {"\u200c", "\u200d", "\u061c", "\u200e", "\u200f"}
"""Joiners of scripts and emoji, and marks of direction."""
SEEN = {chr(code) for code in (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD)}
"""Signs that stand around a number: format characters with a shape."""
HIEROGLYPHS = {chr(code) for code in range(0x13430, 0x13440)}
"""They say how hieroglyphs join, as U+200D does for emoji."""


def test_nothing_invisible_is_shown() -> None:
    left = {c for c in EVERYTHING if unicodedata.category(c) == "Cf" and clean(c)}
    assert left - HIEROGLYPHS == KEPT | SEEN


@pytest.mark.parametrize(
    ("first", "last"), [(0xE0000, 0xE007F), (0xE0100, 0xE01EF), (0xFE00, 0xFE0F), (0xFFF9, 0xFFFB), (0x206A, 0x206F)]
)
def test_text_cannot_hide_in_what_has_no_shape(first: int, last: int) -> None:
    hidden = "".join(map(chr, range(first, last + 1)))
    assert clean(f"a{hidden}b") == clean(f"a{hidden}b", newlines=False) == "ab"
    assert plain(f"a{hidden}b") == f"a{hidden}b"


@pytest.mark.parametrize(
    "text",
    ["می‌خواهم", "👩‍💻", "\u200eא\u200f", "\u061cس", "क्‍ष", "é e\u0301", "漢字", "한국어", "ไทย"],
)
def test_scripts_and_emoji_stay_whole(text: str) -> None:
    assert clean(text) == plain(text) == text


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        ("a\tb", "a\tb"),
        ("a\r\nb\rc\nd", "a\nb\nc\nd"),
        ("\x1b[31mred\x1b[0m\x07", "[31mred[0m"),
        ("\x9b31m", "31m"),
        ("❤️ 👨‍👩‍👧", "❤️ 👨‍👩‍👧"),
        ("abc\u202edef", "abc\u202edef"),
        ("\ud800", "\N{REPLACEMENT CHARACTER}"),
        ("a\u2028b", "a\u2028b"),
    ],
)
def test_what_a_model_reads(raw: str, sent: str) -> None:
    assert plain(raw) == sent


def test_plain_drops_controls_and_nothing_else() -> None:
    controls = {c for c in EVERYTHING if unicodedata.category(c) == "Cc"} - {"\t", "\n", "\r"}
    changed = {c for c in EVERYTHING if plain(c) != c} - {"\r"}
    assert changed == controls | {chr(code) for code in range(0xD800, 0xE000)}


@given(st.text(st.characters()))
def test_what_is_sent_is_shown_as_what_was_typed(text: str) -> None:
    joined = text.replace("\r\n", "\n").replace("\r", "\n")
    assert clean(plain(text)) == clean(joined)
    assert plain(plain(text)) == plain(text)
    plain(text).encode()


@given(st.text(st.characters(), max_size=60), st.integers(1, 20))
def test_shortened_is_one_clean_line(text: str, limit: int) -> None:
    line = shortened(text, limit)
    assert len(line) <= limit
    assert clean(line, newlines=False) == line == " ".join(line.split())


def test_shortened_says_that_more_followed() -> None:
    assert shortened("one\n two\t\x1bthree", 80) == "one two three"
    assert shortened("one two three", 8) == "one two…"
