"""Thinking as the engine meets it: tags that are tokens, tags that the prompt has opened, stop strings per channel."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from quantchat.domain.chat import ChatMessage
from quantchat.domain.thinking import HARMONY, PAIRS, SOLAR, TAGS, Channel, Piece, Tag, ThinkingSplitter
from quantchat.engine.decode import StopStrings, TextDecoder
from quantchat.engine.protocol import Partial

_BY_THEMSELVES = tuple(token for tag in PAIRS for token in (tag.text, tag.closer))
_FAMILIES = (
    ("<|start|>", "<|channel|>", "<|message|>", "<|end|>"),  # HARMONY
    ("<|begin|>", "<|think|>", "<|content|>", "<|end|>"),  # SOLAR
    ("<|channel>", "<channel|>"),  # Gemma 4
)
"""Tokens that are parts of tags only where a tokenizer has all of a family; elsewhere `<|end|>` ends a turn."""


def marker_tokens(tokenizer: Any, eos_ids: Iterable[int]) -> dict[int, str]:
    """Return the special tokens that tags are made of, which decoding would hide, by id."""
    found = {token: special for token in _BY_THEMSELVES if (special := _special_id(tokenizer, token)) is not None}
    for family in _FAMILIES:
        ids = {token: special for token in family if (special := _special_id(tokenizer, token)) is not None}
        if len(ids) == len(family):
            found |= ids
    ends = frozenset(eos_ids)
    return {number: token for token, number in found.items() if number not in ends}


def _special_id(tokenizer: Any, token: str) -> int | None:
    number = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(number, int):
        return None
    shown = tokenizer.decode([number], skip_special_tokens=False).strip() == token
    return number if shown and not tokenizer.decode([number], skip_special_tokens=True).strip() else None


def opened_by(prompt: str, messages: Sequence[ChatMessage]) -> Tag | None:
    """Return the tag that the chat template has written at the end of a prompt, if any."""
    end = prompt.rstrip()
    tag = next((tag for tag in TAGS if tag.channel is not None and end.endswith(tag.text)), None)
    if tag is None or not messages or not messages[-1].content.rstrip().endswith(tag.text):
        return tag
    # The user's own words end with the tag: the template's must be one more.
    return tag if end.count(tag.text) > sum(message.content.count(tag.text) for message in messages) else None


def beginning(tokenizer: Any, opened: Tag | None, partial: Partial, template: str = "") -> str:
    """Write the beginning of an answer as the model would have: what it thought in its own tags, then its words.

    Args:
        opened: The tag at the end of the prompt, as by `opened_by`.
        template: The chat template, where it is not the tokenizer's own.
    """
    tag = opened or _own_tag(tokenizer, template)
    manner = _manner(tag)
    if opened is None and not partial.thinking:
        return manner.answer + partial.text
    opener = "" if opened else manner.opener
    return opener + partial.thinking + (manner.closer + partial.text if partial.text else "")


class _Manner(NamedTuple):
    """How a model writes its thinking: what stands before it, between it and the answer, and before a lone answer."""

    opener: str
    closer: str
    answer: str = ""


def _manner(tag: Tag) -> _Manner:
    for start, thinking, *_, answer in (HARMONY, SOLAR):
        if tag.text == thinking.text:
            return _Manner(tag.text, tag.closer + start.text + answer.text, answer.text)
    if tag.text[0] == "<" and tag.text[1].isalpha():
        return _Manner(f"{tag.text}\n", f"\n{tag.closer}\n\n")
    return _Manner(tag.text, tag.closer)


def _own_tag(tokenizer: Any, template: str) -> Tag:
    """The tag that the chat template or the vocabulary names; the most common one without any."""
    template = template or str(getattr(tokenizer, "chat_template", None) or "")
    tags = [tag for tag in TAGS if tag.channel == "thinking"]
    named = (tag for tag in tags if tag.text in template and tag.closer in template)
    known = (tag for tag in tags if _special_id(tokenizer, tag.text) is not None)
    return next(named, None) or next(known, PAIRS[0])


class Speech:
    """What a model says, on its way out: cut into channels, ended by stop strings.

    The user's stop strings end the answer and are not looked for in thinking; those of the template end both.

    Attributes:
        hit: A stop string was found; nothing more comes out.
    """

    def __init__(self, opened: Tag | None, users: Iterable[str], templates: Iterable[str]) -> None:
        self._splitter = ThinkingSplitter(opened)
        templates = tuple(templates)
        self._stops: dict[Channel, StopStrings] = {
            "answer": StopStrings([*users, *templates]),
            "thinking": StopStrings(templates),
        }
        self._channel: Channel = "answer"
        self._shown: list[Piece] = []
        self.hit = False

    def prime(self, decoder: TextDecoder, markers: Mapping[int, str], ids: Iterable[int]) -> None:
        """Take the tokens of an answer that goes on, from its first: what they said was shown and comes out no more.

        The decoder is left where the answer broke off; tags and stop strings count across that place.
        """
        for token in ids:
            marker = markers.get(token)
            self.feed(decoder.step(token)) if marker is None else self.mark(marker)
            if self.hit:
                # A stop string that the user has set since.
                self.hit = self._stops["answer"].hit = self._stops["thinking"].hit = False
        self._shown = copy.deepcopy(self).flush()

    def feed(self, text: str) -> list[Piece]:
        """Take decoded text and return what can be shown."""
        return self._pass_on(self._splitter.feed(text))

    def mark(self, token: str) -> list[Piece]:
        """Take a control token of `marker_tokens`."""
        return self._pass_on(self._splitter.mark(token))

    def flush(self) -> list[Piece]:
        """Return what was held back, when nothing follows."""
        return self._pass_on(self._splitter.flush()) + self._news(self._release())

    def _pass_on(self, pieces: list[Piece]) -> list[Piece]:
        shown: list[Piece] = []
        for channel, text in pieces:
            if channel != self._channel:
                shown += self._release()
                self._channel = channel
            if not self.hit and (passed := self._stops[channel].feed(text)):
                shown.append((channel, passed))
            self.hit = self.hit or self._stops[channel].hit
        return self._news(shown)

    def _release(self) -> list[Piece]:
        held = "" if self.hit else self._stops[self._channel].flush()
        return [(self._channel, held)] if held else []

    def _news(self, pieces: list[Piece]) -> list[Piece]:
        """Leave out what was held back where the answer broke off, and was shown then."""
        if not self._shown:
            return pieces
        return [(channel, new) for channel, text in pieces if (new := self._new(channel, text))]

    def _new(self, channel: Channel, text: str) -> str:
        while text and self._shown:
            where, shown = self._shown.pop(0)
            if where != channel or not (text.startswith(shown) or shown.startswith(text)):
                # It was part of a tag after all.
                self._shown.clear()
            elif len(text) < len(shown):
                self._shown.insert(0, (where, shown[len(text) :]))
                text = ""
            else:
                text = text[len(shown) :]
        return text
