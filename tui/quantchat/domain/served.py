"""What a server says of itself and of its models, as the process that asks it tells."""

from __future__ import annotations

import msgspec

from quantchat.errors import ErrorReport


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a server.

    Attributes:
        id: As the API wants it.
        context_window: Tokens; 0 if neither the server nor the settings tell.
    """

    id: str
    context_window: int = 0


class ServerListing(msgspec.Struct, frozen=True, kw_only=True):
    """What came back of one server; models and an error exclude each other.

    Attributes:
        server: Its name in the settings.
        kind: What kind of server it is, such as `vllm`; empty with an error.
        label: The same to be shown, such as `vLLM`.
        seconds: What it took to answer.
        error: Why there are no models; never holds the key.
    """

    server: str
    kind: str = ""
    label: str = ""
    seconds: float = 0.0
    models: tuple[ServedModel, ...] = ()
    error: ErrorReport | None = None
