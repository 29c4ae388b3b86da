"""From sampled tokens to what the screen is told: text in channels, the end of an answer, what it cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantchat.domain.generation import FinishReason
from quantchat.domain.thinking import Channel, Piece
from quantchat.engine.decode import text_decoder
from quantchat.engine.protocol import Delta, Generate, Partial
from quantchat.engine.thinking import Speech, marker_tokens

if TYPE_CHECKING:
    from quantchat.engine.prompt import Prompt
    from quantchat.engine.voice import Voice
    from quantchat.engine.worker import Emit

GATHER_SECONDS = 0.015
"""Text of tokens that follow each other faster than this is sent together: the screen draws 20 times a second."""


class AnswerStream:
    """One answer on its way out.

    Attributes:
        tokens: What was sampled, an end-of-sequence token included.
        first: When the first of them came, on the performance counter, and `latest` the last one; 0 before.
    """

    def __init__(self, loaded: Voice, command: Generate, prompt: Prompt, emit: Emit) -> None:
        self.tokens: list[int] = []
        self._decoder = text_decoder(loaded.tokenizer)
        self._speech = Speech(prompt.opened, command.sampling.stop, loaded.stop_strings)
        self._markers = marker_tokens(loaded.tokenizer, loaded.eos_ids)
        self._eos_ids = loaded.eos_ids
        self._turn, self._emit = command.turn, emit
        self._prompt = prompt
        if prompt.begun:
            self._speech.prime(self._decoder, self._markers, self.begun)
        resumed = command.resume or Partial()
        self._said: dict[Channel, list[str]] = {"answer": [resumed.text], "thinking": [resumed.thinking]}
        self.first = self.latest = 0.0
        self._sent = 0.0
        self._gather = 0.0 if command.apart else GATHER_SECONDS
        self._channel: Channel = "answer"
        self._held: list[str] = []

    @property
    def stopped_itself(self) -> bool:
        """Whether the model ended the answer, or a stop string did."""
        return self._speech.hit or (bool(self.tokens) and self.tokens[-1] in self._eos_ids)

    @property
    def begun(self) -> list[int]:
        """The ids of the answer that the prompt ended with, when it goes on."""
        return self._prompt.ids[len(self._prompt.ids) - self._prompt.begun :]

    @property
    def said(self) -> Partial:
        """All that was said of the answer, what it had when it was taken up again included."""
        return Partial(text="".join(self._said["answer"]), thinking="".join(self._said["thinking"]))

    def take(self, token: int) -> None:
        """Take the next token and send what text it completes."""
        self.latest = time.perf_counter()
        if not self.tokens:
            self.first = self.latest
        self.tokens.append(token)
        marker = self._markers.get(token)
        self._pass_on(self._speech.feed(self._decoder.step(token)) if marker is None else self._speech.mark(marker))
        if self._held and self.latest - self._sent >= self._gather:
            self.send()

    def _pass_on(self, pieces: Sequence[Piece]) -> None:
        for channel, text in pieces:
            if channel != self._channel:
                self.send()
                self._channel = channel
            self._held.append(text)

    def send(self) -> None:
        """Send the text that was gathered."""
        if not self._held:
            return
        text = "".join(self._held)
        self._held.clear()
        self._said[self._channel].append(text)
        self._sent = time.perf_counter()
        self._emit(Delta(turn=self._turn, text=text, channel=self._channel, tokens=len(self.tokens)))

    def flush(self) -> None:
        """Send also what was held back as the possible start of a tag or a stop string."""
        self._pass_on(self._speech.flush())
        self.send()

    def reason(self, *, stopped: bool, window_limits: bool) -> FinishReason:
        """Say why the answer ended."""
        if self.stopped_itself:
            return "stop"
        if stopped:
            return "stopped"
        return "context" if window_limits else "length"
