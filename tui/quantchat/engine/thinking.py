"""Thinking as the engine meets it: tags that are tokens, tags that the prompt has opened, stop strings per channel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from quantchat.domain.chat import ChatMessage
from quantchat.domain.thinking import PAIRS, TAGS, Channel, Piece, Tag, ThinkingSplitter
from quantchat.engine.decode import StopStrings

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
        self.hit = False

    def feed(self, text: str) -> list[Piece]:
        """Take decoded text and return what can be shown."""
        return self._pass_on(self._splitter.feed(text))

    def mark(self, token: str) -> list[Piece]:
        """Take a control token of `marker_tokens`."""
        return self._pass_on(self._splitter.mark(token))

    def flush(self) -> list[Piece]:
        """Return what was held back, when nothing follows."""
        return self._pass_on(self._splitter.flush()) + self._release()

    def _pass_on(self, pieces: list[Piece]) -> list[Piece]:
        shown: list[Piece] = []
        for channel, text in pieces:
            if channel != self._channel:
                shown += self._release()
                self._channel = channel
            if not self.hit and (passed := self._stops[channel].feed(text)):
                shown.append((channel, passed))
            self.hit = self.hit or self._stops[channel].hit
        return shown

    def _release(self) -> list[Piece]:
        held = "" if self.hit else self._stops[self._channel].flush()
        return [(self._channel, held)] if held else []
