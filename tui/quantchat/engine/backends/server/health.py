"""Keeps an eye on the server of the loaded model, and tells when something about it changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
from openai import APIError, APIStatusError

from quantchat.engine import protocol as p
from quantchat.engine.backends.server import asking
from quantchat.engine.backends.server.faults import ServerFault, fault_of
from quantchat.engine.backends.server.metrics import Figures, read_metrics
from quantchat.engine.backends.server.served import Served
from quantchat.engine.backends.server.turn import LONGEST_WAIT

POLL_SECONDS = 3.0
SPARING_SECONDS = 30.0
"""Between checks of a server that can only be asked for its list of models, which may be paid for or counted."""
ANSWER_SECONDS = 5.0
_SHARE_DIGITS = 2
_ABSENT = (404, 405, 501)


class Monitor:
    """Asks for health and figures every few seconds while a model is loaded."""

    def __init__(self, served: Served, emit: Callable[[p.ServerState], None]) -> None:
        self._served, self._emit = served, emit
        self._last: p.ServerState | None = None
        self._note = ""
        self._asked_wait = 0.0
        self._has_health = served.dialect.has_health
        self._has_metrics = True
        self._before = Figures()
        self._hits: float | None = None

    def note(self, text: str) -> None:
        """Tell what turns wait for; empty when none waits any more."""
        self._note = text
        if self._last is not None and self._last.healthy:
            self._tell(msgspec.structs.replace(self._last, detail=text))

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._tell(await self._look())
            await asyncio.sleep(self._pause)

    @property
    def _pause(self) -> float:
        return max(POLL_SECONDS if self._has_health else SPARING_SECONDS, min(self._asked_wait, LONGEST_WAIT))

    async def _look(self) -> p.ServerState:
        begun = time.perf_counter()
        try:
            await self._check()
            latency = time.perf_counter() - begun
            figures = await self._figures()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may be better
            fault = fault_of(error, self._served.connection)
            why = fault.report.sentence().removesuffix(fault.report.remedy).strip()
            self._asked_wait = fault.wait or 0.0
            return p.ServerState(healthy=False, detail=f"{why} Looking again every {self._pause:.3g} seconds.")
        self._asked_wait = 0.0
        return p.ServerState(
            healthy=True,
            detail=self._note,
            latency=latency,
            running=figures.running,
            waiting=figures.waiting,
            cache_used=_rounded(figures.cache_used),
            prefix_hits=_rounded(self._prefix_hits(figures)),
        )

    async def _check(self) -> None:
        """Ask whether it is well.

        Raises:
            APIError: if it does not answer, or says no.
        """
        connection = self._served.connection
        if self._has_health:
            try:
                await connection.get("/health", ANSWER_SECONDS)
            except APIStatusError as error:
                if error.status_code not in _ABSENT:
                    raise
                self._has_health = False
            else:
                if self._last is None or self._last.healthy:
                    return
        answer = await asking.ask(connection, ANSWER_SECONDS)
        if answer.model(self._served.name) is None and not self._served.dialect.on_demand:
            raise asking.missing(self._served.name, answer, connection.host)

    async def _figures(self) -> Figures:
        if not self._has_metrics:
            return Figures()
        try:
            page = await self._served.connection.get("/metrics", ANSWER_SECONDS)
        except APIStatusError as error:
            # One that fails for once has them again later.
            self._has_metrics = error.status_code >= 500 and error.status_code not in _ABSENT
            return Figures()
        except (APIError, OSError, ServerFault):
            return self._before
        return read_metrics(page.text, self._served.name)

    def _prefix_hits(self, figures: Figures) -> float | None:
        """Share of the prompt tokens since the last look that the prefix cache gave; the last known where none came."""
        if figures.hits is None or figures.queries is None:
            return figures.hit_rate
        before, self._before = self._before, figures
        queries = figures.queries - (before.queries or 0.0)
        hits = figures.hits - (before.hits or 0.0)
        if queries < 0 or hits < 0:
            # It was started again.
            self._hits = None
        elif queries > 0:
            self._hits = min(hits / queries, 1.0)
        return self._hits

    def _tell(self, state: p.ServerState) -> None:
        before, self._last = self._last, state
        if before is None or msgspec.structs.replace(before, latency=state.latency) != state:
            self._emit(state)


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, _SHARE_DIGITS)
