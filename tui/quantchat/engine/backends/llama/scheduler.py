"""Gives every running turn its steps: a chunk of each prompt and a token of each answer in one batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from quantchat.engine import protocol as p
from quantchat.engine.backends.llama.cells import Cells
from quantchat.engine.backends.llama.forward import Forward, PassStopped, Row
from quantchat.engine.backends.llama.turn import LlamaTurn
from quantchat.engine.voice import Conversations, Voice
from quantchat.errors import GenerationError, QuantchatError, explained

End = p.Finished | p.Failed
SHARED = 4
"""While others decode, chunks are this much smaller, so that their text does not stand still for long."""

logger = logging.getLogger(__name__)


class Scheduler:
    """The running turns of one loaded model; a turn that fails ends alone.

    Args:
        chunk: Most prompt tokens of a batch.
    """

    def __init__(
        self,
        voice: Voice,
        conversations: Conversations,
        cells: Cells,
        forward: Forward,
        *,
        chunk: int,
        emit: Callable[[p.Event], None],
    ) -> None:
        self._voice, self._conversations, self._cells = voice, conversations, cells
        self._forward, self._chunk, self._emit = forward, chunk, emit
        self._turns: list[LlamaTurn] = []
        self._failures: dict[str, End] = {}
        self._told = p.Warm()

    @property
    def running(self) -> bool:
        """Whether any turn is under way."""
        return bool(self._turns)

    def start(self, command: p.Generate, cancelled: Callable[[], bool]) -> None:
        """Begin a turn; its last event comes from a later `step`."""
        if not self._turns:
            self._forward.threads.refresh()
        self._turns.append(LlamaTurn(self._voice, self._conversations, self._cells, command, cancelled, self._emit))

    def step(self) -> list[End]:
        """Do one round; return the last events of the turns that ended in it."""
        self._failures = {}
        self._admit()
        inside = [turn for turn in self._turns if turn.inside and not self._ended(turn)]
        if inside:
            self._compute(self._fitting(inside))
        return self._ends()

    def abandon(self) -> list[str]:
        """Drop all turns and return their names."""
        names = [turn.name for turn in self._turns]
        for turn in self._turns:
            turn.abandon()
        self._turns = []
        self.tell()
        return names

    def tell(self) -> None:
        """Tell what is kept, if that has changed."""
        warm = p.Warm(sessions=self._cells.listing())
        if warm != self._told:
            self._told = warm
            self._emit(warm)

    def _ended(self, turn: LlamaTurn) -> bool:
        return turn.name in self._failures or turn.ended

    def _admit(self) -> None:
        """Let turns in that wait, the oldest first, as long as the cells have room for them."""
        for turn in self._turns:
            if not turn.begun and not turn.ended:
                self._guarded(turn, turn.begin)
        for turn in self._turns:
            if self._ended(turn) or turn.inside:
                continue
            if not self._cells.admits(turn.held, turn.planned):
                return
            self._guarded(turn, turn.enter)

    def _fitting(self, turns: list[LlamaTurn]) -> list[LlamaTurn]:
        """Return those whose next tokens the cells have room for; the youngest leave where there is none."""
        while len(turns) > 1 and not self._cells.spare(sum(len(self._next(turn, turns).tokens) for turn in turns)):
            *turns, last = turns
            last.leave()
        self._cells.spare(sum(len(self._next(turn, turns).tokens) for turn in turns))
        return turns

    def _next(self, turn: LlamaTurn, turns: Sequence[LlamaTurn]) -> Row:
        """The tokens of a turn that come next, in a batch of these turns."""
        if turn.decoding:
            return turn.row(1)
        prompts = sum(not other.decoding for other in turns)
        chunk = self._chunk if prompts == len(turns) else self._chunk // SHARED
        return turn.row(max(chunk // prompts, 1))

    def _compute(self, turns: Sequence[LlamaTurn]) -> None:
        prompting = any(not turn.decoding for turn in turns)
        for turn in turns:
            if prompting and turn.decoding:
                # What was gathered must not wait for somebody else's prompt.
                turn.stream.send()
        try:
            rows = [self._next(turn, turns) for turn in turns]
            found = self._forward(rows, partial(_unwanted, turns) if prompting else None)
        except PassStopped:
            return
        except GenerationError as error:
            # Whoever is at fault fails alone.
            if len(turns) == 1:
                self._fail(turns[0], error)
            else:
                for turn in turns:
                    self._compute([turn])
            return
        for turn, logits in zip(turns, found, strict=True):
            self._guarded(turn, partial(turn.computed, logits))

    def _ends(self) -> list[End]:
        ended = [turn for turn in self._turns if self._ended(turn)]
        if not ended:
            return []
        # Only then are they gone: whatever is raised until here, `abandon` names them.
        events = [self._last_event(turn) for turn in ended]
        self._turns = [turn for turn in self._turns if turn not in ended]
        self.tell()
        return events

    def _last_event(self, turn: LlamaTurn) -> End:
        if turn.name not in self._failures:
            try:
                return turn.finish()
            except Exception as error:  # noqa: BLE001 - one turn's fault is not the others'
                self._fail(turn, error)
        turn.abandon()
        return self._failures[turn.name]

    def _guarded(self, turn: LlamaTurn, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(turn, error)

    def _fail(self, turn: LlamaTurn, error: Exception) -> None:
        if not isinstance(error, QuantchatError):
            logger.error("a turn failed", exc_info=error)
        report = explained(error, GenerationError, "The answer failed")
        self._failures[turn.name] = p.Failed(turn=turn.name, error=report)


def _unwanted(turns: Sequence[LlamaTurn]) -> bool:
    return any(turn.cancelled for turn in turns)
