"""Asks an OpenAI-compatible server."""

from __future__ import annotations

from quantchat.engine.backends import Emit, Opened, versions_of


def open_server(emit: Emit) -> Opened:
    """Import the client library, as `open_backend` asks."""
    from quantchat.engine.backends.server.tasks import Tasks

    return Opened(Tasks(emit), versions_of(("openai",)), ())
