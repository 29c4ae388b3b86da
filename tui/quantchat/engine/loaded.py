"""A loaded model as turns, sessions and jobs know it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from quantchat.engine.pace import DecodeThreads
from quantchat.engine.protocol import LoadReport
from quantchat.engine.voice import Voice

if TYPE_CHECKING:
    from quantchat.engine.kvcache import SessionCache


@dataclass(kw_only=True)
class LoadedModel(Voice):
    """A model that passed its checks.

    Attributes:
        decoding: `eager` for our own loop, `generate` where that did not prove right.
        decoding_reason: Why not our own loop.
    """

    model: Any
    report: LoadReport
    decode_threads: DecodeThreads = field(default_factory=DecodeThreads)
    decoding: Literal["eager", "generate"] = "eager"
    decoding_reason: str = ""

    def new_cache(self) -> SessionCache:
        """Return an empty KV cache for a session."""
        # Late: older versions of transformers have not the classes that it is made of.
        from quantchat.engine.kvcache import SessionCache

        return SessionCache(self.model)
