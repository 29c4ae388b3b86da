"""Asks servers for their models, in a process of its own: `python -m quantchat.engine.backends.server.listing`.

The screen's process does not import the client library. On stdin comes one JSON object:

    {"seconds": 5.0, "servers": [{"name": "box", "url": "http://127.0.0.1:8000/v1", "key": "",
                                  "models": ["only", "these"], "context_window": 0}]}

`key`, `models` and `context_window` may be left out, `seconds` too. All servers are asked at once. On stdout comes one
JSON line for each as soon as it has answered or failed, in no order:

    {"server": "box", "kind": "vllm", "label": "vLLM", "seconds": 0.01,
     "models": [{"id": "org/name", "context_window": 32768}], "error": null}

`kind` is one of vllm, sglang, llama.cpp, llama-cpp-python, transformers, openai, other, and empty with an error;
`label` is the same to be shown. `context_window` is 0 where neither server nor settings tell it. `error` is null or an
`ErrorReport` (code, title, detail, remedy), which never holds the key. The exit status is 0 when all lines were
written, and 2 with a line on stderr when stdin was not understood.
"""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec

from quantchat.domain.served import ServedModel, ServerListing
from quantchat.engine.backends.server.asking import Answer, ask
from quantchat.engine.backends.server.connection import Connection
from quantchat.engine.backends.server.faults import fault_of
from quantchat.engine.backends.server.kinds import DIALECTS
from quantchat.errors import ErrorReport, QuantchatError

SECONDS = 5.0


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A server to ask; as `ServerSpec`, with its key."""

    name: str
    url: str
    key: str = ""
    models: tuple[str, ...] = ()
    context_window: int = 0


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What comes on stdin; `seconds` bounds each server."""

    servers: tuple[Asked, ...]
    seconds: float = SECONDS


async def list_server(asked: Asked, seconds: float = SECONDS) -> ServerListing:
    """Ask one server; whatever goes wrong is part of the answer."""
    begun = time.perf_counter()
    try:
        connection = Connection(asked.url, asked.key)
    except Exception as error:  # noqa: BLE001 - an address that the client cannot take at all
        detail = f"{type(error).__name__}: {error}".replace(asked.key or "\0", "…")
        report = ErrorReport(code="server-address", title="The server's address cannot be used", detail=detail)
        return ServerListing(server=asked.name, error=report)
    try:
        async with asyncio.timeout(seconds):
            answer = await ask(connection, seconds)
    except QuantchatError as error:
        return ServerListing(server=asked.name, error=error.report, seconds=time.perf_counter() - begun)
    except Exception as error:  # noqa: BLE001 - one odd server must not hide the others
        return ServerListing(server=asked.name, error=fault_of(error, connection).report)
    finally:
        await connection.close()
    return ServerListing(
        server=asked.name,
        kind=answer.kind,
        label=DIALECTS[answer.kind].label,
        seconds=time.perf_counter() - begun,
        models=tuple(_chosen(asked, answer)),
    )


def _chosen(asked: Asked, answer: Answer) -> list[ServedModel]:
    """The models that the settings ask for, with the window that the settings know."""
    models = list(answer.models)
    if asked.models:
        unlisted = [ServedModel(id=name) for name in asked.models if DIALECTS[answer.kind].on_demand]
        models = [found for name in asked.models if (found := answer.model(name)) is not None]
        models += [model for model in unlisted if answer.model(model.id) is None]
    return [ServedModel(id=model.id, context_window=model.context_window or asked.context_window) for model in models]


async def answer_all(question: Question) -> None:
    """Print a line for each server as it answers."""
    encode = msgspec.json.Encoder().encode
    waiting = [list_server(asked, question.seconds) for asked in question.servers]
    for listed in asyncio.as_completed(waiting):
        sys.stdout.buffer.write(encode(await listed) + b"\n")
        sys.stdout.buffer.flush()


def main() -> int:
    """Read the question, answer it."""
    try:
        question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    except (msgspec.DecodeError, RecursionError) as error:
        print(f"not understood: {error}", file=sys.stderr)  # noqa: T201 - a program of its own
        return 2
    asyncio.run(answer_all(question))
    return 0


if __name__ == "__main__":
    sys.exit(main())
