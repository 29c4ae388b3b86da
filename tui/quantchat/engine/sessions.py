"""What the engine remembers of each session between its turns: KV cache, sampled ids, what has left the window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from quantchat.domain.chat import ChatMessage
from quantchat.engine import context
from quantchat.engine.kvcache import SessionCache
from quantchat.engine.prompt import Spoken
from quantchat.engine.protocol import Generate, Partial, Warm, WarmSession
from quantchat.engine.warm import WarmSessions

if TYPE_CHECKING:
    from quantchat.engine.loader import LoadedModel
    from quantchat.engine.stream import AnswerStream


class SessionStates:
    """The sessions of one loaded model; a turn without a session leaves nothing behind.

    Args:
        loaded: The model.
        budget: Bytes that caches may hold on the device.
        host_budget: Bytes of caches that may wait in host memory.
        changed: Called when the list of kept caches changed.
    """

    def __init__(self, loaded: LoadedModel, budget: int, host_budget: int, changed: Callable[[Warm], None]) -> None:
        self._loaded = loaded
        self._changed = changed
        self._spoken = Spoken()
        self._dropped: dict[str, int] = {}
        self._told: tuple[WarmSession, ...] = ()
        self.warm = WarmSessions(budget, host_budget)

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
            self._loaded.tokenizer,
            messages,
            self._loaded.window,
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

    def open(self, session: str, tokens: int) -> SessionCache:
        """Return the session's cache, or an empty one, with room for so many tokens; `keep` gives it back."""
        cache = self.warm.take(session) if session else None
        cache = SessionCache(self._loaded.model) if cache is None else cache
        self.warm.lend(cache, tokens * self._loaded.report.kv_token_bytes)
        return cache

    def keep(self, command: Generate, cache: SessionCache, stream: AnswerStream) -> None:
        """Keep the cache of a turn that ended, and the ids of its answer."""
        session = command.session
        if not session:
            return
        said, ids = stream.said, [*stream.begun, *stream.tokens]
        if not said.thinking:
            self._spoken.remember(session, said.text, ids)
        if not stream.stopped_itself:
            self._spoken.remember_partial(session, said, ids, command.template)
        self.warm.put(session, cache)

    def forget(self, session: str) -> None:
        """Drop what is kept of a session."""
        self.warm.forget(session)
        self._spoken.forget(session)
        self._dropped.pop(session, None)
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
