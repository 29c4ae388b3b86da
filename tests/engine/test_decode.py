"""Text from ids: whole characters, no special tokens, no stop strings."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import tiny
from quantchat.domain.thinking import PAIRS, Tag
from quantchat.engine.decode import HALF_CHARACTER, StopStrings, _FastDecoder, _WindowDecoder
from quantchat.engine.thinking import Speech

pytestmark = pytest.mark.engine
HARD = ["plain words", "Größe über alles", "日本語のテキスト", "🙂👩‍👩‍👧‍👦🇩🇪", "العربية", "a\n\n  b\tc", "x" * 300]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.make_tokenizer()


@pytest.mark.parametrize("kind", [_FastDecoder, _WindowDecoder])
@pytest.mark.parametrize("text", HARD)
def test_pieces_add_up_and_no_character_is_split(tokenizer, kind, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    decoder = kind(tokenizer)
    pieces = [decoder.step(token) for token in ids]
    assert "".join(pieces) == text
    assert not any(HALF_CHARACTER in piece for piece in pieces)


@pytest.mark.parametrize("kind", [_FastDecoder, _WindowDecoder])
def test_special_tokens_are_not_text(tokenizer, kind) -> None:
    decoder = kind(tokenizer)
    ids = [tokenizer.bos_token_id, *tokenizer("word")["input_ids"], tokenizer.eos_token_id]
    assert "".join(decoder.step(token) for token in ids) == "word"


def test_a_decode_stream_that_loses_its_prefix_is_replaced(tokenizer) -> None:
    class Lost:
        def step(self, *_: object) -> str:
            raise Exception("Invalid prefix encountered")  # noqa: TRY002 - what the library raises

    decoder = _FastDecoder(tokenizer)
    first, *rest = tokenizer("two words")["input_ids"]
    text = decoder.step(first)
    decoder._stream = Lost()
    assert text + "".join(decoder.step(token) for token in rest) == "two words"


def streamed(stops: list[str], pieces: list[str]) -> tuple[list[str], StopStrings]:
    finder = StopStrings(stops)
    return [*(finder.feed(piece) for piece in pieces), finder.flush()], finder


STOPS = st.lists(st.text(alphabet="abc\n", max_size=6), max_size=4)
PIECES = st.lists(st.text(alphabet="abc\n", max_size=6), max_size=12)


def first_stop(stops: list[str], text: str) -> int | None:
    """Where the stop string begins that ends first, the longest of those that end there; None without any."""
    for end in range(1, len(text) + 1):
        ending = [len(stop) for stop in stops if stop and text[:end].endswith(stop)]
        if ending:
            return end - max(ending)
    return None


@given(STOPS, PIECES)
def test_stop_strings_never_leak_however_the_text_is_cut(stops: list[str], pieces: list[str]) -> None:
    shown, finder = streamed(stops, pieces)
    whole = "".join(pieces)
    assert "".join(shown) == whole[: first_stop(stops, whole)]
    assert finder.hit == (first_stop(stops, whole) is not None)


@given(STOPS, PIECES)
def test_only_what_may_begin_a_stop_string_is_held_back(stops: list[str], pieces: list[str]) -> None:
    finder, shown, whole = StopStrings(stops), "", ""
    for piece in pieces:
        shown += finder.feed(piece)
        whole += piece
        if finder.hit:
            break
        held = whole[len(shown) :]
        assert whole.startswith(shown)
        assert not held or any(stop.startswith(held) for stop in stops)


SPOKEN = ["<think>", "</think>", "<th", "ink>", "</", "a", "b", "ab", "\n", " ", "<|end|>"]
USERS = st.lists(st.sampled_from(["ab", "aba", "b\n", "<", "</think>x", "nk>", "\n\n", "bb"]), max_size=3)


def said(text: str, cuts: list[int], users: list[str], templates: list[str], opened: Tag | None) -> tuple[list, bool]:
    """What comes out in runs of one channel, and whether a stop string was met."""
    speech = Speech(opened, users, templates)
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    pieces = [piece for start, end in pairwise(places) for piece in speech.feed(text[start:end])] + speech.flush()
    return [(channel, "".join(p for _, p in run)) for channel, run in groupby(pieces, lambda p: p[0])], speech.hit


@given(
    st.lists(st.sampled_from(SPOKEN), max_size=14).map("".join),
    st.lists(st.integers(0, 99), max_size=8),
    USERS,
    st.lists(st.sampled_from(["a\n", "<|end|>"]), max_size=1),
    st.sampled_from([None, PAIRS[0]]),
)
def test_stop_strings_never_leak_beside_thinking(text, cuts, users, templates, opened) -> None:
    runs, hit = said(text, cuts, users, templates, opened)
    assert (runs, hit) == said(text, [], users, templates, opened), "it depends on where the text was cut"
    unstopped, _ = said(text, [], [], [], opened)
    for channel, stops in (("answer", [*users, *templates]), ("thinking", templates)):
        shown, all_of_it = ("".join(t for c, t in many if c == channel) for many in (runs, unstopped))
        assert all_of_it.startswith(shown)
        assert not any(stop in block for c, block in runs if c == channel for stop in stops)
        assert hit or shown == all_of_it


def test_text_that_cannot_start_a_stop_string_is_not_held() -> None:
    finder = StopStrings(["\nUser:"])
    assert finder.feed("hello") == "hello"
    assert finder.feed(" you\nUs") == " you"
    assert finder.feed("ual") == "\nUsual"
