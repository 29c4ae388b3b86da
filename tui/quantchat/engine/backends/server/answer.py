"""One answer of a server on its way to the screen: text in channels, why it ended, what it cost."""

from __future__ import annotations

import time
from typing import Any

from quantchat.domain.generation import FinishReason, TurnStatistics
from quantchat.domain.thinking import Channel, Piece, Tag
from quantchat.engine.backends import Emit
from quantchat.engine.backends.server.chunks import Chunk, Counts
from quantchat.engine.protocol import Delta, Generate, Partial, Prefill
from quantchat.engine.stream import GATHER_SECONDS
from quantchat.engine.thinking import Speech, beginning


class Answer:
    """Takes what the server sends, and tells it.

    Attributes:
        finish: Why the server says that it ended, as in `Chunk`; empty while it goes on.
        dropped: Messages that were not sent, for want of room.
        counts: Tokens, as told so far.
        pieces: Events with text, which are tokens with most servers.
    """

    def __init__(self, command: Generate, opened: Tag | None, emit: Emit) -> None:
        self._command, self._emit = command, emit
        self._speech = Speech(None if command.resume else opened, command.sampling.stop, ())
        if command.resume is not None:
            self._speech.prime(_Said(said_before(command.resume)), {}, [0])
        self._started = time.perf_counter()
        self._first = self._latest = self._sent = 0.0
        self._channel: Channel = "answer"
        self._held: list[str] = []
        self._gather = 0.0 if command.apart else GATHER_SECONDS
        self._told_prompt: tuple[int, ...] | None = None
        self.finish, self.dropped, self.pieces = "", 0, 0
        self.thought = self._field = False
        self.counts = Counts()

    @property
    def begun(self) -> bool:
        """Whether anything was said."""
        return self.pieces > 0

    @property
    def hit(self) -> bool:
        """Whether a stop text was found: nothing more comes out."""
        return self._speech.hit

    def reading(self, done: int, total: int, reused: int = 0) -> None:
        """Tell how much of the prompt is computed; 0 of 0 while nothing is known."""
        told = (done, total, reused, self.dropped)
        if self._told_prompt != told:
            self._told_prompt = told
            turn = self._command.turn
            self._emit(Prefill(turn=turn, done=done, total=total, reused=reused, dropped=self.dropped))

    def take(self, chunk: Chunk) -> None:
        """Take the next piece."""
        self.counts = self.counts.updated(chunk.counts)
        self.finish = chunk.finish or self.finish
        if chunk.progress is not None and not self.begun:
            self.reading(chunk.progress.processed, chunk.progress.total, chunk.progress.cache)
        if chunk.pieces:
            self._said()
        for channel, text in chunk.pieces:
            # What came as thinking is thinking, whatever it looks like.
            self._pass_on([(channel, text)] if channel == "thinking" else self._speech.feed(self._after_field(text)))
            self._field = channel == "thinking" or (self._field and not text.strip())
        if self._held and self._latest - self._sent >= self._gather:
            self.send()

    def _after_field(self, text: str) -> str:
        """Drop the empty lines that parted an answer from thinking that came in a field of its own."""
        return text.lstrip() if self._field else text

    def _said(self) -> None:
        self._latest = time.perf_counter()
        self._first = self._first or self._latest
        self.pieces += 1
        if self.pieces == 1 and self.counts.prompt:
            self.reading(self.counts.prompt, self.counts.prompt, self.counts.reused or 0)

    def _pass_on(self, pieces: list[Piece]) -> None:
        for channel, text in pieces:
            self.thought = self.thought or channel == "thinking"
            if channel != self._channel:
                self.send()
                self._channel = channel
            self._held.append(text)

    def send(self) -> None:
        """Send the text that was gathered."""
        if self._held:
            text = "".join(self._held)
            self._held.clear()
            self._sent = time.perf_counter()
            self._emit(Delta(turn=self._command.turn, text=text, channel=self._channel, tokens=self.new_tokens))

    def flush(self) -> None:
        """Send also what was held back as the possible start of a tag or a stop text."""
        self._pass_on(self._speech.flush())
        self.send()

    @property
    def new_tokens(self) -> int:
        """Tokens of the answer; pieces of it where the server does not tell."""
        return self.pieces if self.counts.new is None else self.counts.new

    def reason(self, *, window_limits: bool) -> FinishReason:
        """Say why the answer ended, when the server ended it or a stop text did."""
        if self.hit or self.finish != "length":
            return "stop"
        return "context" if window_limits else "length"

    def statistics(self, seed: int | None) -> TurnStatistics:
        """Say what the answer cost so far, by this machine's clock."""
        return TurnStatistics(
            prompt_tokens=self.counts.prompt or 0,
            new_tokens=self.new_tokens,
            prefill_seconds=(self._first or time.perf_counter()) - self._started,
            decode_seconds=self._latest - self._first,
            seed=seed,
            reused_tokens=self.counts.reused or 0,
        )


def said_before(partial: Partial) -> str:
    """Write the beginning of an answer as models mostly do: what was thought between tags, then the words."""
    return beginning(_NoTokenizer(), None, partial)


class _NoTokenizer:
    """Stands where a model's tokenizer would tell its tags: a server's is not known."""

    chat_template = None

    def convert_tokens_to_ids(self, _token: str) -> Any:
        return None


class _Said:
    """Gives all that was said at once, where tokens would be decoded one by one."""

    def __init__(self, text: str) -> None:
        self._text = text

    def step(self, _token: int) -> str:
        return self._text
