from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.text import clean

BIDI = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]
HOSTILE = st.text(
    st.one_of(st.characters(), st.sampled_from(["\x1b", "\x9b", "\t", "\r", "\n", "\ufe0f", "\ud800", *BIDI]))
)


@given(HOSTILE, st.booleans())
def test_nothing_is_left_that_a_terminal_obeys(text: str, newlines: bool) -> None:
    cleaned = clean(text, newlines=newlines)
    allowed = "\n" if newlines else ""
    assert [char for char in cleaned if unicodedata.category(char) in ("Cc", "Cs") and char not in allowed] == []
    assert not set(cleaned) & {*BIDI, "\ufe0f"}
    cleaned.encode()


@given(HOSTILE, st.booleans())
def test_cleaning_twice_changes_nothing(text: str, newlines: bool) -> None:
    once = clean(text, newlines=newlines)
    assert clean(once, newlines=newlines) == once


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\r\nb", "a\nb"),
        ("a\tb\n\tc", "a   b\n    c"),
        ("\x1b]0;title\x07x", "]0;titlex"),
        ("\u2705\ufe0f", "\u2705"),
        ("漢字 é 👩‍💻", "漢字 é 👩‍💻"),
    ],
)
def test_examples(raw: str, shown: str) -> None:
    assert clean(raw) == shown


def test_one_line() -> None:
    assert clean("a\r\nb\u2028c", newlines=False) == "a b c"


def test_every_character_is_judged_the_same_alone_and_beside_others() -> None:
    """Texts without anything unsafe are passed on unchanged after one look, which must not miss any of it."""
    beside_a_bell = [clean(f"\x07{chr(code)}") for code in range(0x110000)]
    assert [clean(chr(code)) for code in range(0x110000)] == beside_a_bell
