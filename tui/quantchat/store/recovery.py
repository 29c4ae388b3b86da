"""After a crash, a kill or a lost line: bring every answer back that had begun."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from quantchat.domain.chat import Message, Session
from quantchat.errors import SessionLocked, SessionUnreadable, StorageError
from quantchat.store.atomic import move_aside, sweep_temporaries, translate_os_error
from quantchat.store.journal import replay
from quantchat.store.locks import SessionLocks
from quantchat.store.sessions import SessionStore, check_id

RECOVERED_TITLE = "Recovered answer"


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that was brought back.

    Attributes:
        characters: Length of its text and thinking.
        title: Of its session.
    """

    session_id: str
    message_id: str
    title: str
    characters: int


def recover(store: SessionStore, locks: SessionLocks) -> list[Recovered]:
    """Fold in the journals of sessions that no live process writes, and clear what dead writers left.

    Doing it twice changes nothing. What fails goes to `store.problems` and is tried again at the next start.
    """
    recovered: list[Recovered] = []
    if not os.path.isdir(store.root):
        return recovered
    sweep_temporaries(store.root)
    for session_id in _left_behind(store.root):
        try:
            with locks.acquire(session_id):
                recovered += fold_journal(store, session_id)
        except SessionLocked:
            continue
        except StorageError as error:
            store.problems.append(error.report)
    return recovered


def fold_journal(store: SessionStore, session_id: str) -> list[Recovered]:
    """Fold the journal of one session into its file and remove it. The caller holds the session's lock.

    Raises:
        StorageError: if the session cannot be read or written; the journal then stays.
    """
    path = store.journal_path(session_id)
    try:
        answers = replay(path)
        if not answers:
            _put_away(store, path)
            return []
        session = _load_or_rebuild(store, session_id, answers[0])
        changed = [answer for answer in answers if fold(session, answer)]
        if changed:
            store.save(session)
        path.unlink()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise translate_os_error(error, path) from error
    return [
        Recovered(session_id=session_id, message_id=one.id, title=session.title, characters=_length(one))
        for one in changed
    ]


def fold(session: Session, answer: Message) -> bool:
    """Put an answer from a journal into its session, unless the session has as much of it; tell whether it changed."""
    known = session.messages.get(answer.id)
    if known is None:
        return _add(session, answer)
    more_text, more_thinking = len(answer.text) > len(known.text), len(answer.thinking) > len(known.thinking)
    if known.finish is not None and not more_text and not more_thinking:
        return False
    if more_text:
        known.text = answer.text
    if more_thinking:
        known.thinking = answer.thinking
    known.finish = answer.finish or "interrupted"
    known.statistics = answer.statistics or known.statistics
    session.updated = max(session.updated, answer.created)
    return True


def _length(answer: Message) -> int:
    return len(answer.text) + len(answer.thinking)


def settle(session: Session) -> bool:
    """Mark answers that nobody is writing any more as interrupted; tell whether there were any.

    Only for a session whose lock the caller holds, and before a new answer starts.
    """
    unfinished = [m for m in session.messages.values() if m.role == "assistant" and m.finish is None]
    for message in unfinished:
        message.finish = "interrupted"
    return bool(unfinished)


def _add(session: Session, answer: Message) -> bool:
    if not _length(answer):
        return False
    if answer.parent not in session.messages:
        answer.parent = session.head
    # Whoever had turned to another branch before the crash stays there.
    if session.head == answer.parent or session.head not in session.messages:
        session.head = answer.id
    answer.finish = answer.finish or "interrupted"
    session.messages[answer.id] = answer
    session.updated = max(session.updated, answer.created)
    return True


def _load_or_rebuild(store: SessionStore, session_id: str, answer: Message) -> Session:
    try:
        return store.load(session_id)
    except SessionUnreadable as error:
        if error.report.code == "session-newer" or os.path.exists(store.path(session_id)):
            raise
        store.problems.append(error.report)
    except StorageError as error:
        if error.report.code != "session-missing":
            raise
    return Session(id=session_id, title=RECOVERED_TITLE, created=answer.created, updated=answer.created)


def _put_away(store: SessionStore, path: Path) -> None:
    if path.stat().st_size:
        kept = move_aside(path, store.quarantine)
        problem = SessionUnreadable("A journal does not parse", f"{path.name} holds no answer. It was moved to {kept}")
        store.problems.append(problem.report)
    else:
        path.unlink()


def _left_behind(root: Path) -> list[str]:
    """Ids that have a journal, or a lock file of a process that may be gone."""
    found = {path.stem for suffix in ("journal", "lock") for path in root.glob(f"*.{suffix}")}
    ids = []
    for name in sorted(found):
        with contextlib.suppress(StorageError):
            ids.append(check_id(name))
    return ids
