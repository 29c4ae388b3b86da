"""What a prompt's inspection asks of a tokenizer, whatever library it comes from. Imports none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

from quantchat.domain.thinking import PAIRS
from quantchat.engine.decode import HALF_CHARACTER

_CONTINUATION = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 that begin no character."""
_LONGEST = 4
"""Bytes of the longest character, and so the most tokens that share one."""
_SLACK = 64
"""Bytes around the place that is expected within which a special token is looked for."""


class Vocabulary(Protocol):
    """A model's tokens."""

    @property
    def specials(self) -> Mapping[int, str]:
        """Tokens with a meaning of their own, as a prompt writes them; tags of thinking are among them."""

    @property
    def bos(self) -> int | None:
        """The token that a text starts with; None without one."""

    @property
    def adds_bos(self) -> bool:
        """Whether the tokenizer, left to itself, begins every text with it: the model was trained so."""

    def ends(self, text: str, ids: Sequence[int]) -> Sequence[int]:
        """Return where each token ends in the text that the ids stand for, in characters; they never fall."""


class PieceVocabulary(NamedTuple):
    """A vocabulary that tells the bytes of each token, such as llama.cpp's.

    Attributes:
        piece: Gives the bytes of a token, those of a special one as its name.
    """

    piece: Callable[[int], bytes]
    specials: Mapping[int, str] = {}
    bos: int | None = None
    adds_bos: bool = False

    def ends(self, text: str, ids: Sequence[int]) -> Sequence[int]:
        """Return where each token ends, by the lengths of their pieces."""
        return ends_of(text, [self.piece(token) for token in ids], {self.piece(token) for token in self.specials})


class HubVocabulary:
    """A tokenizer of transformers, of any version."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.specials: Mapping[int, str] = _specials(tokenizer)
        self.bos: int | None = tokenizer.bos_token_id
        self.adds_bos = self.bos is not None and list(tokenizer("")["input_ids"])[:1] == [self.bos]

    def ends(self, text: str, ids: Sequence[int]) -> Sequence[int]:
        """Return where each token ends: as the tokenizer cuts the text, else as the ids read."""
        if getattr(self._tokenizer, "is_fast", False):
            encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            if list(encoded["input_ids"]) == list(ids):
                return list(accumulate((end for _, end in encoded["offset_mapping"]), max))
        return ends_of(text, self._pieces(ids), {name.encode() for name in self.specials.values()})

    def _pieces(self, ids: Sequence[int]) -> list[bytes]:
        """Read each token by itself; those that share a character are read together, as the first one's."""
        alone = {token: self._words([token]) for token in set(ids)}
        pieces: list[bytes] = []
        held: list[int] = []
        for token in ids:
            held.append(token)
            words = alone[token] if len(held) == 1 else self._words(held)
            if HALF_CHARACTER not in words or len(held) == _LONGEST:
                pieces += [words.encode(), *[b""] * (len(held) - 1)]
                held = []
        return [*pieces, *[b""] * len(held)]

    def _words(self, ids: Sequence[int]) -> str:
        """Read tokens after one that is known: some decoders drop a space where a text starts."""
        anchor = next(iter(self.specials), None)
        return self._read(ids) if anchor is None else self._read([anchor, *ids])[len(self._read([anchor])) :]

    def _read(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)


def _specials(tokenizer: Any) -> dict[int, str]:
    tags = {text for tag in PAIRS for text in (tag.text, tag.closer)}
    added = getattr(tokenizer, "added_tokens_decoder", {})
    found = {number: token.content for number, token in added.items() if token.special or token.content in tags}
    return found | dict(zip(tokenizer.all_special_ids, map(str, tokenizer.all_special_tokens), strict=False))


def ends_of(text: str, pieces: Iterable[bytes], specials: Iterable[bytes] = ()) -> list[int]:
    """Align the bytes of tokens with the text that they stand for; return where each ends, in characters.

    A space that a vocabulary hides where a text starts counts nothing. Where pieces read otherwise than the text, as
    after a normalizer, places are guessed up to the next special token.
    """
    raw, anchors = text.encode(errors="replace"), frozenset(specials)
    place, ends = 0, []
    for piece in pieces:
        place = min(_after(raw, piece, place, piece in anchors), len(raw))
        ends.append(place)
    if ends:
        ends[-1] = len(raw)
    return _characters(raw, ends)


def _after(raw: bytes, piece: bytes, place: int, special: bool) -> int:
    if raw.startswith(piece, place):
        return place + len(piece)
    if piece.startswith(b" ") and raw.startswith(piece[1:], place):
        return place + len(piece) - 1
    if special and (found := raw.find(piece, max(0, place - _SLACK), place + _SLACK + len(piece))) >= place:
        return found + len(piece)
    return place + len(piece)


def _characters(raw: bytes, ends: Sequence[int]) -> list[int]:
    """Turn places in bytes into places in characters; a character that was split ends with its first byte."""
    starts = (len(raw[start:end].translate(None, _CONTINUATION)) for start, end in zip([0, *ends], ends, strict=False))
    return list(accumulate(starts))
