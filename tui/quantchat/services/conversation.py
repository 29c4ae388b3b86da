"""The turn state machine: sends prompts to the engine, keeps the answers, never loses a word.

One engine answers one turn at a time. A prompt that is sent while it is busy, or while a model loads, waits in a queue
that is shown, and is kept in the session file until it starts. What streams in is journaled at once and becomes part of
the session when the turn ends, however it ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from quantchat.domain.chat import Message, RunCard, Session, new_id, utc_now
from quantchat.domain.generation import (
    FinishReason,
    SamplingOverrides,
    SamplingSettings,
    TurnStatistics,
    resolve_sampling,
)
from quantchat.engine import protocol
from quantchat.engine.protocol import EngineExited
from quantchat.errors import ErrorReport, QuantchatError, StorageError, UsageError
from quantchat.services.archive import Archive
from quantchat.services.facts import Listener, Notice, SessionChanged, SessionsChanged, TextArrived, TurnProgress
from quantchat.services.library import Library, Phase, exit_report
from quantchat.services.turns import Turn, Waiting

if TYPE_CHECKING:
    from quantchat.store.journal import Journal


class Conversation:
    """Runs turns over the sessions of an archive.

    Args:
        archive: Where sessions are opened and saved.
        library: The engine, and the model that answers.
        listener: Told about every change.
        sampling: The user's own defaults; a session's overrides win over them, the model's recommendation does not.
        want_model: Called when a prompt waits and no model is there; loads the one that was used last, if any.
    """

    def __init__(
        self,
        archive: Archive,
        library: Library,
        listener: Listener,
        *,
        sampling: SamplingOverrides | None = None,
        want_model: Callable[[], bool] = lambda: False,
    ) -> None:
        self._archive = archive
        self._library = library
        self._listen = listener
        self._sampling = sampling or SamplingOverrides()
        self._want_model = want_model
        self._waiting: deque[Waiting] = deque()
        self._journal: Journal | None = None
        self._draining: str | None = None
        self.active: Turn | None = None
        library.on_turn_event = self.on_event

    # What the screen asks for

    def send(self, session_id: str, text: str) -> None:
        """Ask a question: it starts at once, or waits its turn.

        Raises:
            UsageError: if there is no model and none to load.
            StorageError: if the session cannot be written; nothing is queued then.
        """
        session = self._archive.open(session_id)
        self._require_model()
        session.queued.append(text)
        try:
            self._archive.save(session)
        except StorageError:
            session.queued.pop()
            raise
        self._waiting.append(Waiting(session_id, text))
        self._changed(session)
        self._listen(SessionsChanged())
        self.pump()

    def regenerate(self, session_id: str) -> None:
        """Write another version of the last answer; the earlier one stays as its sibling.

        Raises:
            UsageError: if there is no question to answer, or no model.
            StorageError: if the session cannot be written.
        """
        session = self._archive.open(session_id)
        question = next((m for m in reversed(session.branch()) if m.role == "user"), None)
        if question is None:
            raise UsageError("There is no question to answer yet", remedy="Type one and press Enter")
        if self.is_busy(session_id):
            raise UsageError("This session is still answering", remedy="Press Esc to stop it first")
        self._require_model()
        self._archive.save(session)
        self._waiting.append(Waiting(session_id, None, parent=question.id))
        self._changed(session)
        self.pump()

    def stop(self, session_id: str) -> bool:
        """Stop the session's answer, else take back its last waiting prompt into the draft; say if there was any."""
        turn = self.active
        if turn is not None and turn.session.id == session_id:
            if turn.stage != "stopping":
                turn.stage = "stopping"
                self._tell_engine(protocol.Stop(turn=turn.id))
                self._changed(turn.session)
            return True
        waiting = next((w for w in reversed(self._waiting) if w.session == session_id), None)
        if waiting is None:
            return False
        self._waiting.remove(waiting)
        session = self._archive.open(session_id)
        if waiting.prompt is not None:
            session.queued.remove(waiting.prompt)
            session.draft = "\n\n".join(part for part in (session.draft, waiting.prompt) if part)
        self._archive.save(session)
        self._changed(session)
        return True

    def is_busy(self, session_id: str) -> bool:
        """Whether the session has a turn that runs or waits."""
        running = self.active is not None and self.active.session.id == session_id
        return running or any(waiting.session == session_id for waiting in self._waiting)

    def waiting_for(self, session_id: str) -> int:
        """Count the turns of a session that have not started."""
        return sum(waiting.session == session_id for waiting in self._waiting)

    @property
    def waiting(self) -> int:
        """Count all turns that have not started."""
        return len(self._waiting)

    def forget(self, session_id: str) -> None:
        """Drop the turns of a session that is being deleted."""
        self._waiting = deque(waiting for waiting in self._waiting if waiting.session != session_id)
        if self.active is not None and self.active.session.id == session_id:
            # Until the engine has let go of the turn, it would refuse the next one as busy.
            self._draining = self.active.id
            self._tell_engine(protocol.Stop(turn=self.active.id))
            self._end("stopped", None, None)

    def finish_now(self) -> None:
        """End the running turn here and now because the program ends; its text is kept, what waits becomes drafts."""
        self.return_waiting()
        if self.active is not None:
            self._end("stopped", self.active.statistics(), None)

    # Turns

    def _require_model(self) -> None:
        if self._library.phase in (Phase.LOADED, Phase.LOADING) or self._want_model():
            return
        raise UsageError("No model is loaded", remedy="Choose one with Ctrl+L and Enter", code="no-model")

    def pump(self) -> None:
        """Start the next waiting turn if the engine is free and a model is loaded."""
        while self._free() and self._waiting and self._library.phase is Phase.LOADED:
            waiting = self._waiting.popleft()
            try:
                self._start(waiting)
            except QuantchatError as error:
                self._listen(Notice(report=error.report))

    def _free(self) -> bool:
        return self.active is None and self._draining is None

    def _start(self, waiting: Waiting) -> None:
        session = self._archive.open(waiting.session)
        if waiting.prompt is not None:
            session.queued.remove(waiting.prompt)
            session.append("user", waiting.prompt)
            prompt = session.prompt()
            question = session.head
        else:
            prompt = session.prompt(waiting.parent)
            question = waiting.parent
        sampling = self._sampling_of(session)
        answer = session.append("assistant", "", parent=question)
        answer.run = self._run_card(sampling)
        session.model = self._library.model.path if self._library.model else session.model
        self._journal = self._archive.journal(session, answer)
        self.active = turn = Turn(id=new_id(), session=session, message=answer)
        self._archive.save(session)
        self._changed(session)
        self._listen(SessionsChanged())
        try:
            self._library.send(protocol.Generate(turn=turn.id, messages=prompt, sampling=sampling))
        except QuantchatError as error:
            self._end("error", turn.statistics(), error.report)

    def _sampling_of(self, session: Session) -> SamplingSettings:
        report = self._library.loaded
        recommended = report.recommended if report is not None else SamplingOverrides()
        return resolve_sampling(session.sampling, self._sampling, recommended)

    def _run_card(self, sampling: SamplingSettings) -> RunCard:
        model, report = self._library.model, self._library.loaded
        return RunCard(
            model=model.name if model else "",
            path=model.path if model else "",
            quantization=model.quant.label() if model else "",
            kernel=report.kernel if report else "",
            device=report.device if report else "",
            sampling=sampling,
        )

    def _tell_engine(self, command: protocol.Command) -> None:
        try:
            self._library.send(command)
        except QuantchatError:
            # The engine is gone; its exit ends the turn.
            return

    # What the engine says

    def on_event(self, event: protocol.Event | EngineExited) -> None:
        """Take an event of the engine; events of turns that are over are dropped."""
        turn = self.active
        match event:
            case EngineExited():
                self._on_exit(turn, event)
            case protocol.Finished() | protocol.Failed() if event.turn == self._draining:
                self._draining = None
                self.pump()
            case protocol.Loaded():
                self.pump()
            case protocol.LoadFailed():
                self.return_waiting()
            case protocol.Delta() if turn is not None and event.turn == turn.id:
                self._on_text(turn, event)
            case protocol.Prefill() if turn is not None and event.turn == turn.id:
                turn.prefill_done, turn.prompt_tokens = event.done, event.total
                self._listen(TurnProgress(session=turn.session.id))
            case protocol.Finished() if turn is not None and event.turn == turn.id:
                self._end(event.reason, event.statistics, None)
            case protocol.Failed() if turn is not None and event.turn == turn.id:
                self._end("error", turn.statistics(), event.error)
            case _:
                return

    def _on_exit(self, turn: Turn | None, event: EngineExited) -> None:
        self._draining = None
        if turn is not None:
            reason: FinishReason = "stopped" if event.expected else "error"
            self._end(reason, turn.statistics(), None if event.expected else exit_report(event))
        if not event.expected:
            self.return_waiting()

    def _on_text(self, turn: Turn, event: protocol.Delta) -> None:
        turn.take(event.text, event.tokens, event.channel)
        if event.text:
            if self._journal is not None:
                self._journal.append(event.text, event.channel)
            session, message = turn.session.id, turn.message.id
            self._listen(TextArrived(session=session, message=message, text=event.text, channel=event.channel))

    def _end(self, reason: FinishReason, statistics: TurnStatistics | None, error: ErrorReport | None) -> None:
        turn, self.active = self.active, None
        assert turn is not None
        journal, self._journal = self._journal, None
        message, session = turn.message, turn.session
        message.text, message.thinking, message.finish = turn.text, turn.thinking, reason
        message.statistics, message.error = statistics, error
        session.updated = utc_now()
        self._archive.finish(session, message, journal)
        self._changed(session)
        self._listen(SessionsChanged())
        self.pump()

    def return_waiting(self) -> None:
        """Give waiting prompts back as drafts: the model that they waited for will not come."""
        waiting, self._waiting = self._waiting, deque()
        for session_id in dict.fromkeys(item.session for item in waiting):
            session = self._archive.open(session_id)
            session.restore_queued()
            self._archive.save(session)
            self._changed(session)

    def _changed(self, session: Session) -> None:
        self._listen(SessionChanged(session=session.id))


def label_of(message: Message) -> str:
    """Who wrote a message, in a word or a model's name."""
    if message.role == "user":
        return "you"
    return message.run.model if message.run and message.run.model else message.role
