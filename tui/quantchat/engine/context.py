"""What of a conversation the model is asked with, when its context window does not hold all of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from quantchat.domain.chat import CONTEXT_FULL, ChatMessage
from quantchat.engine.prompt import Prompt, Spoken, render
from quantchat.engine.protocol import Partial
from quantchat.errors import GenerationError

LONG = 8
"""Characters per token of the window, from which a conversation is not rendered whole to see whether it fits."""


class Fitted(NamedTuple):
    """A prompt that leaves room for its answer.

    Attributes:
        dropped: Messages, oldest first and system prompts not counted, that found no room.
        reserve: Tokens that are free for the reply.
    """

    prompt: Prompt
    dropped: int
    reserve: int


def reserve_for(wanted: int, window: int) -> int:
    """Return the tokens that are kept free for a reply of at most `wanted`.

    A quarter of the window at most: a longer limit is seldom used up, and memory of the conversation would pay for it.
    """
    return max(1, min(wanted, window // 4))


def fit(
    tokenizer: Any,
    messages: Sequence[ChatMessage],
    window: int,
    reserve: int,
    spoken: Spoken | None = None,
    resume: Partial | None = None,
    first: int = 0,
    *,
    session: str = "",
    template: str = "",
) -> Fitted:
    """Render a conversation so that it fits; the oldest whole turns leave, never a system prompt or the last question.

    Where turns must leave, so many do that a quarter of the room is free: the prompt's beginning then stays the same,
    and its KV cache is worth something, for several turns.

    Args:
        window: Tokens of the context window; 0 if unknown, then all is kept.
        reserve: Tokens wanted for the reply.
        first: What the last prompt of the session dropped; that much stays away while it leaves enough to see.

    Raises:
        GenerationError: if the last question alone does not fit, or the template takes none of the forms.
    """

    def rendered(dropped: int) -> Prompt:
        return render(tokenizer, without(messages, dropped), spoken, resume, session=session, template=template)

    if not window:
        return Fitted(rendered(0), 0, reserve)
    characters = sum(len(message.content) for message in messages)
    fitting = _Fitting(rendered, turn_starts(messages), characters, window, reserve_for(reserve, window))
    dropped, prompt = fitting.choose(first)
    if len(prompt.ids) >= window:
        raise _too_long(prompt, window)
    return Fitted(prompt, dropped, min(reserve_for(reserve, window), window - len(prompt.ids)))


def without(messages: Sequence[ChatMessage], dropped: int) -> list[ChatMessage]:
    """Leave out the oldest messages that are no system prompts."""
    gone = set([index for index, message in enumerate(messages) if message.role != "system"][:dropped])
    return [message for index, message in enumerate(messages) if index not in gone]


def turn_starts(messages: Sequence[ChatMessage]) -> list[int]:
    """Count the messages before each question, system prompts left out; the first is 0."""
    roles = [message.role for message in messages if message.role != "system"]
    return sorted({0, *(index for index, role in enumerate(roles) if role == "user")})


class _Fitting:
    """The search for the most turns that fit. Renders no candidate twice, and none that is far too long.

    Args:
        rendered: Gives the prompt without so many messages.
        starts: The counts of messages that may leave.
        characters: Of the whole conversation.
    """

    def __init__(
        self,
        rendered: Callable[[int], Prompt],
        starts: Sequence[int],
        characters: int,
        window: int,
        reserve: int,
    ) -> None:
        self._rendered, self._starts = rendered, starts
        self._window, self._reserve = window, reserve
        self._prompts: dict[int, Prompt] = {}
        self._lowest = 0
        self._long = characters > LONG * window

    def choose(self, first: int) -> tuple[int, Prompt]:
        """Return how many messages leave, and the prompt without them."""
        dropped = self._drop(first)
        return dropped, self._prompt(dropped)

    def _drop(self, first: int) -> int:
        if not self._long and self._free(0) >= 0:
            return 0
        if first in self._starts[1:] and 0 <= self._free(first) <= self._room(first) // 2:
            return first
        if self._long and self._grow():
            return 0
        least = self._least(lambda dropped: self._free(dropped) >= self._room(dropped) // 4)
        if self._free(least) >= self._room(least) // 4:
            return least
        return self._least(lambda dropped: self._free(dropped) >= 0)

    def _grow(self) -> bool:
        """Take twice as many turns each time; say whether all fit, else remember how many are too many."""
        last = len(self._starts) - 1
        for turns in (1 << power for power in range(last.bit_length() + 1)):
            self._lowest = max(0, last + 1 - turns)
            if self._free(self._starts[self._lowest]) < 0:
                return False
        return True

    def _least(self, suits: Callable[[int], bool]) -> int:
        """The fewest messages without which it suits; all but the last question where nothing does."""
        last = len(self._starts) - 1
        return self._starts[bisect_left(self._starts, True, lo=min(self._lowest, last), hi=last, key=suits)]

    def _prompt(self, dropped: int) -> Prompt:
        if dropped not in self._prompts:
            self._prompts[dropped] = self._rendered(dropped)
        return self._prompts[dropped]

    def _room(self, dropped: int) -> int:
        """Tokens for the prompt. What is said of an answer that goes on was part of its reserve."""
        return self._window - max(self._reserve - self._prompt(dropped).begun, self._reserve // 4, 1)

    def _free(self, dropped: int) -> int:
        return self._room(dropped) - len(self._prompt(dropped).ids)


def _too_long(prompt: Prompt, window: int) -> GenerationError:
    if prompt.begun:
        return GenerationError(
            "The answer has filled the model's context window",
            f"With its question it has {len(prompt.ids):,} tokens and the window {window:,}.",
            "Load a model with a larger window to go on, or ask for the rest in a new question.",
            code=CONTEXT_FULL,
        )
    return GenerationError(
        "The question does not fit the model's context window",
        f"With the system prompt it has {len(prompt.ids):,} tokens and the window {window:,}.",
        "Send a shorter one, or load a model with a larger window.",
        code=CONTEXT_FULL,
    )
