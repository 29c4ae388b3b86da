"""Servers that hold models for others, as the settings name them, and their models' names here."""

from __future__ import annotations

from typing import Annotated

import msgspec

PREFIX = "server:"
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$"
ServerName = Annotated[str, msgspec.Meta(pattern=NAME, examples=["box"])]
"""Without a slash, which ends it in `server_path`."""
Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/@?#]+(/[^\s?#]*)?$", examples=["http://127.0.0.1:8000/v1"])]
"""Without user and password, and without a query: keys are not written into settings."""


Variable = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$", examples=["BOX_KEY"])]


class ServerSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One entry of `[servers]` in the settings.

    Attributes:
        url: Where the OpenAI-compatible API begins, such as `http://127.0.0.1:8000/v1`.
        key_env: Environment variable that holds the API key; empty for the key file, or none.
        models: Only these of its models; empty takes all that it lists.
        context_window: Tokens, for servers that do not tell; 0 if unknown.
    """

    url: Url
    key_env: Variable = ""
    models: tuple[str, ...] = ()
    context_window: Annotated[int, msgspec.Meta(ge=0)] = 0


class ServerTarget(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine process needs to ask a model of a server.

    Attributes:
        name: The server's name in the settings.
        url: Where its API begins.
        model: Id of the model there.
        key: The API key, empty for none; never shown, logged or written.
        context_window: As in `ServerSpec`.
    """

    name: str
    url: str
    model: str
    key: str = ""
    context_window: int = 0

    def __repr__(self) -> str:
        hidden = "'…'" if self.key else "''"
        return f"ServerTarget(name={self.name!r}, url={self.url!r}, model={self.model!r}, key={hidden})"


def server_path(server: str, model: str) -> str:
    """Return what stands for a server's model where others have a path: `server:box/org/model`."""
    return f"{PREFIX}{server}/{model}"


def host_of(url: str) -> str:
    """Return host and port of a URL, such as `127.0.0.1:8000`."""
    return url.partition("://")[2].partition("/")[0]


def split_path(path: str) -> tuple[str, str] | None:
    """Return server and model of such a path; None for an ordinary one."""
    if not path.startswith(PREFIX):
        return None
    server, _, model = path.removeprefix(PREFIX).partition("/")
    return server, model
