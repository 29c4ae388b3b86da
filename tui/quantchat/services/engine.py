"""The engine process as services know it: what can be told to it, and how its end is explained."""

from __future__ import annotations

from collections.abc import Callable, Container
from importlib.util import find_spec
from typing import Protocol

from quantchat.domain.backends import OWN, EngineSpec, Interpreters
from quantchat.domain.servers import split_path
from quantchat.domain.stacks import UNFIT_STATUS
from quantchat.domain.text import clean
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


class EngineFactory(Protocol):
    """Makes the client of an engine process, which is not started yet."""

    def __call__(self, on_event: EventHandler, spec: EngineSpec = OWN, /) -> Engine:
        """Return a client for such an engine."""


def default_engine(on_event: EventHandler, spec: EngineSpec = OWN, /) -> Engine:
    """Return the client of a real engine process."""
    # Not at the top: the first frame does not need it.
    from quantchat.engine.client import EngineClient

    return EngineClient(on_event, spec=spec)


def expected_engine(path: str | None, interpreters: Interpreters, servers: Container[str] = ()) -> EngineSpec:
    """Guess from the path or name of a model that was not read yet which engine process it needs."""
    server, _ = split_path(path or "") or ("", "")
    if server in servers:
        return EngineSpec(backend="server")
    if path and path.endswith(".gguf") and find_spec("llama_cpp") is not None:
        return EngineSpec(backend="llama")
    return EngineSpec(backend="retired", python=interpreters.python) if interpreters.python else OWN


def exit_report(event: EngineExited, python: str = "") -> ErrorReport:
    """Explain the death of the engine process to the user, with the end of its log.

    Args:
        python: The interpreter of the settings that never became an engine; empty if it did, or was quantchat's own.
    """
    how = f"signal {event.signal}" if event.signal else f"exit code {event.code}"
    if event.code == UNFIT_STATUS or python:
        said = _unready(python, how, event.log_tail)
        if event.code == UNFIT_STATUS:
            said = event.log_tail.rpartition("\n")[2]
        remedy = "`quantchat doctor` looks at it; the interpreters stand in `[engine]` of config.toml."
        return ErrorReport(
            code="interpreter", title="The interpreter of the engine cannot run it", detail=said, remedy=remedy
        )
    killed = event.signal == "SIGKILL"
    remedy = "It is started again when you send the next prompt."
    if killed:
        remedy = "SIGKILL often means that memory ran out: try a smaller model. " + remedy
    tail = f"\n\nThe end of its log:\n{event.log_tail}" if event.log_tail else ""
    return ErrorReport(
        code="engine-gone", title=f"The engine stopped ({how})", detail="Your chat is untouched" + tail, remedy=remedy
    )


def _unready(python: str, how: str, log_tail: str) -> str:
    said = f": {log_tail}" if log_tail else ""
    return f"{clean(python, newlines=False)} ended before it was an engine ({how}){said}"
