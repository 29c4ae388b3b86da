"""Making a server's model ready: it answers, it has the model, and a first token comes."""

from __future__ import annotations

import asyncio

from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.domain.servers import ServerTarget
from quantchat.engine import protocol as p
from quantchat.engine.backends import Emit
from quantchat.engine.backends.server import asking, tokens
from quantchat.engine.backends.server.connection import Connection
from quantchat.engine.backends.server.faults import ServerFault
from quantchat.engine.backends.server.fields import unknown_defaults
from quantchat.engine.backends.server.kinds import Kind
from quantchat.engine.backends.server.served import Served
from quantchat.engine.backends.server.turn import ServerTurn
from quantchat.engine.progress import Stages
from quantchat.errors import LoadError, QuantchatError

STARTING_SECONDS = 900.0
"""A server may still be loading its model for so long."""
LOOK_SECONDS = 1.0
KERNEL = "server"
_FIRST = SamplingSettings(temperature=1, top_p=1, top_k=0, max_new_tokens=1)
"""Values that do nothing: OpenAI's models that think take no others."""
_THOUGHT = "limit was reached"
"""What such a model says to so short a limit, having thought."""
_MAY_LOAD = "A server may have to load the model first."
_GREETING = [ChatMessage("user", "Hello")]


async def open_model(command: p.Load, emit: Emit) -> tuple[Served, p.LoadReport]:
    """Get a server's model ready to be asked.

    Raises:
        QuantchatError: if the server, its model or the key is not what the settings say.
    """
    target = command.server
    if target is None:
        raise LoadError("This model has no server", "Nothing says where to ask.", "Choose it again in the list.")
    stages = Stages(command.request, emit)
    connection = Connection(target.url, target.key)
    try:
        served = await _found(target, connection, stages)
        await _first_token(served, stages)
    except BaseException:
        await connection.close()
        raise
    stages.leave()
    return served, _report(command, served, stages)


async def _found(target: ServerTarget, connection: Connection, stages: Stages) -> Served:
    """Ask the server what it is and has, as soon as it answers."""
    stages.enter(f"asking {connection.host}")
    answer = await _patiently(connection, stages)
    model = answer.model(target.model)
    served = Served(target=target, connection=connection, kind=answer.kind)
    if model is None and not served.dialect.on_demand:
        raise asking.missing(target.model, answer, connection.host)
    served.window = (model.context_window if model is not None else 0) or target.context_window
    served.opened = await tokens.opened_tag(served)
    return served


async def _patiently(connection: Connection, stages: Stages) -> asking.Answer:
    """Wait for a server that says that it is not ready yet, or how long it wants to be left alone.

    Raises:
        ServerFault: if it says anything else, or for too long.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + STARTING_SECONDS
    while True:
        try:
            return await asking.ask(connection)
        except ServerFault as fault:
            seconds = max(LOOK_SECONDS, fault.wait or 0.0)
            if (fault.status != 503 and not fault.wait) or loop.time() + seconds > until:
                raise
            asked = f"waiting {seconds:.3g} s, as the server asks"
            stages.enter(asked if fault.wait else "waiting for the server to get ready", note=fault.said)
        await asyncio.sleep(seconds)


async def _first_token(served: Served, stages: Stages) -> None:
    """Let it say one token: only that shows that key, model, template and address are right.

    Raises:
        QuantchatError: if it does not.
    """

    def waits(why: str) -> None:
        stages.enter(why or "waiting for a first token", note="" if why else _MAY_LOAD)

    waits("")
    asked = p.Generate(turn="", messages=_GREETING, sampling=_FIRST)
    end = await ServerTurn(served, asked, lambda: False, _unheard, waits).run()
    if isinstance(end, p.Failed) and _THOUGHT not in end.error.detail:
        raise QuantchatError.from_report(end.error)


def _unheard(_event: p.Event) -> None:
    """Nobody is to see the first token."""


def _report(command: p.Load, served: Served, stages: Stages) -> p.LoadReport:
    return p.LoadReport(
        path=command.model.path,
        name=command.model.name,
        architecture=served.dialect.label,
        device=served.connection.host,
        dtype="",
        kernel=KERNEL,
        context_window=served.window,
        recommended=unknown_defaults(served.dialect),
        decoding=KERNEL,
        seconds=stages.seconds,
        warnings=tuple(_warnings(served)),
    )


def _warnings(served: Served) -> list[str]:
    host = served.connection.host
    warnings = []
    if served.kind == _UNKNOWN:
        warnings.append(
            f"{host} is no kind of server that quantchat knows: settings beyond OpenAI's own, such as top_k or min_p, "
            "are sent as vLLM has them, and it may ignore them."
        )
    if not served.counts:
        warnings.append(f"{host} does not tell how many tokens an answer takes: pieces of text are counted instead.")
    return warnings


_UNKNOWN: Kind = "other"
