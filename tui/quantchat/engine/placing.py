"""Where the messages of a conversation stand in the prompt that a chat template made of them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from quantchat.domain.chat import ChatMessage
from quantchat.errors import QuantchatError

Render = Callable[[Sequence[ChatMessage], bool], str]
"""Renders a conversation, with or without the start of an answer (`add_generation_prompt`).

It raises a `QuantchatError` where the template refuses the conversation.
"""
_MARK = re.compile(r"qzx(\d+)xzq")


class Place(NamedTuple):
    """Characters of a prompt. `changed`: they are not the message's own words, white space around them aside."""

    start: int
    end: int
    changed: bool = False


Places = list[Place | None]
"""One for each message; None for one that is not in the text, and for one without words."""


def places(
    text: str, messages: Sequence[ChatMessage], render: Render | None, specials: Sequence[tuple[int, int]] = ()
) -> Places:
    """Find each message.

    Args:
        render: Tells for certain what is the template's; without it the words are searched, which a message as short
            as a role's name may mislead.
        specials: Where special tokens stand, in order.
    """
    found = _by_marks(text, messages, render) if render is not None else None
    return _by_search(text, messages, specials) if found is None else found


def _by_marks(text: str, messages: Sequence[ChatMessage], render: Render) -> Places | None:
    """Render the conversation with marks for its words and read the prompt along what is left; None where it differs.

    Messages without words keep them: templates often leave these out.
    """
    marked = [
        ChatMessage(message.role, f"qzx{index}xzq" if message.content.strip() else message.content)
        for index, message in enumerate(messages)
    ]
    try:
        parts = _MARK.split(render(marked, True))
    except QuantchatError:
        return None
    order = [int(number) for number in parts[1::2]]
    known = len(order) == len(set(order)) and all(index < len(messages) for index in order)
    return _along(text, messages, parts[::2], order) if known else None


def _along(text: str, messages: Sequence[ChatMessage], between: Sequence[str], order: Sequence[int]) -> Places | None:
    found: Places = [None] * len(messages)
    if not text.startswith(between[0]):
        return None
    cursor = len(between[0])
    for index, after in zip(order, between[1:], strict=True):
        last = index == order[-1]
        place = _shown(text, messages[index].content, cursor, after, last=last)
        if place is None:
            return None
        found[index] = place
        cursor = place.end + len(after)
    return found if cursor == len(text) else None


def _shown(text: str, content: str, start: int, after: str, *, last: bool) -> Place | None:
    """Find the words that stand between `start` and what the template writes after them."""
    for words in (content, content.strip(), content.lstrip(), content.rstrip()):
        end = start + len(words)
        if (
            text.startswith(words, start)
            and text.startswith(after, end)
            and (not last or end + len(after) == len(text))
        ):
            return Place(start, end)
    end = len(text) - len(after) if last else text.find(after, start) if after else -1
    return Place(start, end, changed=True) if end >= start and text.startswith(after, end) else None


def _by_search(text: str, messages: Sequence[ChatMessage], specials: Sequence[tuple[int, int]]) -> Places:
    search = _Search(text, specials)
    found: Places = [None] * len(messages)
    cursor = 0
    for index, message in enumerate(messages):
        place = search.find(message.content, cursor)
        if place is None or (message.role == "system" and search.comes_sooner(messages[index + 1 :], place, cursor)):
            continue
        found[index], cursor = place, place.end
    for index in _missing_systems(messages, found):
        place = search.find(messages[index].content, 0)
        if place is not None and not any(_overlap(place, other) for other in found if other is not None):
            found[index] = place
    return found


def _missing_systems(messages: Sequence[ChatMessage], found: Places) -> Iterator[int]:
    """Some templates put the system prompt into the last question."""
    for index, message in enumerate(messages):
        if message.role == "system" and found[index] is None:
            yield index


def _overlap(one: Place, other: Place) -> bool:
    return one.start < other.end and other.start < one.end


class _Search:
    """Looks for words outside of special tokens."""

    def __init__(self, text: str, specials: Sequence[tuple[int, int]]) -> None:
        self._text, self._specials = text, specials

    def find(self, content: str, cursor: int) -> Place | None:
        """Find a content as it is, else without the white space around it that many templates trim."""
        return self._exactly(content, cursor) or self._exactly(content.strip(), cursor)

    def comes_sooner(self, following: Sequence[ChatMessage], place: Place, cursor: int) -> bool:
        """Whether the next message stands before or around a place."""
        other = self.find(following[0].content, cursor) if following else None
        return other is not None and other.start <= place.start

    def _exactly(self, words: str, cursor: int) -> Place | None:
        if not words.strip():
            return None
        while (start := self._text.find(words, cursor)) >= 0:
            inside = self._inside(start)
            if inside is None:
                return Place(start, start + len(words))
            cursor = inside
        return None

    def _inside(self, start: int) -> int | None:
        """Return the end of the special token that has begun before `start` and goes on there."""
        index = bisect_right(self._specials, (start, -1)) - 1
        begun, end = self._specials[index] if index >= 0 else (start, start)
        return end if begun < start < end else None
