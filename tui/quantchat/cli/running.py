"""A chat in lines: questions in, answers out, the history saved however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from quantchat.cli.lines import EditedLines, Questions
from quantchat.cli.outlet import Outlet
from quantchat.cli.replies import Show
from quantchat.cli.signals import Interrupted, Signals
from quantchat.errors import Cancelled, QuantchatError, StorageError
from quantchat.services.headless import Headless
from quantchat.services.history import HistoryFile
from quantchat.services.linechat import LineChat, Reply

BY_SIGNAL = 128
"""Plus the number of a signal is the exit status of what it ended."""
DRAIN_SECONDS = 0.5
"""So long a reader that pauses is waited for when a signal says to leave."""
AGAIN = "Ctrl+C again, or Ctrl+D, leaves."

T = TypeVar("T")


@dataclass
class Parts:
    """What a run is made of.

    Attributes:
        file: Where the history is kept; None if it is not.
        lines: The line editor, if there is one.
        remember: Hears of each question that was asked.
        typed: A person at a terminal types the questions: a failure ends nothing, and Ctrl+C first of all the answer.
        answer_first: A question that the history ends with.
    """

    engine: Headless
    chat: LineChat
    questions: Questions
    show: Show
    outlet: Outlet
    signals: Signals
    file: HistoryFile | None = None
    lines: EditedLines | None = None
    remember: Callable[[str], None] = lambda _question: None
    typed: bool = False
    answer_first: bool = False


class LineRun:
    """One run, from the load to the exit status."""

    def __init__(self, parts: Parts, runner: asyncio.Runner) -> None:
        self._parts, self._runner = parts, runner
        self._left = self._failed = self._lost = 0
        self._armed = False
        self._unsaved = False
        self._begun = self._saved = self._contents()

    def go(self) -> int:
        """Ask and answer until there is nothing more to ask, or a signal ends it; return the exit status."""
        parts = self._parts
        with parts.signals:
            try:
                if self._load():
                    self._converse()
            finally:
                self._leave()
                self._runner.run(parts.engine.close(now=bool(self._left)))
                self._run(self._drain())
        return self._lost or (BY_SIGNAL + self._left if self._left else self._failed)

    def on_broken(self, error: OSError) -> None:
        """Leave as nobody takes the answers any more; called on any thread."""
        if error.errno in (errno.EPIPE, errno.EIO):
            self._parts.signals.tell(signal.SIGPIPE if error.errno == errno.EPIPE else signal.SIGHUP)
            return
        self._lost = StorageError.exit_code
        self._parts.show.failed(StorageError("The answers cannot be written", error.strerror or str(error)))
        self._parts.signals.tell(signal.SIGPIPE)

    # Asking

    def _load(self) -> bool:
        parts = self._parts
        parts.chat.watch(parts.show.note)
        try:
            self._run(self._ready())
        except QuantchatError as error:
            parts.show.failed(error)
            self._failed = error.exit_code
        return not (self._left or self._failed)

    async def _ready(self) -> None:
        report = await self._parts.chat.load(self._parts.show.loading)
        if report is not None:
            self._parts.show.loaded(report)

    def _converse(self) -> None:
        goes_on = self._answer_first()
        while goes_on and not self._left:
            try:
                question = self._next()
            except QuantchatError as error:
                goes_on = self._fail(error)
                continue
            if question is None:
                return
            goes_on = self._answer(question)

    def _answer_first(self) -> bool:
        question = self._parts.chat.history.open_question
        if not self._parts.answer_first or question is None:
            return True
        self._parts.show.asked(question)
        return self._answer(question)

    def _next(self) -> str | None:
        """Wait for the next question; None to leave."""
        parts = self._parts
        while not self._left:
            try:
                with parts.signals.reading():
                    question = parts.questions.next()
            except Interrupted as interrupted:
                self._interrupted(interrupted.number)
                continue
            self._armed = self._armed and not parts.typed
            if question is None:
                # The shell's prompt does not belong behind this one.
                parts.show.hint("")
            else:
                parts.remember(question)
            return question
        return None

    def _interrupted(self, number: int) -> None:
        """A signal while a line is awaited: Ctrl+C drops what is typed, and twice in a row leaves."""
        parts = self._parts
        parts.show.hint("")
        if number != signal.SIGINT or not parts.typed:
            self._left = number
        elif parts.lines is not None and parts.lines.typed:
            self._armed = False
        elif self._armed:
            self._left = number
        else:
            self._armed = True
            parts.show.hint(AGAIN)

    def _answer(self, question: str) -> bool:
        """Answer a question; return whether the run goes on."""
        parts = self._parts
        stood = len(parts.chat.history.messages)
        try:
            reply = self._run(self._answered(question))
        except QuantchatError as error:
            goes_on = self._fail(error)
            if len(parts.chat.history.messages) < stood:
                # It was refused, but the file had it before this run: that alone is no reason to write.
                self._begun = self._saved = self._contents()
        else:
            goes_on = reply is not None
            if reply is not None and reply.finish_reason != "stopped":
                self._armed = False
            elif not parts.typed:
                # A program is to know that something is missing.
                self._failed = self._failed or Cancelled.exit_code
        self._save()
        return goes_on

    async def _answered(self, question: str) -> Reply:
        chat, show = self._parts.chat, self._parts.show
        await self._ready()
        chat.put(question)
        self._save()
        try:
            reply = await chat.answer(show.text)
        finally:
            show.end_text()
        await self._parts.outlet.drained()
        show.ended(reply)
        return reply

    def _fail(self, error: QuantchatError) -> bool:
        """Tell of a failure; return whether the run goes on all the same."""
        self._parts.show.failed(error)
        if not self._parts.typed:
            self._failed = self._failed or error.exit_code
        return self._parts.typed

    # Being interrupted

    def _run(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Run to the end; None if a signal said to leave."""
        return self._runner.run(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, T]) -> T | None:
        task = asyncio.ensure_future(work)
        signals = self._parts.signals
        signals.on_signal = lambda number: self._signalled(number, task.cancel)
        signals.deliver()
        try:
            return await task
        except asyncio.CancelledError:
            return None
        finally:
            signals.on_signal = None

    def _signalled(self, number: int, cancel: Callable[[], object]) -> None:
        """A signal while the loop runs: the first Ctrl+C stops the answer, all else ends the run."""
        if number == signal.SIGINT and not self._armed and self._parts.chat.stop():
            self._armed = True
            return
        self._left = number
        cancel()

    # Leaving

    def _contents(self) -> bytes:
        return self._parts.chat.history.encode() if self._parts.file is not None else b""

    def _save(self) -> None:
        """Write the history if something new was said; a disk that refuses is told of once, and asked again."""
        parts, contents = self._parts, self._contents()
        if parts.file is None or contents == self._saved:
            return
        moved = parts.file.moved
        try:
            parts.file.save(parts.chat.history)
        except QuantchatError as error:
            if not self._unsaved:
                parts.show.failed(error)
            self._unsaved = True
            return
        self._saved, self._unsaved = contents, False
        if parts.file.moved and not moved:
            self._lost = StorageError.exit_code
            parts.show.failed(_moved(parts.file))

    def _leave(self) -> None:
        """Save for the last time, elsewhere if need be."""
        file, show = self._parts.file, self._parts.show
        self._save()
        if file is None:
            return
        if not self._unsaved:
            if self._saved != self._begun:
                show.saved(file.path)
            return
        self._lost = StorageError.exit_code
        try:
            place = file.save_elsewhere(self._parts.chat.history)
        except QuantchatError as error:
            show.failed(error)
        else:
            show.failed(StorageError(f"{file.path} could not be written", f"what was said is kept in {place}"))

    async def _drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS if self._left else None):
                await self._parts.outlet.drained()


def _moved(file: HistoryFile) -> StorageError:
    return StorageError(
        "Somebody else has changed the history meanwhile",
        f"what was said here is kept in {file.path}",
        "Join the two by hand",
        code="history-changed",
    )
