"""What the user does to the tree of a session: change and ask again, walk versions, delete and undo, fork.

Each change is refused while a turn of the session runs or waits, or while another program writes it; turns of other
sessions do not matter. Each is saved at once.
"""

from __future__ import annotations

from quantchat.domain import tree
from quantchat.domain.chat import Deletion, Message, Session
from quantchat.errors import UsageError
from quantchat.services.archive import Archive
from quantchat.services.conversation import Conversation
from quantchat.services.facts import Listener, SessionChanged, SessionsChanged


class Branches:
    """Changes the trees of the sessions of an archive.

    Every method raises `UsageError` where the session is busy or has no such message, and `SessionLocked` where it
    cannot be written; nothing has changed then.
    """

    def __init__(self, archive: Archive, conversation: Conversation, listener: Listener) -> None:
        self._archive = archive
        self._conversation = conversation
        self._listen = listener

    # Asking

    def edit(self, session_id: str, message_id: str, text: str) -> Message:
        """Put a changed copy of a message beside it; a question is asked at once, an answer can be continued."""
        session, message = self.changeable(session_id, message_id)
        if message.role == "system":
            raise UsageError("Only prompts and answers can be changed")
        if message.role == "user":
            self._conversation.require_model()
        session.edits.pop(message_id, None)
        copy = tree.revise(session, message_id, text)
        if copy.role == "user":
            self._conversation.answer(session_id, copy.id)
        else:
            self._changed(session)
        return copy

    def begin(self, session_id: str, message_id: str | None, text: str) -> Message:
        """Let the model answer a question, or that of an answer, from words that the user gives it."""
        session, question = self._question(session_id, message_id)
        # A model writes a space together with the word behind it, and hardly ever two.
        words = text.rstrip(" \t")
        if not words.strip():
            raise UsageError("Write how the answer should begin")
        self._conversation.require_model()
        session.edits.pop(tree.BEGINNING + question.id, None)
        answer = tree.begin_answer(session, question.id, words)
        self._conversation.resume(session_id)
        return answer

    def again(self, session_id: str, message_id: str | None) -> None:
        """Add a version of an answer, or another answer to a question."""
        _, question = self._question(session_id, message_id)
        self._conversation.answer(session_id, question.id)

    def _question(self, session_id: str, message_id: str | None) -> tuple[Session, Message]:
        """Return the session and the question that a message is or answers; by default the last one."""
        session, _ = self.changeable(session_id, message_id)
        branch = session.branch(message_id)
        question = next((message for message in reversed(branch) if message.role == "user"), None)
        if question is None:
            raise UsageError("There is no question to answer yet", remedy="Type one and press Enter")
        return session, question

    # Looking

    def show(self, session_id: str, message_id: str) -> None:
        """Show the newest branch with a message, if none with it is shown; also in a session that is only read here."""
        read_only = self._archive.why_read_only(session_id) is not None
        # Reading it anew would show the branch that the other program shows.
        session = (self._archive.open_here(session_id) if read_only else None) or self._archive.open(session_id)
        if message_id not in session.messages:
            raise _gone()
        if all(message.id != message_id for message in session.branch()):
            self._conversation.require_idle(session_id)
            self._archive.turn(session_id, message_id)
            self._listen(SessionChanged(session=session_id))

    # Taking away

    def delete(self, session_id: str, message_id: str) -> Deletion:
        """Take a message and all below it away, until `undo` puts them back."""
        session, _ = self.changeable(session_id, message_id)
        deletion = tree.delete(session, message_id)
        self._changed(session)
        return deletion

    def undo(self, session_id: str) -> Deletion:
        """Put back what was deleted last."""
        session = self._writable(session_id)
        deletion = tree.undo(session)
        if deletion is None:
            raise UsageError("Nothing was deleted from this session that could come back")
        self._changed(session)
        return deletion

    def forget_deleted(self, session_id: str) -> int:
        """Drop for good what was deleted, and say how many messages that was."""
        session = self._writable(session_id)
        gone = [name for deletion in session.deleted for name in deletion.messages]
        session.deleted.clear()
        for name in gone:
            session.edits.pop(name, None)
            session.edits.pop(tree.BEGINNING + name, None)
        self._changed(session)
        return len(gone)

    # Forks

    def fork(self, session_id: str, message_id: str) -> Session:
        """Make a session of the messages down to one; also from a session that is busy or read-only."""
        session = self._archive.open(session_id)
        turn = self._conversation.turn_of(session_id)
        if message_id not in session.messages:
            raise _gone()
        if turn is not None and any(message is turn.message for message in session.branch(message_id)):
            raise UsageError("This answer is still being written", remedy="Press Esc to stop it first")
        new = self._archive.adopt(tree.fork(session, message_id))
        self._archive.save(new)
        self._listen(SessionsChanged())
        return new

    def _writable(self, session_id: str) -> Session:
        session = self._archive.open(session_id)
        self._conversation.require_idle(session_id)
        self._archive.require_writable(session_id)
        return session

    def changeable(self, session_id: str, message_id: str | None = None) -> tuple[Session, Message]:
        """Return a session if it may be changed now, and a message of it, by default the last that is shown."""
        session = self._writable(session_id)
        message = session.messages.get(message_id or session.head or "")
        if message is None:
            raise _gone() if message_id else UsageError("There is no message yet", remedy="Type one and press Enter")
        return session, message

    def _changed(self, session: Session) -> None:
        self._archive.save(session)
        self._listen(SessionChanged(session=session.id))
        self._listen(SessionsChanged())


def _gone() -> UsageError:
    return UsageError("This message is no longer there")
