"""What the engine remembers of each session between its turns: KV cache, sampled ids, what has left the window."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from quantchat.engine.protocol import Generate, Warm, WarmSession
from quantchat.engine.voice import Conversations
from quantchat.engine.warm import WarmSessions

if TYPE_CHECKING:
    from quantchat.engine.kvcache import SessionCache
    from quantchat.engine.loaded import LoadedModel
    from quantchat.engine.stream import AnswerStream


class SessionStates(Conversations):
    """The sessions of one loaded model; a turn without a session leaves nothing behind.

    Args:
        loaded: The model.
        budget: Bytes that caches may hold on the device.
        host_budget: Bytes of caches that may wait in host memory.
        changed: Called when the list of kept caches changed.
    """

    def __init__(self, loaded: LoadedModel, budget: int, host_budget: int, changed: Callable[[Warm], None]) -> None:
        super().__init__(loaded)
        self._loaded = loaded
        self._changed = changed
        self._told: tuple[WarmSession, ...] = ()
        self.warm = WarmSessions(budget, host_budget)

    def open(self, session: str, tokens: int) -> SessionCache:
        """Return the session's cache, or an empty one, with room for so many tokens; `keep` gives it back."""
        cache = self.warm.take(session) if session else None
        cache = self._loaded.new_cache() if cache is None else cache
        self.warm.lend(cache, tokens * self._loaded.report.kv_token_bytes)
        return cache

    def keep(self, command: Generate, cache: SessionCache, stream: AnswerStream) -> None:
        """Keep the cache of a turn that ended, and the ids of its answer."""
        if command.session:
            self.remember(command, stream)
            self.warm.put(command.session, cache)

    def forget(self, session: str) -> None:
        """Drop what is kept of a session."""
        super().forget(session)
        self.warm.forget(session)
        self.tell()

    def clear(self) -> None:
        """Drop all caches: memory ran out, or the model goes."""
        self.warm.clear()
        self.tell()

    def tell(self) -> None:
        """Tell what is kept, if that has changed; `open` and `keep` leave it to the end of their turn."""
        listing = self.warm.listing()
        if listing != self._told:
            self._told = listing
            self._changed(Warm(sessions=listing))
