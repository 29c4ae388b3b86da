"""Text from ids: whole characters, no special tokens, no stop strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import tiny
from quantchat.engine.decode import HALF_CHARACTER, StopStrings, _FastDecoder, _WindowDecoder

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


ALPHABET = st.text(alphabet="abc\n", max_size=6)


@given(st.lists(ALPHABET, max_size=3), st.lists(ALPHABET, max_size=12))
def test_stop_strings_never_leak_however_the_text_is_cut(stops: list[str], pieces: list[str]) -> None:
    shown, finder = streamed(stops, pieces)
    whole = "".join(pieces)
    places = [whole.find(stop) for stop in stops if stop and stop in whole]
    assert finder.hit == bool(places)
    text = "".join(shown)
    assert whole.startswith(text)
    assert not any(stop in text for stop in stops if stop)
    if not places:
        assert text == whole


def test_text_that_cannot_start_a_stop_string_is_not_held() -> None:
    finder = StopStrings(["\nUser:"])
    assert finder.feed("hello") == "hello"
    assert finder.feed(" you\nUs") == " you"
    assert finder.feed("ual") == "\nUsual"
