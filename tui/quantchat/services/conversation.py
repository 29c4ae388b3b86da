"""The turn state machine: sends prompts to the engine, keeps the answers, never loses a word.

Sessions are answered side by side, each by one turn at a time, and so many at once as the settings allow. A prompt that
must wait, for its session, for others or for a model, stands in a queue that is shown, and is kept in the session file
until it starts. What streams in is journaled at once and becomes part of the session when the turn ends, however it
ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quantchat.domain.chat import Message, RunCard, Session, new_id
from quantchat.domain.generation import FinishReason, SamplingOverrides, SamplingSettings, resolve_sampling
from quantchat.engine import protocol
from quantchat.engine.protocol import EngineExited
from quantchat.errors import QuantchatError, StorageError, UsageError
from quantchat.services.archive import Archive
from quantchat.services.facts import Listener, Notice, SessionChanged, SessionsChanged, WarmChanged
from quantchat.services.library import Library, Phase, exit_report
from quantchat.services.streams import Streams
from quantchat.services.turns import Backlog, Turn, Waiting, begin, run_card

PARALLEL_TURNS = 4


class Conversation:
    """Runs turns over the sessions of an archive.

    Args:
        archive: Where sessions are opened and saved.
        library: The engine, and the model that answers.
        listener: Told about every change.
        sampling: The user's own defaults; a session's overrides win over them, the model's recommendation does not.
        want_model: Called when a prompt waits and no model is there; loads the one that was used last, if any.
        parallel_turns: So many sessions are answered at once.
    """

    def __init__(
        self,
        archive: Archive,
        library: Library,
        listener: Listener,
        *,
        sampling: SamplingOverrides | None = None,
        want_model: Callable[[], bool] = lambda: False,
        parallel_turns: int = PARALLEL_TURNS,
    ) -> None:
        self._archive = archive
        self._library = library
        self._listen = listener
        self._sampling = sampling or SamplingOverrides()
        self._want_model = want_model
        self._parallel_turns = parallel_turns
        self._backlog = Backlog()
        self._streams = Streams(archive, listener)
        self._draining: dict[str, str] = {}
        self._warm: dict[str, protocol.WarmSession] = {}
        library.on_turn_event = self.on_event

    # What the screen asks for

    def send(self, session_id: str, text: str) -> None:
        """Ask a question: it starts at once, or waits its turn.

        Raises:
            UsageError: if there is no model and none to load.
            StorageError: if the session cannot be written; nothing is queued then.
        """
        session = self._archive.open(session_id)
        self._archive.require_writable(session_id)
        self.require_model()
        session.queued.append(text)
        try:
            self._archive.save(session)
        except StorageError:
            session.queued.pop()
            raise
        self._enqueue(session, Waiting(session_id, text))
        self._listen(SessionsChanged())

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
        self.answer(session_id, question.id)

    def answer(self, session_id: str, question: str) -> None:
        """Answer a question that stands in the session; answers that it has stay as siblings.

        Raises:
            UsageError: if the session is busy, or there is no model.
            StorageError: if the session cannot be written.
        """
        session = self._archive.open(session_id)
        self.require_idle(session_id)
        self.require_model()
        self._archive.save(session)
        self._enqueue(session, Waiting(session_id, parent=question))

    def resume(self, session_id: str) -> None:
        """Let the last answer go on where it was cut, in the same message.

        Raises:
            UsageError: if there is no such answer, or no model.
            StorageError: if the session cannot be written.
        """
        session = self._archive.open(session_id)
        self.require_idle(session_id)
        answer = session.unfinished()
        if answer is None:
            raise _nothing_to_resume(session)
        self.require_model()
        self._archive.save(session)
        self._enqueue(session, Waiting(session_id, resumed=answer.id))

    def _enqueue(self, session: Session, waiting: Waiting) -> None:
        self._backlog.add(waiting)
        self._changed(session)
        self.pump()

    def stop(self, session_id: str) -> bool:
        """Stop the session's answer, else take back its last waiting prompt into the draft; say if there was any."""
        turn = self._streams.of(session_id)
        if turn is not None:
            self._stop(turn)
            return True
        waiting = self._backlog.take_back(session_id)
        if waiting is None:
            return False
        session = self._archive.open(session_id)
        # Another program may have made a draft of it already.
        if waiting.prompt in session.queued:
            session.queued.remove(waiting.prompt)
            session.draft = "\n\n".join(part for part in (session.draft, waiting.prompt) if part)
        self._archive.save(session)
        self._changed(session)
        return True

    def stop_running(self) -> None:
        """Stop every answer; what waits goes on waiting."""
        for turn in self._streams:
            self._stop(turn)

    def stop_all(self) -> bool:
        """Stop every answer and make drafts of what waits; say if there was anything."""
        anything = self.busy or len(self._backlog) > 0
        self.return_waiting()
        self.stop_running()
        return anything

    def _stop(self, turn: Turn) -> None:
        if turn.stage != "stopping":
            turn.stage = "stopping"
            self._tell_engine(protocol.Stop(turn=turn.id))
            self._changed(turn.session)

    def keep(self, session_id: str) -> None:
        """Make a temporary session one that is kept, with the answer that it may be writing.

        Raises:
            StorageError: if it cannot be kept.
        """
        self._archive.keep(session_id)
        self._streams.keep(session_id)

    def forget(self, session_id: str) -> None:
        """Drop the turns of a session that is being deleted, and what the engine keeps of it."""
        self._backlog.drop(session_id)
        turn = self._streams.of(session_id)
        if turn is None:
            self._tell_engine(protocol.Forget(session=session_id))
            return
        # The engine keeps the cache of a turn that ends, so that it is told to forget after that.
        self._draining[turn.id] = session_id
        self._tell_engine(protocol.Stop(turn=turn.id))
        self._streams.end(turn, "stopped", turn.statistics())

    def finish_now(self) -> None:
        """End the running turns here and now because the program ends; texts are kept, what waits becomes drafts."""
        self.return_waiting()
        self._end_all("stopped")

    # What is going on

    @property
    def busy(self) -> bool:
        """Whether any session is being answered."""
        return len(self._streams) > 0

    @property
    def streaming(self) -> frozenset[str]:
        """The sessions that are being answered."""
        return frozenset(turn.session.id for turn in self._streams)

    def turn_of(self, session_id: str) -> Turn | None:
        """Return the running turn of a session."""
        return self._streams.of(session_id)

    def is_busy(self, session_id: str) -> bool:
        """Whether the session has a turn that runs or waits."""
        return session_id in self._streams or self._backlog.of(session_id) > 0

    def waiting_for(self, session_id: str) -> int:
        """Count the turns of a session that have not started."""
        return self._backlog.of(session_id)

    @property
    def waiting(self) -> int:
        """Count all turns that have not started."""
        return len(self._backlog)

    @property
    def warm(self) -> Mapping[str, protocol.WarmSession]:
        """The sessions whose KV caches the engine keeps for the loaded model."""
        return self._warm if self._library.phase is Phase.LOADED else {}

    # Turns

    def require_model(self) -> None:
        """Begin to load the model that was used last, if none is loaded.

        Raises:
            UsageError: if there is none to load.
        """
        if self._library.phase in (Phase.LOADED, Phase.LOADING) or self._want_model():
            return
        raise UsageError("No model is loaded", remedy="Choose one with Ctrl+L and Enter", code="no-model")

    def require_idle(self, session_id: str) -> None:
        """Refuse what changes a session while a turn of it runs or waits.

        Raises:
            UsageError: if one does.
        """
        if self.is_busy(session_id):
            raise UsageError("This session is still answering", remedy="Press Esc to stop it first")

    def pump(self) -> None:
        """Start waiting turns while a model is loaded and there is room for more."""
        while self._has_room() and (waiting := self._backlog.take(self._streams)) is not None:
            try:
                self._start(waiting)
            except QuantchatError as error:
                self._listen(Notice(report=error.report))

    def _has_room(self) -> bool:
        running = len(self._streams) + len(self._draining)
        return running < self._parallel_turns and self._library.phase is Phase.LOADED

    def _start(self, waiting: Waiting) -> None:
        session = self._archive.open(waiting.session)
        self._archive.require_writable(waiting.session)
        prompt, answer = begin(session, waiting)
        begun = answer if answer.finish is not None else None
        sampling = self.sampling_of(session)
        turn = Turn(id=new_id(), session=session, message=answer, begun=begun.statistics if begun else None)
        self._streams.begin(turn)
        resume = protocol.Partial(text=answer.text, thinking=answer.thinking) if begun else None
        answer.finish = answer.error = None
        answer.run = self._run_card(sampling)
        session.model = self._library.model.path if self._library.model else session.model
        self._archive.save(session)
        self._changed(session)
        self._listen(SessionsChanged())
        try:
            self._library.send(
                protocol.Generate(
                    turn=turn.id,
                    messages=prompt,
                    sampling=sampling,
                    session=session.id,
                    resume=resume,
                    template=session.template,
                )
            )
        except QuantchatError as error:
            self._streams.end(turn, "error", turn.statistics(), error.report)

    def sampling_of(self, session: Session) -> SamplingSettings:
        """The settings that the session's next answer is sampled with."""
        report = self._library.loaded
        recommended = report.recommended if report is not None else SamplingOverrides()
        return resolve_sampling(session.sampling, self._sampling, recommended)

    def _run_card(self, sampling: SamplingSettings) -> RunCard:
        ready = self._library.ready
        return run_card(self._library.model, self._library.loaded, ready.versions if ready else {}, sampling)

    def _tell_engine(self, command: protocol.Command) -> None:
        try:
            self._library.send(command)
        except QuantchatError:
            # The engine is gone; its exit ends the turns.
            return

    # What the engine says

    def on_event(self, event: protocol.Event | EngineExited) -> None:
        """Take an event of the engine; events of turns that are over are dropped."""
        match event:
            case EngineExited():
                self._on_exit(event)
            case protocol.Loaded():
                self.pump()
            case protocol.LoadFailed():
                self.return_waiting()
            case protocol.Warm():
                self._keep_warm(event)
            case protocol.Finished() | protocol.Failed() if event.turn in self._draining:
                self._tell_engine(protocol.Forget(session=self._draining.pop(event.turn)))
                self.pump()
            case protocol.Finished() | protocol.Failed():
                self._streams.on_event(event)
                self.pump()
            case protocol.Prefill() | protocol.Delta():
                self._streams.on_event(event)
            case _:
                return

    def _on_exit(self, event: EngineExited) -> None:
        self._draining.clear()
        self._keep_warm(protocol.Warm())
        if event.expected:
            self._end_all("stopped")
        else:
            self._end_all("error", event)
            self.return_waiting()

    def _end_all(self, reason: FinishReason, exited: EngineExited | None = None) -> None:
        for turn in self._streams:
            self._streams.end(turn, reason, turn.statistics(), exit_report(exited) if exited else None)

    def _keep_warm(self, event: protocol.Warm) -> None:
        self._warm = {warm.session: warm for warm in event.sessions}
        self._listen(WarmChanged())

    def return_waiting(self) -> None:
        """Give waiting prompts back as drafts: the model that they waited for will not come."""
        for session_id in self._backlog.clear():
            try:
                session = self._archive.open(session_id)
                session.restore_queued()
                self._archive.save(session)
            except StorageError as error:
                # Another program has it by now; that must not keep the others from being written.
                self._listen(Notice(report=error.report))
            else:
                self._changed(session)

    def _changed(self, session: Session) -> None:
        self._listen(SessionChanged(session=session.id))


def _nothing_to_resume(session: Session) -> UsageError:
    last = session.messages.get(session.head or "")
    if last is not None and last.role == "assistant" and last.finish == "stop":
        return UsageError("The last answer is complete", remedy="Ctrl+R writes another version of it")
    return UsageError("There is no answer to continue", remedy="Ctrl+R answers the last question again")


def label_of(message: Message) -> str:
    """Who wrote a message, in a word or a model's name."""
    if message.role == "user":
        return "you"
    return message.run.model if message.run and message.run.model else message.role
