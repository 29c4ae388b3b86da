"""What the terminal sends, cut into keys and pastes."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events
from textual._xterm_parser import XTermParser
from textual.drivers import linux_driver
from textual.message import Message

from quantchat.ui import pastes
from quantchat.ui.pastes import END, START, PasteParser, take_pastes_whole


def told(messages: Iterable[Message]) -> list[str]:
    """Pastes in brackets, keys by their names."""
    return [
        f"<{message.text}>" if isinstance(message, events.Paste) else message.key
        for message in messages
        if isinstance(message, events.Paste | events.Key)
    ]


def feed(*reads: str) -> list[str]:
    parser = PasteParser()
    return [word for data in reads for word in told(parser.feed(data))]


def test_an_enter_behind_an_escape_in_a_paste_is_no_key() -> None:
    assert feed(f"a{START}x\x1b[31mred\rrm -rf\ry{END}b") == ["a", "<x\x1b[31mred\rrm -rf\ry>", "b"]


def test_what_stands_between_two_ends_was_not_typed() -> None:
    assert feed(f"{START}a{END}rm -rf\r{END}b") == ["<arm -rf\r>", "b"]


def test_a_beginning_inside_a_paste_is_text() -> None:
    assert feed(f"{START}a{START}b{END}c") == ["<ab>", "c"]


def test_two_pastes_in_one_read() -> None:
    assert feed(f"{START}a{END}x{START}b{END}y") == ["<a>", "x", "<b>", "y"]


@given(
    st.lists(st.sampled_from(["x", "\r", "\x1b[A", "é", f"{START}one\rtwo\x1b[{END}", f"{START}{END}"]), max_size=8),
    st.integers(1, 7),
)
def test_the_size_of_reads_does_not_matter(sent: list[str], size: int) -> None:
    data = "".join(sent)
    whole = {"x": "x", "\r": "enter", "\x1b[A": "up", "é": "é"}
    wanted = [whole.get(part, f"<{part.removeprefix(START).removesuffix(END)}>") for part in sent]
    reads = [data[start : start + size] for start in range(0, len(data), size)]
    named = ["é" if word == "latin_small_letter_e_with_acute" else word for word in feed(*reads)]
    assert named == wanted


@pytest.mark.parametrize("key", ["\x1b[2~", "\x1b[20~", "\x1b[24~", "\x1b[13;2u", "\x1b[27;2;13~"])
def test_keys_that_begin_like_a_paste_are_keys(key: str) -> None:
    plain = told(XTermParser().feed(key))
    assert plain
    assert feed(*key) == feed(key) == plain


def test_a_beginning_that_never_goes_on_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pastes, "HELD_SECONDS", 0.0)
    parser = PasteParser()
    assert told(parser.feed("\x1b")) == []
    assert told(parser.tick()) == ["escape"]
    assert told(parser.feed("x")) == ["x"]
    assert told(parser.feed("\x1b[2")) == []
    assert told(parser.tick()) == told(_timed_out("\x1b[2"))


def _timed_out(data: str) -> Iterable[Message]:
    parser = XTermParser()
    yield from parser.feed(data)
    parser._timeout_time = 0.0
    yield from parser.tick()


def test_a_megabyte_is_much_cheaper_than_by_textuals_own_parser() -> None:
    data = START + "some words\r" * 100_000 + END
    reads = [data[start : start + 4096] for start in range(0, len(data), 4096)]

    def seconds(parser: XTermParser) -> float:
        start = time.perf_counter()
        for read in reads:
            list(parser.feed(read))
        return time.perf_counter() - start

    assert seconds(PasteParser()) * 5 < seconds(XTermParser())


def test_the_driver_takes_this_parser_and_survives_foreign_bytes() -> None:
    take_pastes_whole()
    take_pastes_whole()
    assert linux_driver.XTermParser is PasteParser
    assert linux_driver.getincrementaldecoder("utf-8")().decode(b"a\xe9b") == "a\N{REPLACEMENT CHARACTER}b"
