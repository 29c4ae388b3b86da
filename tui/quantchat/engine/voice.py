"""How a loaded model is spoken with, whatever computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quantchat.domain.chat import ChatMessage
from quantchat.engine import context
from quantchat.engine.prompt import Spoken
from quantchat.engine.protocol import Generate, Partial
from quantchat.engine.stream import AnswerStream


@dataclass(kw_only=True)
class Voice:
    """What turns must know of a model.

    Attributes:
        tokenizer: With the calls of transformers' tokenizers that `prompt`, `spoken` and `decode` make.
        device: Where prompts go; with several devices the first.
        window: Context window in tokens, 0 if unknown.
        eos_ids: Tokens that end an answer.
        stop_strings: Texts that end an answer because the fallback template ends turns with them.
    """

    tokenizer: Any
    device: str
    window: int
    eos_ids: frozenset[int]
    stop_strings: tuple[str, ...] = ()


class Conversations:
    """What is remembered of each session's words between its turns: sampled ids, and what has left the window."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._spoken = Spoken()
        self._dropped: dict[str, int] = {}

    def fit(
        self,
        session: str,
        messages: Sequence[ChatMessage],
        reserve: int,
        resume: Partial | None = None,
        template: str = "",
    ) -> context.Fitted:
        """Render a prompt that fits the context window, with the ids that were sampled.

        Raises:
            GenerationError: if the last question alone does not fit, or the template refuses the conversation.
        """
        return context.fit(
            self._voice.tokenizer,
            messages,
            self._voice.window,
            reserve,
            spoken=self._spoken,
            resume=resume,
            first=self._dropped.get(session, 0),
            session=session,
            template=template,
        )

    def dropped(self, session: str, count: int) -> None:
        """Note what a prompt that is being sent has left out: the next one of the session begins as late."""
        if session:
            self._dropped[session] = count

    def remember(self, command: Generate, stream: AnswerStream) -> None:
        """Keep the ids of an answer that ended."""
        said, ids = stream.said, [*stream.begun, *stream.tokens]
        if not said.thinking:
            self._spoken.remember(command.session, said.text, ids)
        if not stream.stopped_itself:
            self._spoken.remember_partial(command.session, said, ids, command.template)

    def forget(self, session: str) -> None:
        """Drop what is kept of a session."""
        self._spoken.forget(session)
        self._dropped.pop(session, None)
