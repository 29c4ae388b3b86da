"""Reading work that must not hold up quitting."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from quantchat.services.background import in_background


async def test_results_and_errors_come_back() -> None:
    assert await in_background(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_background(divmod, 7, 0)


def test_a_loop_ends_without_waiting_for_hung_work() -> None:
    release = threading.Event()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_background(release.wait, 30), 0.05)

    begun = time.monotonic()
    asyncio.run(give_up())
    assert time.monotonic() - begun < 5
    release.set()
