"""Gives every running turn its steps: prompts chunk by chunk, answers token by token, several of them in one pass."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from quantchat.engine import memory
from quantchat.engine import protocol as p
from quantchat.engine.forward import Forward
from quantchat.engine.reference import ReferenceTurn
from quantchat.engine.turn import RunningTurn, Turn
from quantchat.errors import ErrorReport, GenerationError, QuantchatError, explained

if TYPE_CHECKING:
    from quantchat.engine.batch import Batch
    from quantchat.engine.fast import FastPath
    from quantchat.engine.graphs import GraphDecoder
    from quantchat.engine.loaded import LoadedModel
    from quantchat.engine.sessions import SessionStates
    from quantchat.engine.worker import Emit

End = p.Finished | p.Failed
logger = logging.getLogger(__name__)


class Scheduler:
    """The running turns of one loaded model.

    A round gives each prompt a chunk and each answer a token, so that nobody waits for another's end. Several answers
    share one forward pass where their caches allow it; a turn that fails ends alone.

    Args:
        decoder: The captured decode step, where there is one.
        batching: Whether the caches can be joined at all.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        states: SessionStates,
        emit: Emit,
        decoder: GraphDecoder | None = None,
        *,
        batching: bool = True,
    ) -> None:
        self._loaded, self._states, self._emit = loaded, states, emit
        self._forward = Forward(loaded)
        self._turns: list[Turn] = []
        self._kind = ReferenceTurn if loaded.decoding == "generate" else RunningTurn
        self._batch: Batch | None = None
        self._batching = batching
        self._fast = _fast_path(decoder)

    @property
    def running(self) -> bool:
        """Whether any turn is under way."""
        return bool(self._turns)

    def start(self, command: p.Generate, cancelled: Callable[[], bool]) -> None:
        """Begin a turn; its last event comes from a later `step`."""
        if self._forward.threads is not None and not self._turns:
            self._forward.threads.refresh()
        self._turns.append(self._kind(self._loaded, self._states, command, cancelled, self._emit))

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def step(self) -> list[End]:
        """Do one round; return the last events of the turns that ended in it."""
        failures: dict[str, End] = {}
        self._prefill(failures)
        self._decode([t for t in self._turns if isinstance(t, RunningTurn) and t.decoding and not t.ended], failures)
        ended = [turn for turn in self._turns if turn.name in failures or turn.ended]
        if not ended:
            return []
        if self._batch is not None and any(turn in self._batch.turns for turn in ended):
            self._part()
        if self._fast is not None:
            self._fast.leave([turn for turn in ended if isinstance(turn, RunningTurn)])
        # Only then are they gone: whatever is raised until here, `abandon` names them.
        events = [failures.get(turn.name) or self._last_event(turn) for turn in ended]
        self._turns = [turn for turn in self._turns if turn not in ended]
        self._states.tell()
        return events

    def abandon(self) -> list[str]:
        """Drop all turns and return their names."""
        names = [turn.name for turn in self._turns]
        self._turns, self._batch = [], None
        self._states.tell()
        return names

    def _prefill(self, failures: dict[str, End]) -> None:
        waiting = [turn for turn in self._turns if not (turn.decoding or turn.ended)]
        decoding = [turn for turn in self._turns if turn.decoding]
        if waiting:
            for turn in decoding:
                # What was gathered must not wait for somebody else's prompt.
                turn.stream.send()
        for turn in waiting:
            self._guarded(turn, failures, partial(turn.prefill, alone=not decoding), self._forward)

    def _decode(self, turns: list[RunningTurn], failures: dict[str, End]) -> None:
        chosen = self._fast.choose(turns) if self._fast is not None else None
        if self._fast is not None and chosen is not None:
            self._part()
            self._guarded(chosen, failures, self._fast.step, chosen)
            return
        together = self._together(turns)
        if self._batch is not None and self._batch.turns != together:
            self._part()
            together = self._together(turns)
        if together and (logits := self._logits_of(together)) is not None:
            for turn, row in zip(together, logits, strict=True):
                self._guarded(turn, failures, turn.take, row)
            turns = [turn for turn in turns if turn not in together]
        for turn in turns:
            if turn.decoding:
                self._guarded(turn, failures, turn.step, self._forward)

    def _together(self, turns: list[RunningTurn]) -> list[RunningTurn]:
        able = [turn for turn in turns if turn.decoding and turn.cache.plain] if self._batching else []
        return able if len(able) > 1 else []

    def _logits_of(self, turns: list[RunningTurn]) -> Any:
        """The logits of several turns from one pass; None, for good, where they cannot be computed together."""
        # Late: older versions of transformers have not the classes that a joined cache is made of.
        from quantchat.engine.batch import Batch

        try:
            self._batch = self._batch or Batch(self._forward, turns)
            return self._batch.logits()
        except Exception:
            # Their own caches are whole: they go on one by one, and whoever is at fault fails alone.
            logger.exception("turns cannot be decoded together")
            self._batching = False
            self._part()
            memory.give_back()
            return None

    def _guarded(self, turn: Turn, failures: dict[str, End], work: Callable[..., object], *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001 - a panic of a Rust library is no Exception
            failures[turn.name] = self._failed(turn, error)

    def _last_event(self, turn: Turn) -> End:
        try:
            return turn.finish()
        except BaseException as error:  # noqa: BLE001 - as above
            return self._failed(turn, error)

    def _failed(self, turn: Turn, error: BaseException) -> End:
        if not isinstance(error, QuantchatError):
            logger.error("a turn failed", exc_info=error)
        return p.Failed(turn=turn.name, error=self._report(error))

    def _part(self) -> None:
        """Give the turns of the batch what was computed of them."""
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.part()

    def _report(self, error: BaseException) -> ErrorReport:
        if memory.is_out_of_memory(error):
            # Caches are the only thing that can be given up without losing words.
            self._states.clear()
            memory.give_back()
            return memory.out_of_memory(self._loaded.device, GenerationError, error).report
        return explained(error, GenerationError, "The answer failed")


def _fast_path(decoder: GraphDecoder | None) -> FastPath | None:
    if decoder is None:
        return None
    from quantchat.engine.fast import FastPath

    return FastPath(decoder)
