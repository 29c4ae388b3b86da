"""From token ids to text, one token at a time: no split characters, no special tokens, no stop strings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

HALF_CHARACTER = "\ufffd"


class TextDecoder(Protocol):
    """Turns a stream of ids into pieces of text; their sum is the text of all ids."""

    def step(self, token: int) -> str:
        """Take one token and return the text that it completes, often empty."""


def text_decoder(tokenizer: Any) -> TextDecoder:
    """Return the tokenizer's own decoder, the fast one where it allows that, else the one that works with any."""
    if own := getattr(tokenizer, "stream_decoder", None):
        decoder: TextDecoder = own()
        return decoder
    if getattr(tokenizer, "is_fast", False) and _has_decode_stream():
        return _FastDecoder(tokenizer)
    return _WindowDecoder(tokenizer)


class _FastDecoder:
    """The decode stream of the tokenizers library, about one microsecond per token."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._stream = _decode_stream()

    def step(self, token: int) -> str:
        try:
            return self._stream.step(self._tokenizer, token) or ""
        except Exception:  # noqa: BLE001 - the library raises a bare Exception, "Invalid prefix encountered"
            # Some byte-fallback vocabularies decode a window differently once it grows; a new window starts here.
            self._stream = _decode_stream()
            return self._stream.step(self._tokenizer, token) or ""


def _has_decode_stream() -> bool:
    # tokenizers before 0.21, which older versions of transformers want, have none.
    from tokenizers import decoders

    return hasattr(decoders, "DecodeStream")


def _decode_stream() -> Any:
    from tokenizers.decoders import DecodeStream

    return DecodeStream(skip_special_tokens=True)


class _WindowDecoder:
    """Decodes a short window again for each token; the window starts where the text was last whole."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._start = 0
        self._shown = 0

    def step(self, token: int) -> str:
        self._tokens.append(token)
        before = self._decode(self._tokens[self._start : self._shown])
        after = self._decode(self._tokens[self._start :])
        if after.endswith(HALF_CHARACTER) or len(after) <= len(before):
            return ""
        self._start, self._shown = self._shown, len(self._tokens)
        return after[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class StopStrings:
    """Finds the texts that end an answer and holds back what may be the start of one.

    Attributes:
        hit: A stop string was found; nothing more comes out.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """Take new text and return what can be shown."""
        if self.hit:
            return ""
        text = self._held + text
        # The one that ends first: so the same text ends at the same place however it is cut into pieces.
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)[1]]
        keep = self._possible_start(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was held back, when no stop string can follow."""
        held, self._held = self._held, ""
        return held

    def _possible_start(self, text: str) -> int:
        longest = min(len(text), max((len(stop) for stop in self._stops), default=1) - 1)
        return next((size for size in range(longest, 0, -1) if self._any_starts_with(text[-size:])), 0)

    def _any_starts_with(self, tail: str) -> bool:
        return any(stop.startswith(tail) for stop in self._stops)
