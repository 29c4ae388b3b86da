"""What waited, or was deleted, while something else happened to the session, its lock or its file."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quantchat.domain.chat import Session
from quantchat.errors import StorageError
from quantchat.services.amending import retitle
from quantchat.services.branches import Branches
from quantchat.services.facts import Notice
from quantchat.store.locks import SessionLocks
from quantchat.store.recovery import recover
from quantchat.store.sessions import SessionStore
from unit.services.turn_bench import Bench


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path))
    bench = Bench()
    await bench.load()
    yield bench
    await bench.archive.close()


async def answered(bench: Bench, question: str = "why") -> Session:
    session, turn = bench.ask(question)
    bench.speak(turn, "because")
    bench.finish(turn.turn)
    await bench.archive.flush()
    return session


def branches(bench: Bench) -> Branches:
    return Branches(bench.archive, bench.conversation, bench.facts.append)


def told(bench: Bench) -> list[str]:
    return [fact.report.title for fact in bench.facts if isinstance(fact, Notice)]


def refuse(*_: object, **__: object) -> None:
    raise StorageError("The disk is full", "no room", "Free some", code="disk-full")


# A disk that fails


async def test_what_the_disk_took_before_it_failed_is_known_behind_further_failures(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await answered(bench)
    write = bench.archive.store.write

    def fail_late(*what: object, **how: object) -> None:
        write(*what, **how)  # type: ignore[arg-type]
        refuse()

    for draft, put in (("first", fail_late), ("second", refuse), ("third", write)):
        monkeypatch.setattr(bench.archive.store, "write", put)
        session.draft = draft
        bench.archive.save(session)
        await bench.archive.flush()
    assert SessionStore().load(session.id).draft == session.draft == "third"


# Deleted and forgotten words


async def test_a_lock_file_that_vanished_does_not_bring_deleted_words_back(bench: Bench) -> None:
    session = await answered(bench)
    answer = session.head or ""
    bench.archive.locks.path(session.id).unlink()
    branches(bench).delete(session.id, answer)
    await bench.archive.flush()
    stored = SessionStore().load(session.id)
    assert (list(stored.messages), len(stored.deleted)) == ([session.head], 1)
    bench.archive.locks.path(session.id).unlink()
    branches(bench).forget_deleted(session.id)
    await bench.archive.flush()
    assert SessionStore().load(session.id).deleted == session.deleted == []
    assert bench.archive.locks.is_locked(session.id)
    assert told(bench) == []


async def test_a_session_whose_messages_were_all_deleted_waits_for_the_undo(bench: Bench) -> None:
    """Its title is that of a new one, so that nothing but the deletion tells it from one."""
    session = await answered(bench, "New session")
    branches(bench).delete(session.id, next(iter(session.messages)))
    assert not bench.archive.is_bare(session)
    await bench.archive.flush()
    assert len(SessionStore().load(session.id).deleted) == 1


async def test_a_deleted_session_that_had_a_journal_only_does_not_come_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bench.archive.store, "write", refuse)
        session, turn = bench.ask("a question that the disk has no room for")
        bench.speak(turn, "an answer")
        journal = bench.archive.store.journal_path(session.id)
        await bench.until(lambda: journal.exists() and b"an answer" in journal.read_bytes())
        bench.conversation.forget(session.id)
        await bench.archive.delete(session.id)
    assert [path.name for path in bench.archive.store.trash.iterdir()] == [journal.name]
    assert recover(SessionStore(), SessionLocks()) == []
    assert SessionStore().list() == []


async def test_a_session_that_could_not_be_deleted_is_free_for_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await answered(bench)
    other = Bench()
    await bench.archive.close()
    monkeypatch.setattr(other.archive.store, "delete", refuse)
    with pytest.raises(StorageError):
        await other.archive.delete(session.id)
    assert not other.archive.locks.is_locked(session.id)
    await other.archive.close()


async def test_a_change_that_waited_for_the_disk_is_made_in_the_session_that_was_opened_meanwhile(bench: Bench) -> None:
    session = await answered(bench)
    other = Bench()
    await bench.archive.close()
    held = other.archive.new()
    held.draft, busy = "written first", threading.Event()
    other.archive.store.write = lambda *_, **__: busy.wait() and ()  # type: ignore[method-assign, assignment, return-value]
    other.archive.save(held)
    naming = asyncio.ensure_future(other.archive.amend(session.id, lambda one: retitle(one, "Renamed")))
    await asyncio.sleep(0)
    opened = other.archive.open(session.id)
    del other.archive.store.write
    busy.set()
    await naming
    assert opened.title == "Renamed"
    await other.archive.close()
    assert SessionStore().load(session.id).title == "Renamed"


# Turns that waited


async def elsewhere(session: Session, message: str) -> None:
    """Let another program delete a message."""
    other = Bench()
    other.archive.open(session.id)
    branches(other).delete(session.id, message)
    await other.archive.close()


@pytest.mark.parametrize("resumed", [True, False])
async def test_a_turn_whose_message_another_program_deleted_is_given_up(bench: Bench, resumed: bool) -> None:
    waits = await answered(bench)
    question, answer = waits.messages.values()
    answer.finish = "stopped"
    _, turn = bench.ask("keeps the engine busy")
    (bench.conversation.resume if resumed else bench.conversation.regenerate)(waits.id)
    await bench.archive.flush()
    bench.archive.show("another")
    await elsewhere(waits, (answer if resumed else question).id)
    sent = len(bench.engine.turns())
    bench.finish(turn.turn)
    assert (bench.conversation.waiting, len(bench.engine.turns())) == (0, sent)
    assert told(bench) == ["The message to go on from was deleted while this waited"]


@pytest.mark.parametrize("stopped", [True, False])
async def test_a_prompt_that_another_program_made_a_draft_of_starts_or_stops_all_the_same(
    bench: Bench, stopped: bool
) -> None:
    _, turn = bench.ask("keeps the engine busy")
    waits = bench.archive.new()
    bench.conversation.send(waits.id, "wait for me")
    await bench.archive.flush()
    # Without its file the lock keeps nobody out.
    bench.archive.locks.path(waits.id).unlink()
    other = Bench()
    other.archive.save(other.archive.open(waits.id))
    await other.archive.close()
    waits.title = "Changed here too"
    bench.archive.save(waits)
    await bench.archive.flush()
    await asyncio.sleep(0)
    assert (waits.queued, waits.draft) == ([], "wait for me")
    if stopped:
        assert bench.conversation.stop(waits.id)
        assert waits.draft == "wait for me"
    else:
        bench.finish(turn.turn)
        assert bench.engine.turns()[-1].messages[-1].content == "wait for me"
