"""What a server is and has: its kind, its models, their context windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from openai import APIError

from quantchat.domain.served import ServedModel
from quantchat.engine.backends.server.connection import ANSWER_SECONDS, Connection, decoded
from quantchat.engine.backends.server.faults import ServerFault, fault_of
from quantchat.engine.backends.server.kinds import Kind, kind_by_list, kind_by_schema
from quantchat.errors import ErrorReport

MOST_MODELS = 5000
_BROKEN = 500
_WINDOWS = ("max_model_len", "n_ctx", "context_length", "context_window", "max_context_length", "n_ctx_train")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server said about itself."""

    kind: Kind
    models: tuple[ServedModel, ...]

    def model(self, name: str) -> ServedModel | None:
        """Return the model of that id."""
        return next((model for model in self.models if model.id == name), None)


async def ask(connection: Connection, seconds: float = ANSWER_SECONDS) -> Answer:
    """Ask a server for its models, and find out its kind.

    Raises:
        ServerFault: if it does not answer with a list of models.
    """
    try:
        response = await connection.get("models", seconds)
        rows = _rows(decoded(response))
    except (APIError, OSError, ValueError) as error:
        fault = fault_of(error, connection)
        if fault.status == _BROKEN and await _lists_badly(connection, seconds):
            return Answer(kind="transformers", models=())
        raise fault from None  # its words may hold the key, and logs show causes
    owners = frozenset(str(row.get("owned_by", "")).lower() for row in rows)
    kind = kind_by_list(connection.host, response.headers.get("server", ""), owners)
    kind = kind or kind_by_schema(await _optional(connection, "/openapi.json", seconds))
    models = [ServedModel(id=row["id"], context_window=_window(row)) for row in rows]
    if kind == "llama.cpp" and len(models) == 1:
        window = await _running_window(connection, seconds)
        models = [ServedModel(id=models[0].id, context_window=window or models[0].context_window)]
    return Answer(kind=kind, models=tuple(models))


async def _lists_badly(connection: Connection, seconds: float) -> bool:
    """Whether it is `transformers serve`, which cannot list its models on a machine without a hub cache."""
    return kind_by_schema(await _optional(connection, "/openapi.json", seconds)) == "transformers"


def _rows(answer: Any) -> list[dict[str, Any]]:
    """The rows of a list of models: OpenAI's object, or a bare list."""
    rows = answer.get("data") if isinstance(answer, Mapping) else answer
    if not isinstance(rows, list):
        # An error that was sent with status 200, or another page altogether.
        raise ValueError("no list of models")  # noqa: TRY004 - what is wrong is what came, not our call
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str) and row["id"]][:MOST_MODELS]


def _window(row: Mapping[str, Any]) -> int:
    meta = row.get("meta")
    return _first_window(row) or (_first_window(meta) if isinstance(meta, Mapping) else 0)


def _first_window(row: Mapping[str, Any]) -> int:
    sizes = (row.get(name) for name in _WINDOWS)
    return next((size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size > 0), 0)


async def _running_window(connection: Connection, seconds: float) -> int:
    """The window that llama.cpp runs with, which may be smaller than the one its model was trained for."""
    match await _optional(connection, "/props", seconds):
        case {"default_generation_settings": {"n_ctx": int(size)}}:
            return size
        case _:
            return 0


async def _optional(connection: Connection, path: str, seconds: float) -> Any:
    """Get JSON that a server need not have, and that is not waited for as long as what it must have."""
    try:
        return decoded(await connection.get(path, seconds / 4))
    except (APIError, OSError, ValueError):
        return None


def missing(name: str, answer: Answer, host: str) -> ServerFault:
    """Say that a server does not have a model, and which it has."""
    has = _listed(model.id for model in answer.models)
    detail = f"{host} has {has}." if has else f"{host} has no model at all."
    remedy = "Choose one of them, or start the server with this model."
    return ServerFault(
        ErrorReport(code="server-model", title=f"The server does not have {name}", detail=detail, remedy=remedy)
    )


def _listed(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
