"""What the worker thread asks of a server's model: turns run on an event loop in a thread of their own."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import psutil

from quantchat.domain.chat import ChatMessage
from quantchat.engine import protocol as p
from quantchat.engine.backends import Emit, IsCancelled
from quantchat.engine.backends.server import tokens
from quantchat.engine.backends.server.health import Monitor
from quantchat.engine.backends.server.opening import open_model
from quantchat.engine.backends.server.room import Room
from quantchat.engine.backends.server.served import Served
from quantchat.engine.backends.server.turn import End, ServerTurn
from quantchat.engine.backends.turntasks import no_model
from quantchat.engine.context import reserve_for
from quantchat.engine.inspecting import inspect
from quantchat.errors import ErrorReport, GenerationError, LoadError, explained

STEP_SECONDS = 0.02
"""What the worker waits for news between two looks at its requests; also how often a turn looks whether to stop."""
CLOSE_SECONDS = 2.0

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="quantchat-server", daemon=True).start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for what it returns or raises."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def begin(self, work: Coroutine[Any, Any, T]) -> Callable[[], object]:
        """Start a coroutine there; return what cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).cancel


class Tasks:
    """Holds the connection to the loaded model's server, and its turns."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._loop = Loop()
        self._served: Served | None = None
        self._monitor: Monitor | None = None
        self._end_monitor: Callable[[], object] = lambda: None
        self._turns: dict[str, Callable[[], object]] = {}
        self._reasons: dict[str, str] = {}
        self._ends: queue.SimpleQueue[End] = queue.SimpleQueue()

    def load(self, command: p.Load) -> p.Event:
        """Get a server's model ready in place of the one that was."""
        self._drop()
        try:
            self._served, report = self._loop.call(open_model(command, self._emit))
        except Exception as error:
            logger.exception("the server's model is not ready")
            failure = explained(error, LoadError, "The server cannot be used")
            return p.LoadFailed(request=command.request, error=failure)
        self._monitor = Monitor(self._served, self._emit)
        self._end_monitor = self._loop.begin(self._monitor.run())
        return p.Loaded(request=command.request, report=report)

    def unload(self, command: p.Unload) -> p.Event:
        """Leave the server alone; nothing of it was held here."""
        self._drop()
        return p.Unloaded(request=command.request)

    def _drop(self) -> None:
        self.abandon()
        served, self._served, self._monitor = self._served, None, None
        self._end_monitor()
        if served is not None:
            self._loop.call(served.connection.close())

    # Turns

    @property
    def running(self) -> bool:
        """Whether any turn is under way."""
        return bool(self._turns)

    def start(self, command: p.Generate, cancelled: IsCancelled) -> None:
        """Begin a turn.

        Raises:
            GenerationError: if no model is loaded, or the server does not know what is asked of it.
        """
        served = self._needed()
        _refuse_template(command.template)
        turn = ServerTurn(served, command, cancelled, self._emit, partial(self._waits, command.turn))
        self._turns[command.turn] = self._loop.begin(self._run(turn))

    async def _run(self, turn: ServerTurn) -> None:
        """Run a turn; break it off as soon as it is no longer wanted, which closes its connection."""
        work = asyncio.ensure_future(turn.run())
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=STEP_SECONDS)
                if turn.cancelled():
                    work.cancel()
            self._ends.put(await work)
        finally:
            work.cancel()
            self._waits(turn.command.turn, "")

    def _waits(self, turn: str, why: str) -> None:
        """Tell what turns wait for; empty when this one waits no more."""
        self._reasons[turn] = why
        self._reasons = {name: reason for name, reason in self._reasons.items() if reason}
        if self._monitor is not None:
            self._monitor.note("; ".join(dict.fromkeys(self._reasons.values())))
        if why:
            self._emit(p.Log(level="info", text=why))

    def step(self) -> list[End]:
        """Wait a moment for the ends of turns; what they say is sent as it comes."""
        ends: list[End] = []
        try:
            ends.append(self._ends.get(timeout=STEP_SECONDS))
            while True:
                ends.append(self._ends.get_nowait())
        except queue.Empty:
            pass
        return [end for end in ends if self._turns.pop(end.turn, None) is not None]

    def abandon(self) -> list[str]:
        """Break off all turns and return their names."""
        names = list(self._turns)
        for cancel in self._turns.values():
            cancel()
        self._turns.clear()
        return names

    def forget(self, session: str) -> None:
        """Drop what is kept of a session: how much of it was left out."""
        if self._served is not None:
            self._served.dropped.pop(session, None)

    # Requests

    def count(self, command: p.CountTokens) -> p.Event:
        """Ask the server how many tokens a prompt has."""
        served = self._needed()
        _refuse_template(command.template)
        if not tokens.can_count(served):
            raise tokens.untold(served)
        room, counted = self._loop.call(_counted(served, command))
        return p.TokenCount(
            request=command.request,
            tokens=counted,
            window=served.window,
            dropped=room.dropped,
            reserve=min(reserve_for(command.reserve, served.window), room.limit) if served.window else command.reserve,
        )

    def render(self, command: p.RenderPrompt) -> p.Event:
        """Ask the server for the exact prompt."""
        served = self._needed()
        _refuse_template(command.template)
        if not tokens.can_count(served):
            raise tokens.untold(served)
        prompt = self._loop.call(tokens.prompt_of(served, command.messages))

        def render(messages: Sequence[ChatMessage], generation_prompt: bool) -> str:
            return self._loop.call(tokens.text_of(served, messages, generation_prompt=generation_prompt))

        pieces, warnings = inspect(
            prompt.text,
            prompt.ids,
            command.messages,
            prompt.vocabulary() if prompt.ids else None,
            render=render,
            window=served.window,
            changed_by="--chat-template of the server",
        )
        return p.RenderedPrompt(
            request=command.request,
            text=prompt.text,
            tokens=len(prompt.ids),
            window=served.window,
            pieces=pieces,
            warnings=warnings,
        )

    def run_job(self, command: p.Job, cancelled: IsCancelled) -> p.Event:
        """Refuse: a server computes answers, and shows neither logits nor weights."""
        return p.JobFailed(job=command.job, error=_NO_JOBS)

    def memory(self) -> p.Memory:
        """What this process holds; what the server holds it does not tell."""
        return p.Memory(resident=psutil.Process().memory_info().rss)

    def _needed(self) -> Served:
        if self._served is None:
            raise no_model()
        return self._served


_NO_JOBS = ErrorReport(
    code="server-cannot",
    title="This cannot be done with a server's model",
    detail="A server gives answers only: measuring and quantizing need the weights themselves.",
    remedy="Do it with the model's folder, on the machine that has it.",
)


def _refuse_template(template: str) -> None:
    if template:
        raise GenerationError(
            "A server uses its own chat template",
            "This session has another one, which the server does not take.",
            "/template own takes it back.",
            code="template",
        )


async def _counted(served: Served, command: p.CountTokens) -> tuple[Room, int]:
    """What would be sent of a conversation, and its length.

    Raises:
        GenerationError: if the last question alone does not fit.
    """
    first = served.dropped.get(command.session, 0)
    room = Room(command.messages, command.reserve, served.window, first)
    counted = await tokens.count(served, room.messages)
    while served.window and not room.settle(counted):
        room.drop(counted)
        counted = await tokens.count(served, room.messages)
    return room, counted
