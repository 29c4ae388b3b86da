"""The engine process as services know it: what can be told to it, and how its end is explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from quantchat.engine import protocol
from quantchat.engine.protocol import EngineExited
from quantchat.errors import ErrorReport


class Engine(Protocol):
    """The part of `EngineClient` that services use."""

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""

    @property
    def running(self) -> bool:
        """Whether commands can be sent."""

    async def start(self) -> None:
        """Spawn the process."""

    def send(self, command: protocol.Command) -> None:
        """Send a command."""

    async def close(self, grace: float = 2.0) -> None:
        """End the process."""

    def kill(self) -> None:
        """End the process now."""


EventHandler = Callable[[protocol.Event | EngineExited], None]
EngineFactory = Callable[[EventHandler], Engine]


def default_engine(on_event: EventHandler) -> Engine:
    """Return the client of a real engine process."""
    # Not at the top: the first frame does not need it.
    from quantchat.engine.client import EngineClient

    return EngineClient(on_event)


def exit_report(event: EngineExited) -> ErrorReport:
    """Explain the death of the engine process to the user, with the end of its log."""
    how = f"signal {event.signal}" if event.signal else f"exit code {event.code}"
    killed = event.signal == "SIGKILL"
    remedy = "It is started again when you send the next prompt."
    if killed:
        remedy = "SIGKILL often means that memory ran out: try a smaller model. " + remedy
    tail = f"\n\nThe end of its log:\n{event.log_tail}" if event.log_tail else ""
    return ErrorReport(
        code="engine-gone", title=f"The engine stopped ({how})", detail="Your chat is untouched" + tail, remedy=remedy
    )
