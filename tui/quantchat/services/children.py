"""Child processes of this interpreter: killed and reaped when their work is left early."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping

LAST_WORDS = 300
LINE_LIMIT = 64 * 1024**2
NO_NETWORK = ("connection", "resolve", "timed out", "timeout", "unreachable")


@contextlib.asynccontextmanager
async def child(
    *arguments: str, env: Mapping[str, str] | None = None, talks: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run this interpreter; the process is killed and reaped when the block is left early.

    Args:
        arguments: What follows the name of the interpreter.
        env: What wins over the environment.
        talks: Whether its standard input and output are pipes to here; else they are closed.
    """
    pipe = asyncio.subprocess.PIPE if talks else asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        *arguments,
        stdin=pipe,
        stdout=pipe,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} | dict(env or {}),
        start_new_session=True,
        limit=LINE_LIMIT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            # Not `process.kill()`, which would reap one that has just ended before asyncio does, and asyncio complains.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            await process.wait()


async def complaints(process: asyncio.subprocess.Process) -> list[str]:
    """Return the last lines of a child's standard error; waits for its end."""
    assert process.stderr is not None
    kept = b""
    while piece := await process.stderr.read(1 << 16):
        kept = (kept + piece)[-(1 << 16) :]
    return [line.strip() for line in kept.decode(errors="replace").split("\n") if line.strip()]


async def last_words(process: asyncio.subprocess.Process) -> str:
    """What a child said about its failure, in one line; waits for its end."""
    said = await complaints(process)
    if any(sign in line.lower() for line in said for sign in NO_NETWORK):
        return "the network does not answer"
    errors = [line for line in said if "error" in line.lower()]
    return (errors or said or ["no reason was given"])[-1].removeprefix("ERROR: ")[:LAST_WORDS]
