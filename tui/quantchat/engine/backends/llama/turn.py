"""One turn of a GGUF model: the ids so far, and what of them was computed."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from quantchat.domain.generation import TurnStatistics
from quantchat.engine.answering import AnsweringTurn
from quantchat.engine.backends.llama.cells import Cells, Held
from quantchat.engine.backends.llama.forward import Logits, Row
from quantchat.engine.backends.llama.sampler import Sampler
from quantchat.engine.context import reserve_for
from quantchat.engine.protocol import Event, Finished, Generate
from quantchat.engine.voice import Conversations, Voice


class LlamaTurn(AnsweringTurn):
    """A turn of the scheduler.

    Whatever happened, the next pass computes the ids that the cells lack, and the logits after the last one give the
    next token.

    Attributes:
        inside: It is in the cells.
    """

    def __init__(
        self,
        voice: Voice,
        conversations: Conversations,
        cells: Cells,
        command: Generate,
        cancelled: Callable[[], bool],
        emit: Callable[[Event], None],
    ) -> None:
        super().__init__(voice, conversations, command, cancelled, emit)
        self._cells = cells
        self._held: Held | None = None
        self._reused = 0
        self.inside = False

    @property
    def begun(self) -> bool:
        """Its prompt is rendered."""
        return self._begun

    def begin(self) -> None:
        """Render the prompt.

        Raises:
            GenerationError: if the prompt does not fit the context window or the template refuses it.
        """
        self._begin()
        self._held = self._cells.take(self.command.session)

    def _new_sampler(self, seed: int | None) -> Sampler:
        return Sampler(self.command.sampling, seed=seed, tokenizer=self._voice.tokenizer, prompt=self.ids)

    @property
    def held(self) -> Held:
        """What of it was computed."""
        assert self._held is not None
        return self._held

    @property
    def planned(self) -> int:
        """Cells that it is likely to need: a long limit is seldom used up."""
        left = self._limit - len(self.stream.tokens)
        return min(len(self.ids) + reserve_for(left, self._voice.window or left), self._cells.size)

    @property
    def lacking(self) -> list[int]:
        """The ids that the cells do not hold yet."""
        return self.ids[len(self.held.ids) :]

    @property
    def cancelled(self) -> bool:
        """Whether the user has said stop."""
        return self._cancelled()

    def enter(self) -> None:
        """Come into the cells, with what is kept of its session."""
        self._cells.enter(self.held, self.planned)
        reused = self._cells.reuse(self.held, self.ids)
        self.inside = True
        if not self.stream.tokens:
            self._reused = reused
            self._tell_prefill(reused, reused)

    def leave(self) -> None:
        """Leave the cells to the others, and wait."""
        self._cells.pause(self.held)
        self.inside = self.decoding = False

    def row(self, most: int) -> Row:
        """Return what is to be computed next, at most so many tokens."""
        lacking = self.lacking
        return Row(self.held, lacking[:most], wanted=len(lacking) <= most)

    def computed(self, logits: Logits | None) -> None:
        """Note that its row was; with the last of the lacking tokens come the logits of the next one.

        Raises:
            GenerationError: if no token can be drawn.
        """
        if not self.stream.tokens:
            self._tell_prefill(len(self.held.ids), self._reused)
        if logits is not None:
            self.decoding = True
            self.take(logits)

    def finish(self) -> Finished:
        """Send what is left of the text, and keep what was computed for the session's next turn."""
        event = super().finish()
        if self._held is not None:
            if self.command.session:
                self._conversations.remember(self.command, self.stream)
            self._cells.keep(self.command.session, self._held)
            self._held = None
        return event

    def abandon(self) -> None:
        """Give up what was computed: nothing of it is certain."""
        if self._held is not None:
            self._cells.drop(self._held)
            self._held = None

    def _statistics(self) -> TurnStatistics:
        return msgspec.structs.replace(super()._statistics(), reused_tokens=self._reused)
