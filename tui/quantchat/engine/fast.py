"""When the captured decode path of a GPU is taken, and whose turn it is on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantchat.engine.graphs import FastPathLost, GraphDecoder

if TYPE_CHECKING:
    from quantchat.engine.turn import RunningTurn

logger = logging.getLogger(__name__)

SLICE = 8
"""Tokens of one turn before the next one's cache is copied into the buffers: little copying, no visible standstill."""
WORTH = 3
"""So many turns at most go one after the other: a replayed step takes a third of an eager one or less, and in an eager
pass all of them would share one."""


class FastPath:
    """Shares one graph decoder among the turns that decode."""

    def __init__(self, decoder: GraphDecoder) -> None:
        self._decoder = decoder
        self._turn: RunningTurn | None = None
        self._left = 0
        self._refused: set[str] = set()

    def choose(self, turns: Sequence[RunningTurn]) -> RunningTurn | None:
        """Return which of the turns that decode now is to take a `step`; None if all go the ordinary way."""
        if not 0 < len(turns) <= WORTH or any(turn.name in self._refused for turn in turns):
            self.leave()
        elif self._turn not in turns or (self._left <= 0 and len(turns) > 1):
            self._seat(turns)
        return self._turn

    def _seat(self, turns: Sequence[RunningTurn]) -> None:
        following = turns[(turns.index(self._turn) + 1) % len(turns)] if self._turn in turns else turns[0]
        self.leave()
        if len(following.lacking) > 1:
            return
        refused = self._decoder.attach(following.cache)
        if refused is None:
            self._turn, self._left = following, SLICE
        else:
            self._refuse(following, refused.reason)

    def step(self, turn: RunningTurn) -> None:
        """Compute the next token of the turn that was chosen."""
        self._left -= 1
        try:
            logits = self._decoder.step(turn.ids[-1])
        except FastPathLost as lost:
            self._turn = None
            self._refuse(turn, str(lost))
        else:
            turn.take(logits)

    def leave(self, turns: Sequence[RunningTurn] | None = None) -> None:
        """Give the attached turn its cache back, if it is one of these; before anything else uses that cache."""
        if self._turn is not None and (turns is None or self._turn in turns):
            turn, self._turn = self._turn, None
            try:
                self._decoder.detach()
            except Exception:
                logger.exception("what the captured graph computed of an answer is lost")
                turn.recover()
        for turn in turns or ():
            self._refused.discard(turn.name)

    def _refuse(self, turn: RunningTurn, reason: str) -> None:
        logger.info("decoding without a captured graph: %s", reason)
        self._refused.add(turn.name)
