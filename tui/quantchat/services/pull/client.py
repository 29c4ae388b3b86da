"""Talking with a download process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from quantchat.errors import FetchError, QuantchatError, StorageError, UsageError
from quantchat.services.children import LAST_WORDS, child, complaints
from quantchat.services.pull.words import (
    Broken,
    Describe,
    Described,
    Event,
    Found,
    Search,
    Task,
    encode_line,
    event_decoder,
)

SILENCE_SECONDS = 120.0
"""A process that says nothing for so long hangs: it reports several times per second while it downloads."""
_KINDS: dict[str, type[QuantchatError]] = {"usage": UsageError, "fetch": FetchError, "storage": StorageError}


async def events_of(task: Task) -> AsyncGenerator[Event, None]:
    """Do a task in a process of its own, which ends with this generator.

    Raises:
        QuantchatError: what the task failed with.
    """
    async with child("-m", "quantchat.services.pull", talks=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        words = asyncio.ensure_future(complaints(process))
        process.stdin.write(encode_line(task))
        try:
            while line := await asyncio.wait_for(process.stdout.readline(), SILENCE_SECONDS):
                event = _decode(line)
                if isinstance(event, Broken):
                    raise _KINDS[event.kind].from_report(event.report)
                yield event
            if await process.wait():
                why = (await words or [f"with status {process.returncode}"])[-1][:LAST_WORDS]
                raise FetchError("The download process ended", why, "Run it again: what has arrived is kept")
        except TimeoutError:
            raise FetchError("The download process hangs", remedy="Run it again: what has arrived is kept") from None
        finally:
            words.cancel()
            process.stdin.close()


def _decode(line: bytes) -> Event:
    try:
        return event_decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise FetchError("The download process said something senseless", str(error)) from error


async def describe(task: Describe) -> Described:
    """Ask the hub what a repository holds.

    Raises:
        QuantchatError: if it cannot be had.
    """
    async with aclosing(events_of(task)) as events:
        async for event in events:
            if isinstance(event, Described):
                return event
    raise FetchError(f"Nothing was said about {task.wanted}")


async def search(task: Search) -> Found:
    """Look for models by name.

    Raises:
        QuantchatError: if the hub does not allow it.
    """
    async with aclosing(events_of(task)) as events:
        async for event in events:
            if isinstance(event, Found):
                return event
    raise FetchError("The search brought nothing")
