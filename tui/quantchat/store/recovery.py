"""After a crash, a kill or a lost line: bring every answer back that had begun."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from quantchat import paths
from quantchat.domain.chat import SCHEMA, UNTITLED, Message, Session, title_from
from quantchat.errors import SessionLocked, SessionNewer, SessionUnreadable, StorageError
from quantchat.store.atomic import move_aside, sweep_temporaries, translate_os_error
from quantchat.store.journal import Replayed, replay_whole
from quantchat.store.locks import SessionLocks
from quantchat.store.sessions import SessionStore, check_id, newer_error

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
    for folder in _written_folders(store):
        sweep_temporaries(folder)
    _finish_imports(store)
    if not os.path.isdir(store.root):
        return recovered
    for session_id in _left_behind(store.root):
        try:
            with locks.acquire(session_id):
                recovered += fold_journal(store, session_id)
                _settle_file(store, session_id)
        except (SessionLocked, SessionNewer):
            continue
        except StorageError as error:
            store.problems.append(error.report)
    return recovered


def _finish_imports(store: SessionStore) -> None:
    from quantchat.store.exchange.staging import finish_imports

    try:
        finish_imports(store.root)
    except StorageError as error:
        store.problems.append(error.report)


def _written_folders(store: SessionStore) -> list[Path]:
    """The folders in which files are replaced, and a killed program leaves temporary ones."""
    state, config, cache = paths.state_file().parent, paths.config_file().parent, paths.cache_dir()
    return [folder for folder in (store.root, state, config, cache, cache / "sessions") if os.path.isdir(folder)]


def fold_journal(store: SessionStore, session_id: str) -> list[Recovered]:
    """Fold the journal of one session into its file and remove it. The caller holds the session's lock.

    Raises:
        SessionNewer: if a later quantchat wrote the one or the other.
        StorageError: if the session cannot be read or written; the journal then stays.
    """
    path = store.journal_path(session_id)
    try:
        found = replay_whole(path)
        if not found:
            _put_away(store, path)
            return []
        _require_known(path, found)
        session = _load_or_rebuild(store, session_id, found[0].answer)
        changed = [one.answer for one in found if fold(session, one.answer, one.question)]
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
        if one.id in session.messages
    ]


def _require_known(path: Path, found: tuple[Replayed, ...]) -> None:
    version = max(one.version for one in found)
    if version > SCHEMA:
        raise newer_error(path, version)


def fold(session: Session, answer: Message, question: Message | None = None) -> bool:
    """Put an answer from a journal into its session, unless the session has as much of it; tell whether it changed.

    What it answers is put back first, where the session never got to the disk with it.
    """
    if any(answer.id in deletion.messages for deletion in session.deleted):
        return False
    known = session.messages.get(answer.id)
    if known is None:
        return _add(session, answer, question)
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


def overlay(session: Session, journal: Path, *, running: bool) -> None:
    """Show the answers of a journal in a session that is not written from here; `running` while its writer lives."""
    with contextlib.suppress(OSError):
        overlay_answers(session, replay_whole(journal), running=running)


def overlay_answers(session: Session, found: tuple[Replayed, ...], *, running: bool) -> None:
    """Show answers that were read from a journal; otherwise as `overlay`."""
    for one in found:
        ended = one.answer.finish
        if fold(session, one.answer, one.question) and running and one.answer.id in session.messages:
            session.messages[one.answer.id].finish = ended


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


def _settle_file(store: SessionStore, session_id: str) -> None:
    """Mark an answer that was cut off before its journal began."""
    if os.path.exists(store.path(session_id)):
        session = store.load(session_id)
        if session.version <= SCHEMA and settle(session):
            store.save(session)


def _add(session: Session, answer: Message, question: Message | None) -> bool:
    asked = question is not None and _ask(session, answer, question)
    if not _length(answer):
        return asked
    if answer.parent not in session.messages:
        answer.parent = session.head
    answer.finish = answer.finish or "interrupted"
    _attach(session, answer)
    return True


def _ask(session: Session, answer: Message, question: Message) -> bool:
    """Put a question into a session that does not have it."""
    gone = any(question.id in deletion.messages for deletion in session.deleted)
    if question.id != answer.parent or question.id in session.messages or gone:
        return False
    if question.parent not in session.messages:
        question.parent = session.head
    _attach(session, question)
    if session.title == UNTITLED:
        session.title = title_from(question.text)
    if question.text in session.queued:
        session.queued.remove(question.text)
    return True


def _attach(session: Session, message: Message) -> None:
    # Whoever had turned to another branch before the crash stays there.
    if session.head == message.parent or session.head not in session.messages:
        session.head = message.id
    session.messages[message.id] = message
    session.updated = max(session.updated, message.created)


def _load_or_rebuild(store: SessionStore, session_id: str, answer: Message) -> Session:
    try:
        session = store.load(session_id)
    except SessionUnreadable as error:
        if os.path.exists(store.path(session_id)):
            raise
        store.problems.append(error.report)
    except StorageError as error:
        if error.report.code != "session-missing":
            raise
    else:
        if session.version > SCHEMA:
            raise newer_error(store.path(session_id), session.version)
        return session
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
