"""Work of a command that Ctrl+C, a closed terminal or `kill` end cleanly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from quantchat.errors import Cancelled

T = TypeVar("T")


def run_stoppable(work: Coroutine[Any, Any, T], stopped: Cancelled) -> T:
    """Run to the end; a signal cancels the work, which may clean up, and raises `stopped`.

    Raises:
        Cancelled: `stopped`.
    """
    return asyncio.run(_watched(work, stopped))


async def _watched(work: Coroutine[Any, Any, T], stopped: Cancelled) -> T:
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise stopped from None
