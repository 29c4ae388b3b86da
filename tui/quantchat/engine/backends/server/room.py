"""Conversations that are too long for a server's context window: what leaves, and how long the answer may be."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from quantchat.domain.chat import CONTEXT_FULL, ChatMessage
from quantchat.engine.backends.server.faults import ServerFault
from quantchat.engine.context import reserve_for, turn_starts, without
from quantchat.errors import GenerationError

TEMPLATE_TOKENS = 64
"""More than what a chat template writes around one message, and around them all."""
_ABOUT_ROOM = re.compile(
    r"context.?(length|size|window)|maximum context|max_model_len|too many tokens|prompt is too long"
    r"|exceed.{0,20}context"
)
_PROMPT = re.compile(
    r"(\d+) (?:tokens )?in the messages|(\d+) (?:input|prompt) tokens|prompt contains (?:at least )?(\d+)"
    r"|request \((\d+) tokens\)"
)
_WINDOW = re.compile(
    r"(?:context (?:length|size|window)|max_model_len)[^\d.]{0,30}?(\d+)|available context size \((\d+)"
)


class Overflow(msgspec.Struct, frozen=True):
    """What a server says of a conversation that does not fit; 0 where it says nothing."""

    prompt: int = 0
    window: int = 0


def overflow_of(fault: ServerFault) -> Overflow | None:
    """Read a refusal; None if it is about something else."""
    said = fault.said.lower().replace(",", "")
    if fault.status not in (400, 413, 422, 500) or not _ABOUT_ROOM.search(said):
        return None
    return Overflow(_number(_PROMPT, said), _number(_WINDOW, said))


def _number(pattern: re.Pattern[str], said: str) -> int:
    found = pattern.search(said)
    return next((int(group) for group in found.groups() if group), 0) if found else 0


def surely_fits(messages: Sequence[ChatMessage], reserve: int, window: int) -> bool:
    """Say whether a conversation fits whatever its tokens are: none is shorter than a byte."""
    most = sum(len(message.content.encode(errors="replace")) + TEMPLATE_TOKENS for message in messages)
    return most + TEMPLATE_TOKENS + reserve <= window


class Room:
    """What of a conversation is sent.

    Attributes:
        dropped: Messages, oldest first and system prompts not counted, that are left out.
        limit: Tokens that the answer may have; `window_limits` when the window and not the user set it.
    """

    def __init__(self, messages: Sequence[ChatMessage], wanted: int, window: int, first: int) -> None:
        self._messages, self._wanted, self.window = messages, wanted, window
        self._starts = turn_starts(messages)
        self.dropped = first if first in self._starts else 0
        self.limit = wanted

    @property
    def window_limits(self) -> bool:
        """Whether the answer ends at the window before it ends at the user's limit."""
        return self.limit < self._wanted

    @property
    def messages(self) -> list[ChatMessage]:
        """What is sent."""
        return without(self._messages, self.dropped)

    @property
    def later(self) -> list[int]:
        """How much more may be left out: all but the last question."""
        return [start for start in self._starts if start > self.dropped]

    def settle(self, prompt: int) -> bool:
        """Take the length of the prompt, tokens; return whether it leaves enough room for an answer.

        Raises:
            GenerationError: if nothing can leave and nothing fits.
        """
        free = self.window - prompt
        if free >= reserve_for(self._wanted, self.window) or (free > 0 and not self.later):
            self.limit = min(self._wanted, free)
            return True
        if not self.later:
            raise too_long(prompt, self.window)
        return False

    def drop(self, prompt: int) -> None:
        """Leave out so many of the oldest turns that by their characters a quarter of the room becomes free."""
        wanted = (self.window - reserve_for(self._wanted, self.window)) * 3 // 4
        share = wanted / prompt if prompt else 0.5
        characters = self._characters(self.dropped) * share
        self.dropped = next((start for start in self.later if self._characters(start) <= characters), self.later[-1])

    def shrink(self, overflow: Overflow) -> None:
        """Make room after a refusal.

        Raises:
            GenerationError: if nothing can leave.
        """
        self.window = overflow.window or self.window
        if overflow.prompt and self.window:
            settled = self.settle(overflow.prompt)
            if not settled:
                self.drop(overflow.prompt)
        elif self.later:
            later = self.later
            self.dropped = later[len(later) // 2]
        elif self.limit > 1 and not self.window_limits:
            # Perhaps the limit alone is what does not fit; without numbers one can only try.
            self.limit = max(1, self.limit // 4)
        else:
            raise too_long(overflow.prompt, self.window)

    def _characters(self, dropped: int) -> int:
        return sum(len(message.content) for message in without(self._messages, dropped))


def too_long(prompt: int, window: int) -> GenerationError:
    """Say that the last question alone does not fit."""
    numbers = f"With the system prompt it has {prompt:,} tokens and the window {window:,}." if prompt and window else ""
    return GenerationError(
        "The question does not fit the model's context window",
        numbers or "The server refuses it for its length.",
        "Send a shorter one, or choose a model with a larger window.",
        code=CONTEXT_FULL,
    )
