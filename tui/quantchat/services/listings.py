"""Asking servers what they are and which models they have, in a process of its own: this one imports no client."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable, Sequence

import msgspec

from quantchat.domain.served import ServerListing
from quantchat.domain.servers import ServerTarget
from quantchat.errors import ErrorReport
from quantchat.services.children import child, last_words

COMMAND_VARIABLE = "QUANTCHAT_LISTING_COMMAND"
"""Environment variable with other arguments of the interpreter; the tests ask their own program with it."""
LISTING = "-m quantchat.engine.backends.server.listing"
PATIENCE = 12.0
"""Seconds for all servers, which are asked at once."""

SECONDS = 8.0
"""For each request to one of them."""

Asked = tuple[ServerTarget, tuple[str, ...]]
"""Where to ask, and which models alone are wanted; none means all."""
Tell = Callable[[ServerListing], None]
_decode = msgspec.json.Decoder(ServerListing).decode


async def ask_servers(wanted: Sequence[Asked], tell: Tell, patience: float = PATIENCE) -> None:
    """Ask servers for their models; each is told once, as soon as it has answered or cannot be asked any more."""
    waiting = {target.name: target for target, _ in wanted}
    if not waiting:
        return

    def take(line: bytes) -> None:
        listing = _decode(line)
        if waiting.pop(listing.server, None) is not None:
            tell(listing)

    why = await _asked(wanted, take, patience)
    for name, target in waiting.items():
        tell(ServerListing(server=name, error=_silent(name, _without(why, target.key))))


async def _asked(wanted: Sequence[Asked], take: Callable[[bytes], None], patience: float) -> str:
    """Run the process, hand on its lines, and return why those that it did not tell of were not told."""
    arguments = shlex.split(os.environ.get(COMMAND_VARIABLE, LISTING))
    try:
        async with asyncio.timeout(patience), child(*arguments, talks=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(
                msgspec.json.encode({"seconds": SECONDS, "servers": [_question(*one) for one in wanted]})
            )
            process.stdin.close()
            while line := await process.stdout.readline():
                take(line)
            return await last_words(process)
    except TimeoutError:
        return "it did not answer in time"
    except msgspec.DecodeError as error:
        return f"what asks it spoke nonsense ({error})"
    except (OSError, ValueError) as error:
        return str(error)


def _question(target: ServerTarget, models: tuple[str, ...]) -> dict[str, object]:
    return {
        "name": target.name,
        "url": target.url,
        "key": target.key,
        "models": models,
        "context_window": target.context_window,
    }


def _silent(name: str, why: str) -> ErrorReport:
    return ErrorReport(
        code="server-unreachable",
        title=f"{name} could not be asked",
        detail=why,
        remedy="Look whether it runs and its URL is right",
    )


def _without(text: str, key: str) -> str:
    return text.replace(key, "…") if key else text
