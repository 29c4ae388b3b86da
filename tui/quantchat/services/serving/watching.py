"""Waiting until a server answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from quantchat.errors import ErrorReport, ServeError
from quantchat.services.serving.failures import explain
from quantchat.services.serving.plan import ServePlan
from quantchat.services.serving.ports import reached_at
from quantchat.services.serving.process import Server
from quantchat.services.serving.stages import READY, Stage, StartLog

LOOK_SECONDS = 0.2
ANSWER_SECONDS = 2.0
HEALTH = b"GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"

Tell = Callable[[Stage], None]


class ServerEnded(ServeError):
    """A server ended by itself.

    Attributes:
        lines: The end of its log.
    """

    def __init__(self, report: ErrorReport, lines: list[str]) -> None:
        super().__init__(report.title, report.detail, report.remedy, code=report.code)
        self.lines = lines


async def wait_until_ready(server: Server, plan: ServePlan, tell: Tell) -> dict[str, str]:
    """Wait until a server answers; return the figures that it told of itself.

    There is no limit of time: large models load for many minutes.

    Raises:
        ServerEnded: if it ends instead; says why.
    """
    log = StartLog()
    while True:
        for line in server.new_lines():
            stage = log.read(line)
            if stage is not None and stage.title != READY:
                tell(stage)
        require_running(server)
        if await answers(plan):
            return log.figures
        await asyncio.sleep(LOOK_SECONDS)


async def wait_for_end(server: Server) -> None:
    """Wait while a server runs; cancelling ends the waiting.

    Raises:
        ServerEnded: when it ends.
    """
    while True:
        require_running(server)
        await asyncio.sleep(LOOK_SECONDS)


def require_running(server: Server) -> None:
    """Make sure that a server has not ended.

    Raises:
        ServerEnded: if it has; says why.
    """
    status = server.status
    if status is not None:
        lines = server.tail()
        raise ServerEnded(explain(lines, status, str(server.log_path)), lines)


async def answers(plan: ServePlan) -> bool:
    """Ask a server for its health; it says 200 once its model is loaded."""
    host = reached_at(plan.host)
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), plan.port)
            try:
                writer.write(HEALTH % host.encode())
                status = await reader.readline()
            finally:
                writer.close()
        return b" 200 " in status
    return False
