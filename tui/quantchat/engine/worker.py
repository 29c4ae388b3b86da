"""The one thread that does all torch work, and the rules by which commands reach it.

Imports no backend itself: the process must redirect its output first, and must answer Ping while the imports run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable

from quantchat.domain.backends import Backend
from quantchat.domain.generation import TurnStatistics
from quantchat.engine import protocol as p
from quantchat.engine import quiet
from quantchat.engine.backends import Tasks, open_backend, ready
from quantchat.errors import EngineError, ErrorReport, explained

Emit = Callable[[p.Event], None]
Stoppable = p.Generate | p.Job
Request = p.Load | p.Unload | p.CountTokens | p.RenderPrompt | p.Forget

logger = logging.getLogger(__name__)
STOPPED = ErrorReport(code="cancelled", title="Stopped")
UNEXPECTED = "The engine could not do this"
CLOSING = ErrorReport(code="engine-gone", title="The engine is shutting down")


class _Piece:
    """A turn or job on its way through the worker, with a cancel token of its own."""

    def __init__(self, command: Stoppable) -> None:
        self.command = command
        self.name = command.turn if isinstance(command, p.Generate) else command.job
        self.session = command.session if isinstance(command, p.Generate) else ""
        self.cancel = threading.Event()
        self.started = False


class Worker:
    """Runs commands on one background thread.

    Events are emitted from that thread, and from the caller of `submit` where no work is needed. Turns of different
    sessions run side by side, and requests are answered between their steps. Refused with code `busy`: a second turn
    of a session, a turn beside a job, a job beside anything.
    """

    def __init__(self, emit: Emit, backend: Backend = "torch") -> None:
        self._emit, self._backend = emit, backend
        self._queue: queue.SimpleQueue[_Piece | Request | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pieces: dict[str, _Piece] = {}
        self._working = False
        self._closing = threading.Event()
        # Not joined at exit: the process leaves by os._exit, and torch must not hold up a headless command.
        self._thread = threading.Thread(target=self._run, name="quantchat-worker", daemon=True)

    def start(self) -> None:
        """Start the thread; `Ready` follows when the libraries are imported."""
        self._thread.start()

    def submit(self, command: p.Command) -> None:
        """Take a command; returns at once."""
        match command:
            case p.Ping():
                self._emit(p.Pong(request=command.request, busy=self._busy()))
            case p.Stop():
                self._stop(command.turn)
            case p.Shutdown():
                self._cancel()
            case _ if isinstance(command, Stoppable):
                self._admit(_Piece(command))
            case p.Load() | p.Unload():
                # What runs now belongs to the model that is about to go.
                self._cancel()
                self._queue.put(command)
            case _:
                self._queue.put(command)

    def close(self, timeout: float = 2.0) -> bool:
        """Stop everything and end the thread; false if it did not end in time."""
        self._closing.set()
        self._cancel()
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _busy(self) -> bool:
        with self._lock:
            return bool(self._pieces) or self._working

    def _admit(self, piece: _Piece) -> None:
        with self._lock:
            rival = next((other for other in self._pieces.values() if _excludes(other, piece)), None)
            if rival is None:
                self._pieces[piece.name] = piece
        if rival is None:
            self._queue.put(piece)
        else:
            self._emit(_failed(piece, _busy_report(rival)))

    def _stop(self, name: str) -> None:
        with self._lock:
            piece = self._pieces.get(name)
            if piece is None:
                return
            piece.cancel.set()
            waiting = not piece.started
            if waiting:
                del self._pieces[name]
        if waiting:
            self._emit(_stopped(piece))

    def _cancel(self) -> None:
        with self._lock:
            names = list(self._pieces)
        for name in names:
            self._stop(name)

    # On the worker thread

    def _run(self) -> None:
        tasks, broken = self._import()
        while True:
            if tasks is None or not tasks.running or not self._queue.empty():
                item = self._queue.get()
                if item is None:
                    break
                self._take(item, tasks, broken)
            if tasks is not None and tasks.running:
                self._step(tasks)
        if tasks is not None:
            self._finish_turns(tasks)

    def _take(self, item: _Piece | Request, tasks: Tasks | None, broken: ErrorReport | None) -> None:
        if isinstance(item, _Piece):
            self._begin(item, tasks, broken)
        else:
            self._working = True
            if tasks is not None and isinstance(item, p.Load | p.Unload):
                self._finish_turns(tasks)
            event = self._answer(item, tasks, broken)
            self._working = False
            if event is not None:
                self._emit(event)
        if not isinstance(item, p.CountTokens | p.RenderPrompt):
            self._tell_memory(tasks)

    def _tell_memory(self, tasks: Tasks | None) -> None:
        if tasks is not None:
            # After a CUDA fault every question to the device raises.
            with contextlib.suppress(Exception):
                self._emit(tasks.memory())

    def _step(self, tasks: Tasks) -> None:
        """Give every running turn a step; tell of those that ended."""
        try:
            ends = tasks.step()
        except BaseException as error:
            logger.exception("the turns failed")
            ends = [p.Failed(turn=name, error=explained(error, EngineError, UNEXPECTED)) for name in tasks.abandon()]
        for event in ends:
            self._end(event.turn, event)
        if ends:
            self._tell_memory(tasks)

    def _finish_turns(self, tasks: Tasks) -> None:
        """Go on until all turns, which were told to stop, have ended."""
        while tasks.running:
            self._step(tasks)

    def _end(self, name: str, event: p.Event) -> None:
        # Freed before its end is told: whoever hears of it may send the next turn at once.
        with self._lock:
            self._pieces.pop(name, None)
        self._emit(event)

    def _import(self) -> tuple[Tasks | None, ErrorReport | None]:
        quiet.set_environment()
        try:
            with quiet.no_warnings():
                opened = open_backend(self._backend, self._emit)
        except Exception as error:
            logger.exception("the engine's libraries cannot be imported")
            broken = _broken(error)
            self._emit(p.Log(level="error", text=broken.sentence()))
            return None, broken
        self._emit(ready(os.getpid(), self._backend, opened.versions, opened.devices))
        return opened.tasks, None

    def _begin(self, piece: _Piece, tasks: Tasks | None, broken: ErrorReport | None) -> None:
        with self._lock:
            if self._pieces.get(piece.name) is not piece:
                return
            piece.started = True
        try:
            event = self._first_event(piece, tasks, broken)
        except BaseException as error:
            logger.exception("a turn or job failed")
            event = _failed(piece, explained(error, EngineError, UNEXPECTED))
        if event is not None:
            self._end(piece.name, event)

    def _first_event(self, piece: _Piece, tasks: Tasks | None, broken: ErrorReport | None) -> p.Event | None:
        """Begin a turn, or do a whole job; return its last event if there is one already."""
        if tasks is None:
            return _failed(piece, broken or CLOSING)
        if piece.cancel.is_set() or self._closing.is_set():
            return _stopped(piece)
        if isinstance(piece.command, p.Generate):
            tasks.start(piece.command, piece.cancel.is_set)
            return None
        return tasks.run_job(piece.command, piece.cancel.is_set)

    def _answer(self, command: Request, tasks: Tasks | None, broken: ErrorReport | None) -> p.Event | None:
        if tasks is None or self._closing.is_set():
            return _request_failed(command, broken or CLOSING)
        try:
            match command:
                case p.Forget():
                    tasks.forget(command.session)
                    return None
                case p.Load():
                    return tasks.load(command)
                case p.Unload():
                    return tasks.unload(command)
                case p.CountTokens():
                    return tasks.count(command)
                case p.RenderPrompt():
                    return tasks.render(command)
        except BaseException as error:
            logger.exception("a request failed")
            return _request_failed(command, explained(error, EngineError, UNEXPECTED))


def _broken(error: Exception) -> ErrorReport:
    if isinstance(error, EngineError):
        return error.report
    return ErrorReport(
        code="libraries",
        title="The engine's libraries cannot be imported",
        detail=f"{type(error).__name__}: {error}",
        remedy="Install them again: pip install --force-reinstall quantchat",
    )


def _excludes(one: _Piece, other: _Piece) -> bool:
    """Whether two pieces cannot run side by side."""
    if isinstance(one.command, p.Generate) and isinstance(other.command, p.Generate):
        return one.name == other.name or one.session == other.session != ""
    return True


def _busy_report(current: _Piece) -> ErrorReport:
    what = "an answer" if isinstance(current.command, p.Generate) else "a job"
    return ErrorReport(
        code="busy",
        title="The engine is busy",
        detail=f"It is still working on {what}.",
        remedy="Wait for it to end or stop it.",
    )


def _failed(piece: _Piece, report: ErrorReport) -> p.Event:
    if isinstance(piece.command, p.Generate):
        return p.Failed(turn=piece.name, error=report)
    return p.JobFailed(job=piece.name, error=report)


def _stopped(piece: _Piece) -> p.Event:
    if isinstance(piece.command, p.Generate):
        return p.Finished(turn=piece.name, reason="stopped", statistics=TurnStatistics())
    return p.JobFailed(job=piece.name, error=STOPPED)


def _request_failed(command: Request, report: ErrorReport) -> p.Event | None:
    if isinstance(command, p.Forget):
        return None
    if isinstance(command, p.Load):
        return p.LoadFailed(request=command.request, error=report)
    return p.RequestFailed(request=command.request, error=report)
