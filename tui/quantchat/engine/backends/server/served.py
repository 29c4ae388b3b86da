"""A model of a server that is being used: where it is, how it is talked to, and what was learned of it so far."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from quantchat.domain.servers import ServerTarget
from quantchat.domain.thinking import Tag
from quantchat.engine.backends.server.connection import Connection
from quantchat.engine.backends.server.kinds import DIALECTS, Dialect, Kind

STREAM_OPTIONS: tuple[dict[str, bool], ...] = (
    {"include_usage": True, "continuous_usage_stats": True},
    {"include_usage": True},
    {},
)
"""What is asked for besides the text, best first; servers refuse what they do not know."""


@dataclass(kw_only=True)
class Served:
    """A model of a server.

    Attributes:
        window: Context window in tokens, 0 if unknown.
        opened: The tag of thinking that its template writes where an answer starts, if it could be found out.
        options: Index into `STREAM_OPTIONS` of what it takes.
        limit: What it calls the longest answer.
        thinks: It has been seen to think: stop texts must not end that.
        counts: It tells how many tokens an answer took.
        form: Index into `prompt.FORMS` of how its template wants conversations.
        dropped: What the last prompt of each session left out.
        turns: As many answers may be written at once.
    """

    target: ServerTarget
    connection: Connection
    kind: Kind
    window: int = 0
    opened: Tag | None = None
    options: int = 0
    limit: str = ""
    thinks: bool = False
    counts: bool = False
    form: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    turns: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.limit = self.limit or self.dialect.limit
        self.options = 0 if self.kind == "vllm" else 1
        self.turns = asyncio.Semaphore(1000 if self.dialect.parallel else 1)

    @property
    def dialect(self) -> Dialect:
        """How its kind of server is talked to."""
        return DIALECTS[self.kind]

    @property
    def name(self) -> str:
        """Its id there."""
        return self.target.model
