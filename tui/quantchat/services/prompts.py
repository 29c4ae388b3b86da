"""Prompts of wanted lengths in tokens, made of plain words; no two begin alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random

from quantchat.domain.chat import ChatMessage

WORDS = (  # noqa: SIM905
    "the a of and in to it was he that with on for at by from as keeper lighthouse shore ship night lamp wind water "
    "rope stone window morning letter captain harbour signal weather paper number memory quietly slowly again never "
    "always between under above before after because however although something nothing everything together remember"
).split()
STORY = "Go on with this story, in many words."
SAMPLE = (4, 36)
"""Words of the two texts whose lengths in tokens tell what a word takes; small windows must hold them."""


class Prompts:
    """Makes prompts for one model.

    Args:
        count: Returns the tokens that messages become.
    """

    def __init__(self, count: Callable[[Sequence[ChatMessage]], Awaitable[int]]) -> None:
        self._count = count
        self._random = Random(0)  # noqa: S311 - no secret
        self._per_word = self._fixed = 0.0

    async def calibrate(self) -> None:
        """Learn how many tokens a word takes, and the rest of a prompt."""
        texts = [self._words(words) for words in SAMPLE]
        few, many = [await self._count([ask(text)]) for text in texts]
        self._per_word = max(0.1, (many - few) / (SAMPLE[1] - SAMPLE[0]))
        self._fixed = few - SAMPLE[0] * self._per_word

    def of(self, tokens: int) -> ChatMessage:
        """A question that makes a prompt of about so many tokens."""
        return ask(self._words(max(1, round((tokens - self._fixed) / self._per_word))))

    def _words(self, count: int) -> str:
        return f"{' '.join(self._random.choices(WORDS, k=count))}. {STORY}"


def ask(text: str) -> ChatMessage:
    """A message of the user."""
    return ChatMessage("user", text)
