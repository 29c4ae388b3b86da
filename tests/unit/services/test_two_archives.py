"""Sessions that are opened, saved and deleted by two parts of one program, or by two programs, at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from quantchat.domain.chat import Session
from quantchat.engine import protocol as p
from quantchat.errors import SessionLocked, StorageError
from quantchat.services.facts import Notice
from quantchat.store.sessions import SessionStore
from unit.services.turn_bench import Bench, asked


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path))
    return Bench()


async def answered(bench: Bench, question: str = "why") -> Session:
    session, turn = await asked(bench, question)
    bench.speak(turn, "because")
    bench.finish(turn.turn)
    await bench.archive.flush()
    return session


def names(bench: Bench) -> set[str]:
    return {path.name for path in bench.archive.store.root.iterdir()}


async def test_what_is_saved_after_a_session_was_deleted_does_not_bring_it_back(bench: Bench) -> None:
    session = await answered(bench)
    deleting = bench.archive.delete(session.id)
    await deleting
    session.title = "A title that a model made meanwhile"
    bench.archive.save(session)
    await bench.archive.flush()
    assert names(bench) == set()
    with pytest.raises(StorageError):
        bench.archive.open(session.id)
    assert await bench.archive.close() == []


@contextmanager
def slow_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Move no file of a deleted session before the block has ended."""
    delete, goes_on = bench.archive.store.delete, Event()

    def wait(session_id: str) -> None:
        assert goes_on.wait(30)
        delete(session_id)

    monkeypatch.setattr(bench.archive.store, "delete", wait)
    try:
        yield
    finally:
        goes_on.set()


async def test_a_session_that_is_being_deleted_cannot_be_opened_and_brought_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await answered(bench)
    await bench.archive.close()
    other = Bench()
    with slow_disk(other, monkeypatch):
        deleting = asyncio.create_task(other.archive.delete(session.id))
        await asyncio.sleep(0)
        assert await other.archive.summaries() == []
        with pytest.raises(StorageError) as refused:
            other.archive.rename(session.id, "Never mind")
    await deleting
    assert refused.value.report.code == "session-missing"
    await other.archive.close()
    assert names(other) == set()


async def test_an_answer_that_begins_while_its_session_is_being_deleted_leaves_no_journal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await answered(bench)
    with slow_disk(bench, monkeypatch):
        deleting = asyncio.create_task(bench.archive.delete(session.id))
        await asyncio.sleep(0)
        _, turn = bench.ask("and then", session)
        bench.speak(turn, "this")
    await deleting
    await bench.archive.flush()
    # As a kill would find it now.
    assert names(bench) == set()
    bench.finish(turn.turn)
    assert await bench.archive.close() == []


async def test_what_was_written_while_the_disk_refused_a_deletion_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await answered(bench)

    def refuse(session_id: str) -> None:
        raise StorageError("The disk is read-only", code="disk")

    monkeypatch.setattr(bench.archive.store, "delete", refuse)
    deleting = asyncio.create_task(bench.archive.delete(session.id))
    await asyncio.sleep(0)
    session.draft = "half a question"
    bench.archive.save(session)
    with pytest.raises(StorageError):
        await deleting
    await bench.archive.close()
    assert SessionStore().load(session.id).draft == "half a question"


async def test_a_session_that_came_back_from_the_trash_is_written_again(bench: Bench) -> None:
    session = await answered(bench)
    await bench.archive.delete(session.id)
    (kept,) = bench.archive.store.trash.iterdir()
    kept.rename(bench.archive.store.path(session.id))
    back = bench.archive.open(session.id)
    back.title = "Back"
    bench.archive.save(back)
    await bench.archive.close()
    assert SessionStore().load(session.id).title == "Back"


async def test_a_session_that_is_not_shown_any_more_is_free_for_others(bench: Bench) -> None:
    session = await answered(bench)
    other = Bench()
    assert other.archive.open(session.id)
    assert other.archive.why_read_only(session.id) is not None
    bench.archive.show(session.id)
    bench.archive.show("another")
    assert other.archive.open(session.id).title == session.title
    assert other.archive.why_read_only(session.id) is None
    other.archive.rename(session.id, "By the other")
    with pytest.raises(SessionLocked):
        bench.archive.save(session)
    await other.archive.close()
    assert bench.archive.open(session.id) is session
    assert session.title == "By the other"
    await bench.archive.close()


async def test_a_session_stays_here_while_it_is_answered(bench: Bench) -> None:
    session, turn = await asked(bench)
    bench.archive.show(session.id)
    bench.archive.show("another")
    assert bench.archive.locks.is_locked(session.id)
    bench.finish(turn.turn)
    await bench.archive.flush()
    assert not bench.archive.locks.is_locked(session.id)
    await bench.archive.close()


async def test_a_file_that_an_editor_changed_is_merged_and_said(bench: Bench) -> None:
    session = await answered(bench)
    path = bench.archive.store.path(session.id)
    path.write_text(path.read_text().replace('"because"', '"because of the kernel"'))
    bench.archive.rename(session.id, "Renamed")
    await bench.archive.flush()
    back = SessionStore().load(session.id)
    assert (back.title, back.branch()[-1].text) == ("Renamed", "because of the kernel")
    assert session.branch()[-1].text == "because of the kernel"
    assert [fact.report.code for fact in bench.facts if isinstance(fact, Notice)] == ["merged"]
    await bench.archive.close()


async def test_an_answer_goes_on_into_its_own_message_when_the_file_changes_under_it(bench: Bench) -> None:
    session, turn = await asked(bench)
    await bench.archive.flush()
    path = bench.archive.store.path(session.id)
    path.write_text(path.read_text().replace('"why"', '"why, exactly"'))
    bench.archive.rename(session.id, "Renamed")
    await bench.archive.flush()
    bench.engine.say(p.Delta(turn=turn.turn, text="because", tokens=1))
    bench.finish(turn.turn)
    await bench.archive.close()
    assert [message.text for message in SessionStore().load(session.id).branch()] == ["why, exactly", "because"]


async def test_a_file_that_another_deletes_is_written_again_by_who_has_it_open(bench: Bench) -> None:
    session = await answered(bench)
    bench.archive.store.path(session.id).unlink()
    bench.archive.rename(session.id, "Still here")
    await bench.archive.close()
    assert SessionStore().load(session.id).title == "Still here"


async def test_a_file_that_another_breaks_is_set_aside_and_written_again(bench: Bench) -> None:
    session = await answered(bench)
    bench.archive.store.path(session.id).write_text("{")
    bench.archive.rename(session.id, "Whole")
    await bench.archive.close()
    assert SessionStore().load(session.id).title == "Whole"
    assert [path.read_text() for path in bench.archive.store.quarantine.iterdir()] == ["{"]


async def test_a_file_that_a_newer_program_wrote_meanwhile_is_left_alone_and_what_is_here_kept_apart(
    bench: Bench,
) -> None:
    session = await answered(bench)
    path = bench.archive.store.path(session.id)
    path.write_text(path.read_text().replace('"version": 3', '"version": 4'))
    before = path.read_bytes()
    bench.archive.rename(session.id, "Mine")
    await bench.archive.flush()
    unsaved = bench.archive.unsaved(session.id)
    assert unsaved is not None
    assert unsaved.report.code == "session-newer"
    assert await bench.archive.close() == []
    assert path.read_bytes() == before
    (copy,) = (one for one in bench.archive.store.root.iterdir() if one != path)
    kept = SessionStore().load(copy.stem)
    assert (kept.title, [message.text for message in kept.branch()]) == ("Not saved: Mine", ["why", "because"])


async def test_what_another_holds_at_the_end_is_kept_apart(bench: Bench) -> None:
    session = await answered(bench)
    bench.archive.locks.path(session.id).unlink()
    other = Bench()
    other.archive.open(session.id)
    session.append("user", "written here at last")
    bench.archive.save(session)
    await bench.archive.flush()
    assert await bench.archive.close() == []
    await other.archive.close()
    texts = [[message.text for message in SessionStore().load(row.id).branch()] for row in SessionStore().list()]
    assert sorted(texts) == [["why", "because"], ["why", "because", "written here at last"]]
    assert {path.suffix for path in bench.archive.store.root.iterdir()} == {".json"}


async def test_quitting_writes_all_although_another_program_has_one_that_waits(bench: Bench) -> None:
    """An answer that is to be written again waits without a prompt; its session is free for others."""
    waits = await answered(bench, "answer me twice")
    busy, _ = bench.ask("keeps the engine busy")
    bench.conversation.regenerate(waits.id)
    bench.conversation.send(busy.id, "and this waits too")
    await bench.archive.flush()
    bench.archive.show(busy.id)
    other = Bench()
    other.archive.open(waits.id)
    assert other.archive.why_read_only(waits.id) is None
    bench.conversation.finish_now()
    assert await bench.archive.close() == []
    assert SessionStore().load(busy.id).draft == "and this waits too"
    await other.archive.close()


async def test_a_turn_that_cannot_start_leaves_no_trace_in_a_session_that_another_has_by_now(bench: Bench) -> None:
    waits = await answered(bench, "answer me twice")
    busy, turn = bench.ask("keeps the engine busy")
    bench.conversation.regenerate(waits.id)
    await bench.archive.flush()
    bench.archive.show(busy.id)
    other = Bench()
    other.archive.open(waits.id)
    bench.finish(turn.turn)
    assert bench.conversation.waiting == 0
    assert [message.text for message in waits.messages.values()] == ["answer me twice", "because"]
    assert "session-locked" in [fact.report.code for fact in bench.facts if isinstance(fact, Notice)]
    await bench.archive.close()
    await other.archive.close()
