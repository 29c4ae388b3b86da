"""Changing sessions that are open, that were left, and that nobody has open."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quantchat.domain.chat import SCHEMA, Session
from quantchat.errors import SessionLocked, SessionNewer, StorageError
from quantchat.services.amending import retitle
from quantchat.services.archive import Archive
from quantchat.services.facts import Fact, SessionChanged
from quantchat.store.journal import Journal
from quantchat.store.locks import SessionLocks
from quantchat.store.sessions import SessionStore


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session on the disk."""
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path))
    session = Session.new()
    session.append("user", "which river?")
    SessionStore().save(session)
    return session


@pytest.fixture
async def archive(stored: Session) -> AsyncIterator[Archive]:
    facts: list[Fact] = []
    archive = Archive(facts.append)
    archive.told = facts  # type: ignore[attr-defined]
    yield archive
    await archive.close()


def pin(session: Session) -> None:
    session.pinned = True


async def test_one_that_is_not_open_stays_so(stored: Session, archive: Archive) -> None:
    await archive.amend(stored.id, pin)
    found = SessionStore().load(stored.id)
    assert found.pinned
    assert found.updated == stored.updated, "its place in the list stays"
    assert archive.open_here(stored.id) is None
    with SessionLocks().acquire(stored.id):
        pass


async def test_one_that_is_open_is_changed_in_memory_and_on_the_disk(stored: Session, archive: Archive) -> None:
    session = archive.open(stored.id)
    await archive.amend(stored.id, pin)
    assert session.pinned
    assert SessionChanged(session=stored.id) in archive.told  # type: ignore[attr-defined]
    await archive.flush()
    assert SessionStore().load(stored.id).pinned


async def test_one_that_was_left_keeps_what_others_wrote_since(stored: Session, archive: Archive) -> None:
    archive.show(archive.open(stored.id).id)
    archive.show(archive.new().id)
    other = SessionStore().load(stored.id)
    other.append("assistant", "The Seine.")
    SessionStore().save(other)
    await archive.amend(stored.id, pin)
    await archive.flush()
    found = SessionStore().load(stored.id)
    assert found.pinned
    assert [message.text for message in found.branch()] == ["which river?", "The Seine."]


async def test_an_answer_that_only_the_journal_has_is_not_lost(stored: Session, archive: Archive) -> None:
    answer = stored.append("assistant", "")
    journal = Journal(SessionStore().journal_path(stored.id), answer)
    journal.append("The Sei")
    journal.close()
    await archive.amend(stored.id, pin)
    found = SessionStore().load(stored.id)
    assert (found.branch()[-1].text, found.branch()[-1].finish, found.pinned) == ("The Sei", "interrupted", True)


async def test_what_another_program_holds_is_refused(stored: Session, archive: Archive) -> None:
    with SessionLocks().acquire(stored.id), pytest.raises(SessionLocked):
        await archive.amend(stored.id, pin)
    assert not SessionStore().load(stored.id).pinned


async def test_what_a_later_quantchat_wrote_is_left_alone(stored: Session, archive: Archive) -> None:
    path = SessionStore().path(stored.id)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": SCHEMA + 1}))
    before = path.read_bytes()
    with pytest.raises(SessionNewer):
        await archive.amend(stored.id, pin)
    assert path.read_bytes() == before


async def test_one_that_is_gone_says_so(stored: Session, archive: Archive) -> None:
    SessionStore().path(stored.id).unlink()
    with pytest.raises(StorageError, match="no such session"):
        await archive.amend(stored.id, pin)


def test_a_title_of_white_space_is_none() -> None:
    session = Session.new()
    retitle(session, " \n ")
    assert (session.title, session.named_by) == ("New session", "rule")
    retitle(session, "  a \n b ")
    assert (session.title, session.named_by) == ("a b", "user")
