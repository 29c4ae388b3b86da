"""What sampling rules know of the text so far, whatever holds the logits; constant work per token."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Prefix = tuple[int, ...]


class BiasTable:
    """Which tokens a bias on texts is for now.

    A text stands for its tokens in the middle of a word and those after a space. Where it is one token, that token gets
    the bias. Where it is several, a negative bias goes to the last one, and only after the ones before it, so that no
    other word suffers; a positive one goes to each of them after the ones before it, as a word must begin to be said.
    """

    def __init__(self, bias: Mapping[str, float], tokenizer: Any, prompt: Sequence[int]) -> None:
        self.after: dict[Prefix, dict[int, float]] = {}
        for text, value in bias.items():
            for prefix, token in _steps(tokenizations(tokenizer, text), raised=value > 0):
                table = self.after.setdefault(prefix, {})
                table[token] = table.get(token, 0.0) + value
        self._lengths = sorted({len(prefix) for prefix in self.after})
        self._said = deque(prompt, maxlen=max(self._lengths, default=0))

    def now(self) -> Iterator[Prefix]:
        """Return the keys of `after` that the text ends with."""
        said = tuple(self._said)
        for length in self._lengths:
            prefix = said[len(said) - length :] if length <= len(said) else None
            if prefix in self.after:
                yield prefix

    def accept(self, token: int) -> None:
        """Note the next token of the text."""
        self._said.append(token)


class SeenSequences:
    """Which tokens would make a sequence of `size` tokens stand a second time."""

    def __init__(self, size: int, prompt: Sequence[int]) -> None:
        self._following: dict[Prefix, set[int]] = {}
        self._last: deque[int] = deque(maxlen=size - 1)
        self._wanted = size - 1
        for token in prompt:
            self.accept(token)

    def now(self) -> set[int]:
        """Return those tokens."""
        return self._following.get(tuple(self._last), set())

    def accept(self, token: int) -> None:
        """Note the next token of the text."""
        if len(self._last) == self._wanted:
            self._following.setdefault(tuple(self._last), set()).add(token)
        self._last.append(token)


def _steps(forms: Iterable[Prefix], *, raised: bool) -> set[tuple[Prefix, int]]:
    """Return each token that gets the bias, and the tokens that must stand before it."""
    steps: set[tuple[Prefix, int]] = set()
    for form in forms:
        first = 0 if raised else len(form) - 1
        steps |= {(form[:place], form[place]) for place in range(first, len(form))}
    return steps


def tokenizations(tokenizer: Any, text: str) -> set[Prefix]:
    """Return the ids of a text where no space stands before it, and where one does."""
    plain = _encode(tokenizer, text)
    if len(plain) == 1 and plain[0] in tokenizer.all_special_ids:
        return {plain}
    if text[0].isspace():
        return {_encode_behind(tokenizer, "a", text)}
    return {_encode_behind(tokenizer, "\n", text), _encode_behind(tokenizer, "a", " " + text)}


def _encode_behind(tokenizer: Any, start: str, text: str) -> Prefix:
    """Encode behind other text, as some tokenizers put a space before what stands alone."""
    before, whole = _encode(tokenizer, start), _encode(tokenizer, start + text)
    parted = whole[: len(before)] == before and len(whole) > len(before)
    return whole[len(before) :] if parted else _encode(tokenizer, text)


def _encode(tokenizer: Any, text: str) -> Prefix:
    return tuple(tokenizer.encode(text, add_special_tokens=False))
