"""Prompt lookup: text that repeats itself is guessed from where it stood before, and one pass checks the guess.

It is free where the guess is right and costs a wider pass where it is wrong, so it watches what it earns.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Sequence

SIZES = (3, 2)
"""Lengths of the sequences that are looked up, the surest first."""
FIRST_LENGTH, LONGEST = 3, 10
PLAIN_STEPS = 3
"""Steps without a guess that must be measured before one can be judged."""
PATIENCE = 2.0
"""Plain steps that guessing may lose before it pauses, and that it may have earned beforehand."""
PAUSE, LONGEST_PAUSE = 64, 1024
REPEATING = 4
"""So many tokens in a row that would have been guessed end a pause early."""


class PromptLookup:
    """Guesses the next tokens of one text. All work is constant per token.

    Attributes:
        drafted: Tokens that were proposed and checked.
        accepted: Those of them that were right.
    """

    def __init__(self, ids: Sequence[int], ends: Iterable[int] = ()) -> None:
        """Index a prompt; nothing is proposed beyond one of the `ends`, where an answer is over."""
        self.drafted = self.accepted = 0
        self._ids = list(ids)
        self._ends = frozenset(ends)
        self._next = {size: self._index(size) for size in SIZES}
        self._length = FIRST_LENGTH
        self._plain: deque[float] = deque(maxlen=15)
        self._earned = 0.0
        self._pause, self._paused_for = PAUSE, 0
        self._streak = 0

    def _index(self, size: int) -> dict[tuple[int, ...], int]:
        """Map each sequence to the place after its latest occurrence, the text's end left out."""
        ids = self._ids
        return dict(
            zip(zip(*(ids[start:] for start in range(size)), strict=False), range(size, len(ids)), strict=False)
        )

    def append(self, token: int) -> None:
        """Take the next token of the text."""
        self._watch(token)
        end = len(self._ids)
        for size, places in self._next.items():
            if end >= size:
                places[tuple(self._ids[end - size :])] = end
        self._ids.append(token)

    def _watch(self, token: int) -> None:
        place = self._found()
        self._streak = self._streak + 1 if place is not None and self._ids[place] == token else 0
        if self._paused_for:
            self._paused_for = 0 if self._streak >= REPEATING else self._paused_for - 1

    @property
    def paused(self) -> bool:
        """Whether guessing has lost time lately."""
        return self._paused_for > 0

    def propose(self, limit: int) -> list[int]:
        """Guess up to `limit` next tokens: what followed the latest earlier occurrence of the text's last tokens."""
        if self.paused or len(self._plain) < PLAIN_STEPS:
            return []
        place = self._found()
        return [] if place is None else self._copy(place, min(limit, self._length))

    def _found(self) -> int | None:
        end = len(self._ids)
        for size, places in self._next.items():
            if end >= size and (place := places.get(tuple(self._ids[end - size :]))) is not None:
                return place
        return None

    def _copy(self, place: int, count: int) -> list[int]:
        """Copy from a place on; where that reaches the text's end the guess goes on with itself, as a period would."""
        period = len(self._ids) - place
        draft: list[int] = []
        for offset in range(count):
            draft.append(self._ids[place + offset % period])
            if draft[-1] in self._ends:
                break
        return draft

    def measured(self, drafted: int, accepted: int, seconds: float) -> None:
        """Take what a pass cost and how many of its drafts were right; without drafts it is a plain step."""
        if not drafted:
            self._plain.append(seconds)
            return
        self.drafted += drafted
        self.accepted += accepted
        self._length = min(LONGEST, 2 * self._length) if accepted == drafted else max(1, accepted + 1)
        self._judge(drafted, accepted, seconds)

    def _judge(self, drafted: int, accepted: int, seconds: float) -> None:
        plain = statistics.median(self._plain)
        # One pass that something else held up says nothing about passes of this width.
        cost = min(seconds / plain, 2.0 * (drafted + 1)) if plain > 0 else 1.0
        self._earned = min(PATIENCE, self._earned + accepted + 1 - cost)
        if self._earned <= -PATIENCE:
            self._paused_for, self._pause = self._pause, min(LONGEST_PAUSE, 2 * self._pause)
            self._earned, self._length = 0.0, FIRST_LENGTH
        elif self._earned >= PATIENCE:
            self._pause = PAUSE
