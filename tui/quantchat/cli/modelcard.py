"""Everything about one model on an ordinary terminal, or as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import click

from quantchat.cli.modeltable import as_object, json_text, plain
from quantchat.domain.models import ModelInfo
from quantchat.domain.sections import Row, Section, Tone, as_text
from quantchat.domain.text import clean
from quantchat.services import info
from quantchat.services.fit import forecast
from quantchat.services.memory import look_once
from quantchat.services.serverlist import Servers
from quantchat.services.servers import server_rows
from quantchat.store.settings import load_settings

COLOURS: dict[Tone, str] = {"good": "green", "warning": "yellow", "error": "red"}


def card_of(model: ModelInfo) -> info.ModelCard:
    """Look at a model's folder and at the memory of this machine."""
    view = asyncio.run(look_once())
    return info.card(model, forecast(model, view), info.look(model), _server(model))


def _server(model: ModelInfo) -> tuple[Row, ...]:
    """Ask the server of a model what it is."""
    servers = {name: spec for name, spec in load_settings()[0].servers.items() if name == model.server}
    if not servers:
        return ()
    asked = Servers(lambda _fact: None, servers)
    asyncio.run(asked.ask())
    return server_rows(model.server, servers[model.server], asked.known[0].listing)


def as_json(known: info.ModelCard) -> str:
    """Write a card as one JSON object."""
    return json_text(plain(known) | {"model": as_object(known.model)})


def printed(known: info.ModelCard, *, styled: bool) -> str:
    """Write a card as text; on a terminal with colours, and with special tokens told apart."""
    parts = info.sections(known)
    return "\n\n".join("\n".join(_section(part)) for part in parts) if styled else as_text(parts)


def _section(part: Section) -> Iterator[str]:
    yield click.style(part.title, bold=True)
    width = max((len(row.label) for row in part.rows), default=0)
    yield from (_row(row, width) for row in part.rows)
    if part.text:
        text = "".join(
            click.style(clean(piece.text), reverse=True) if piece.special else clean(piece.text)
            for piece in part.pieces
        )
        yield from (f"  {line}" for line in (text or clean(part.copy)).split("\n"))


def _row(row: Row, width: int) -> str:
    value = click.style(clean(row.value, newlines=False), fg=COLOURS.get(row.tone))
    return f"  {clean(row.label, newlines=False):<{width}}  {value}" if row.label else f"  {value}"
