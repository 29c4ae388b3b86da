"""Whose keys and values stand in llama.cpp's cells: running turns, sessions that wait there, others in host memory."""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Sequence
from itertools import count as counting
from typing import Any, Literal

from quantchat.engine.backends.llama.library import api
from quantchat.engine.protocol import WarmSession

ALL = -1
"""llama.cpp's word for every position."""


class Held:
    """What was computed of one session.

    Attributes:
        ids: The tokens that it stands for.
        sequence: Its number in the cells; None while it is not there.
        planned: Cells that its running turn is going to take; 0 while none runs.
        saved: Its keys and values in host memory, while it waits there.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.sequence: int | None = None
        self.planned = 0
        self.saved: Any = None


class Cells:
    """The cells of one context, shared by sessions; the least recently used leave, to the host while there is room.

    Args:
        context: llama.cpp's.
        size: Number of cells.
        token_bytes: Bytes of a cell.
        sequences: Sessions that may be there at a time.
        host_budget: Bytes of sessions that may wait in host memory.
    """

    def __init__(self, context: Any, *, size: int, token_bytes: int, sequences: int, host_budget: int) -> None:
        self._context, self._memory = context, api.llama_get_memory(context)
        self.size, self._token_bytes, self._host_budget = size, token_bytes, host_budget
        self._sequences, self._free = sequences, set(range(sequences))
        self._running: list[Held] = []
        self._waiting: OrderedDict[str, Held] = OrderedDict()

    # Turns

    def take(self, session: str) -> Held:
        """Take what is kept of a session out, for a turn; `keep` or `drop` give it back."""
        return self._waiting.pop(session, None) or Held()

    def admits(self, held: Held, planned: int) -> bool:
        """Whether a turn that takes so many cells can run beside the others; alone it always can."""
        others = [other for other in self._running if other is not held]
        taken = sum(max(other.planned, len(other.ids)) for other in others)
        return not others or (taken + planned <= self.size and len(others) < self._sequences)

    def enter(self, held: Held, planned: int) -> None:
        """Bring it into the cells and make room for a turn's tokens."""
        held.planned = planned
        if held not in self._running:
            self._running.append(held)
        self._make_room(held, max(planned - len(held.ids), 0))
        if held.sequence is None:
            held.sequence = self._free.pop()
            self._restore(held)

    def reuse(self, held: Held, prompt: Sequence[int]) -> int:
        """Cut it to what a prompt begins with; return how many tokens that is: at least one is left to compute."""
        self.cut(held, min(_common(held.ids, prompt), len(prompt) - 1))
        return len(held.ids)

    def cut(self, held: Held, length: int) -> None:
        """Drop all behind so many tokens, in the cells too; all of it where a state cannot be cut."""
        if held.sequence is None:
            self._forget_saved(held)
            return
        if not api.llama_memory_seq_rm(self._memory, held.sequence, length, ALL):
            length = 0
            api.llama_memory_seq_rm(self._memory, held.sequence, ALL, ALL)
        del held.ids[length:]

    def spare(self, needed: int) -> bool:
        """Make room for so many more tokens of running turns; false if those that wait do not have so much."""
        while self._taken() + needed > self.size:
            if not self._oldest_leaves():
                return False
        return True

    def pause(self, held: Held) -> None:
        """Let a running turn leave the cells: the others need them. It goes on by `enter`."""
        self._running.remove(held)
        self._leave(held)

    def keep(self, session: str, held: Held) -> None:
        """Keep what a turn has left, as the most recently used."""
        self._end(held)
        if not session or not held.ids:
            self.drop(held)
            return
        self.forget(session)
        self._waiting[session] = held

    def drop(self, held: Held) -> None:
        """Give up what was computed."""
        self._end(held)
        self._vacate(held)
        self._forget_saved(held)

    def forget(self, session: str) -> None:
        """Drop a session."""
        held = self._waiting.pop(session, None)
        if held is not None:
            self.drop(held)

    def clear(self) -> None:
        """Drop all sessions that wait."""
        for session in list(self._waiting):
            self.forget(session)

    def listing(self) -> tuple[WarmSession, ...]:
        """What is kept, most recently used first."""
        return tuple(
            WarmSession(
                session=session, tokens=len(held.ids), bytes=len(held.ids) * self._token_bytes, place=_place(held)
            )
            for session, held in reversed(self._waiting.items())
        )

    # Room

    def _end(self, held: Held) -> None:
        held.planned = 0
        if held in self._running:
            self._running.remove(held)

    def _taken(self) -> int:
        here = [held for held in (*self._running, *self._waiting.values()) if held.sequence is not None]
        return sum(len(held.ids) for held in here)

    def _make_room(self, held: Held, needed: int) -> None:
        planned = sum(max(other.planned - len(other.ids), 0) for other in self._running if other is not held)
        # What waits on the host comes back whole.
        needed += len(held.ids) if held.sequence is None else 0
        self.spare(min(needed + planned, self.size))
        if held.sequence is None and not self._free:
            self._oldest_leaves()

    def _oldest_leaves(self) -> bool:
        oldest = next((held for held in self._waiting.values() if held.sequence is not None), None)
        if oldest is None:
            return False
        self._leave(oldest)
        if not oldest.ids:
            self._waiting = OrderedDict((key, held) for key, held in self._waiting.items() if held is not oldest)
        return True

    def _on_host(self) -> int:
        return sum(len(held.saved) for held in self._waiting.values() if held.saved is not None)

    def _leave(self, held: Held) -> None:
        """Save it in host memory, where older ones make room for it, or drop it."""
        size = int(api.llama_state_seq_get_size(self._context, held.sequence))
        for session in [name for name, other in self._waiting.items() if other.saved is not None]:
            if size + self._on_host() <= self._host_budget or size > self._host_budget:
                break
            self.forget(session)
        if 0 < size <= self._host_budget - self._on_host():
            held.saved = (ctypes.c_uint8 * size)()
            if api.llama_state_seq_get_data(self._context, held.saved, size, held.sequence) != size:
                self._forget_saved(held)
        else:
            held.ids.clear()
        self._vacate(held)

    def _restore(self, held: Held) -> None:
        if held.saved is None:
            held.ids.clear()
            return
        read = api.llama_state_seq_set_data(self._context, held.saved, len(held.saved), held.sequence)
        held.saved = None
        if not read:
            self.cut(held, 0)

    def _vacate(self, held: Held) -> None:
        if held.sequence is not None:
            api.llama_memory_seq_rm(self._memory, held.sequence, ALL, ALL)
            self._free.add(held.sequence)
            held.sequence = None

    def _forget_saved(self, held: Held) -> None:
        held.saved = None
        held.ids.clear()


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix."""
    pairs = zip(counting(), one, other, strict=False)
    return next((place for place, a, b in pairs if a != b), min(len(one), len(other)))


def _place(held: Held) -> Literal["device", "host"]:
    return "host" if held.sequence is None else "device"
