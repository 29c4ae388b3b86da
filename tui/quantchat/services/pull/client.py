"""Talking with a download process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

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
    Waiting,
    encode_line,
    event_decoder,
)

SILENCE_SECONDS = 120.0
"""A process that says nothing for so long hangs: it reports every few seconds, whatever it waits for."""
_KINDS: dict[str, type[QuantchatError]] = {"usage": UsageError, "fetch": FetchError, "storage": StorageError}


async def events_of(task: Task) -> AsyncGenerator[Event, None]:
    """Do a task in a process of its own, which ends with this generator.

    Raises:
        QuantchatError: what the task failed with.
    """
    async with _child() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        words = asyncio.ensure_future(complaints(process))
        process.stdin.write(encode_line(task))
        try:
            while line := await _next_line(process.stdout):
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


@asynccontextmanager
async def _child() -> AsyncIterator[asyncio.subprocess.Process]:
    async with AsyncExitStack() as stack:
        try:
            process = await stack.enter_async_context(child("-m", "quantchat.services.pull", talks=True))
        except OSError as error:
            why = error.strerror or str(error)
            raise FetchError(
                "The download process cannot be started", why, "End other programs and try again"
            ) from error
        yield process


async def _next_line(stream: asyncio.StreamReader) -> bytes:
    # Not by `wait_for`: on Python 3.11 it forgets that it was cancelled when a line comes in the same moment.
    async with asyncio.timeout(SILENCE_SECONDS):
        try:
            return await stream.readline()
        except ValueError as error:
            # It is longer than any that fits into memory.
            raise _senseless(error) from error


def _decode(line: bytes) -> Event:
    try:
        return event_decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise _senseless(error) from error


def _senseless(error: Exception) -> FetchError:
    return FetchError("The download process said something senseless", str(error))


async def describe(task: Describe, tell: Callable[[str], None] | None = None) -> Described:
    """Ask the hub what a repository holds; `tell` hears what it waits for.

    Raises:
        QuantchatError: if it cannot be had.
    """
    answer = await _answer(task, tell)
    if not isinstance(answer, Described):
        raise FetchError(f"Nothing was said about {task.wanted}")
    return answer


async def search(task: Search, tell: Callable[[str], None] | None = None) -> Found:
    """Look for models by name; `tell` hears what it waits for.

    Raises:
        QuantchatError: if the hub does not allow it.
    """
    answer = await _answer(task, tell)
    if not isinstance(answer, Found):
        raise FetchError("The search brought nothing")
    return answer


async def _answer(task: Task, tell: Callable[[str], None] | None) -> Event | None:
    told = ""
    async with aclosing(events_of(task)) as events:
        async for event in events:
            if not isinstance(event, Waiting):
                return event
            if tell is not None and event.note and event.note != told:
                told = event.note
                tell(told)
    return None
