"""The answers that stream, one per session: each has its journal, grows by what the engine says, and ends once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from quantchat.domain.chat import Message
from quantchat.domain.generation import FinishReason, TurnStatistics
from quantchat.engine import protocol
from quantchat.errors import ErrorReport
from quantchat.services.archive import Archive
from quantchat.services.facts import Listener, SessionChanged, SessionsChanged, TextArrived, TurnProgress
from quantchat.services.turns import Turn

if TYPE_CHECKING:
    from quantchat.store.journal import Journal

TurnEvent = protocol.Prefill | protocol.Delta | protocol.Finished | protocol.Failed


class Streams:
    """The running turns by session. Events of turns that are over, or were never here, change nothing."""

    def __init__(self, archive: Archive, listener: Listener) -> None:
        self._archive = archive
        self._listen = listener
        self._turns: dict[str, Turn] = {}
        self._journals: dict[str, Journal] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._turns

    def __iter__(self) -> Iterator[Turn]:
        """The turns, in the order in which they began; they may end meanwhile."""
        return iter(list(self._turns.values()))

    def of(self, session_id: str) -> Turn | None:
        """Return the turn of a session."""
        return self._turns.get(session_id)

    def begin(self, turn: Turn) -> None:
        """Open the journal of a turn's answer, and take what the engine says of it from now on.

        Raises:
            SessionLocked: if another process writes the session.
        """
        self._begin_journal(turn, turn.message)
        self._turns[turn.session.id] = turn

    def _begin_journal(self, turn: Turn, message: Message) -> None:
        journal = self._archive.journal(turn.session, message)
        if journal is not None:
            self._journals[turn.session.id] = journal

    def keep(self, session_id: str) -> None:
        """Write down from now on what streams in a session that was temporary, with what was said until now."""
        turn = self._turns.get(session_id)
        if turn is not None:
            said = msgspec.structs.replace(turn.message, text=turn.text, thinking=turn.thinking)
            self._begin_journal(turn, said)

    def on_event(self, event: TurnEvent) -> None:
        """Take what the engine says of a turn."""
        turn = next((turn for turn in self._turns.values() if turn.id == event.turn), None)
        if turn is None:
            return
        match event:
            case protocol.Delta():
                self._on_text(turn, event)
            case protocol.Prefill():
                turn.read(event.done, event.total, event.reused, event.dropped)
                self._listen(TurnProgress(session=turn.session.id))
            case protocol.Finished():
                self.end(turn, event.reason, event.statistics)
            case protocol.Failed():
                self.end(turn, "error", turn.statistics(), event.error)

    def _on_text(self, turn: Turn, event: protocol.Delta) -> None:
        turn.take(event.text, event.tokens, event.channel)
        if event.text:
            session, message = turn.session.id, turn.message.id
            if (journal := self._journals.get(session)) is not None:
                journal.append(event.text, event.channel)
            self._listen(TextArrived(session=session, message=message, text=event.text, channel=event.channel))

    def end(
        self, turn: Turn, reason: FinishReason, statistics: TurnStatistics, error: ErrorReport | None = None
    ) -> None:
        """End a turn: what it said becomes the session's."""
        message, session = turn.message, turn.session
        del self._turns[session.id]
        journal = self._journals.pop(session.id, None)
        message.text, message.thinking, message.finish = turn.text, turn.thinking, reason
        message.statistics, message.error = statistics.after(turn.begun), error
        session.touch()
        self._archive.finish(session, message, journal)
        self._listen(SessionChanged(session=session.id, answered=True))
        self._listen(SessionsChanged())
