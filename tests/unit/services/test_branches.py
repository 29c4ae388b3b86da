"""Versions, branches, deletions and forks while sessions are answered, held by others, or written to disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from quantchat.domain.chat import Message, Session
from quantchat.engine import protocol as p
from quantchat.errors import ErrorReport, SessionLocked, UsageError
from quantchat.services.archive import Archive
from quantchat.services.branches import Branches
from quantchat.services.facts import SessionChanged
from quantchat.store.sessions import SessionStore
from unit.services.turn_bench import MODEL, Bench


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path))
    bench = Bench()
    await bench.load()
    return bench


def branches(bench: Bench) -> Branches:
    return Branches(bench.archive, bench.conversation, bench.facts.append)


def talk(bench: Bench, *questions: str, session: Session | None = None) -> Session:
    """Ask questions, each answered with `to` and the question."""
    for question in questions:
        session, turn = bench.ask(question, session)
        bench.speak(turn, f"to {question}")
        bench.finish(turn.turn)
    assert session is not None
    return session


def find(session: Session, text: str) -> Message:
    return next(message for message in session.messages.values() if message.text == text)


def shown(session: Session) -> list[str]:
    return [message.text for message in session.branch()]


def sent(bench: Bench) -> list[str]:
    return [message.content for message in bench.engine.turns()[-1].messages]


def stored(session: Session) -> Session:
    return SessionStore().load(session.id)


async def test_a_changed_question_is_asked_in_place_of_the_first(bench: Bench) -> None:
    session = talk(bench, "one", "two")
    copy = branches(bench).edit(session.id, find(session, "two").id, "2")
    assert sent(bench) == ["one", "to one", "2"]
    turn = bench.engine.turns()[-1]
    bench.speak(turn, "to 2")
    bench.finish(turn.turn)
    assert shown(session) == ["one", "to one", "2", "to 2"]
    assert (copy.edited_from, len(session.messages)) == (find(session, "two").id, 6)
    await bench.archive.flush()
    assert shown(stored(session)) == shown(session)
    branches(bench).show(session.id, find(session, "two").id)
    assert shown(session) == ["one", "to one", "two", "to two"]
    await bench.archive.flush()
    assert shown(stored(session)) == shown(session)
    await bench.archive.close()


async def test_the_first_question_too_can_be_changed(bench: Bench) -> None:
    session = talk(bench, "one", "two")
    branches(bench).edit(session.id, find(session, "one").id, "1")
    assert sent(bench) == ["1"]
    bench.finish(bench.engine.turns()[-1].turn)
    assert [message.text for message in session.siblings(find(session, "1").id)] == ["one", "1"]
    await bench.archive.close()


async def test_a_changed_question_stays_when_the_model_that_it_waits_for_does_not_come(bench: Bench) -> None:
    session = talk(bench, "one")
    await bench.library.load(msgspec.structs.replace(MODEL, path="/models/other"))
    command = bench.engine.sent[-1]
    assert isinstance(command, p.Load)
    branches(bench).edit(session.id, find(session, "one").id, "1")
    assert bench.conversation.waiting_for(session.id) == 1
    bench.engine.say(p.LoadFailed(request=command.request, error=ErrorReport(code="x", title="no")))
    assert not bench.conversation.is_busy(session.id)
    assert shown(session) == ["1"]
    await bench.archive.flush()
    assert shown(stored(session)) == ["1"]
    await bench.archive.close()


async def test_a_changed_answer_goes_on_from_where_the_user_left_it(bench: Bench) -> None:
    session = talk(bench, "one")
    copy = branches(bench).edit(session.id, find(session, "to one").id, "to one, and")
    assert len(bench.engine.turns()) == 1
    bench.conversation.resume(session.id)
    turn = bench.engine.turns()[-1]
    assert turn.resume == p.Partial(text="to one, and")
    assert sent(bench) == ["one"]
    bench.speak(turn, " more")
    bench.finish(turn.turn)
    assert (copy.text, copy.finish) == ("to one, and more", "stop")
    assert find(session, "to one").finish == "stop"
    await bench.archive.flush()
    assert stored(session).messages[copy.id].edited_from == find(session, "to one").id
    await bench.archive.close()


@pytest.mark.parametrize("which", ["one", "to one"])
async def test_an_answer_begins_with_what_the_user_gives_it(bench: Bench, which: str) -> None:
    session = talk(bench, "one", "two")
    answer = branches(bench).begin(session.id, find(session, which).id, "Well, ")
    turn = bench.engine.turns()[-1]
    assert turn.resume == p.Partial(text="Well,")
    assert sent(bench) == ["one"]
    bench.speak(turn, " yes")
    bench.finish(turn.turn)
    assert (answer.text, answer.given, answer.finish) == ("Well, yes", "Well,", "stop")
    assert shown(session) == ["one", "Well, yes"]
    await bench.archive.flush()
    assert stored(session).messages[answer.id].given == "Well,"
    await bench.archive.close()


async def test_the_beginning_of_an_answer_that_never_started_is_kept(bench: Bench) -> None:
    session = talk(bench, "one")
    _, other = bench.ask("of another session")
    branches(bench).begin(session.id, None, "Well,")
    assert bench.conversation.waiting_for(session.id) == 1
    assert bench.conversation.stop(session.id)
    assert shown(session) == ["one", "Well,"]
    await bench.archive.flush()
    assert stored(session).unfinished() is not None
    bench.finish(other.turn)
    bench.conversation.resume(session.id)
    assert bench.engine.turns()[-1].resume == p.Partial(text="Well,")
    bench.conversation.finish_now()
    await bench.archive.close()


async def test_an_earlier_question_is_answered_again(bench: Bench) -> None:
    session = talk(bench, "one", "two")
    branches(bench).again(session.id, find(session, "to one").id)
    turn = bench.engine.turns()[-1]
    bench.speak(turn, "other")
    bench.finish(turn.turn)
    assert shown(session) == ["one", "other"]
    assert len(session.siblings(find(session, "other").id)) == 2
    await bench.archive.close()


# Deletion


async def test_a_deletion_can_be_undone_after_the_program_ended(bench: Bench) -> None:
    session = talk(bench, "one", "two")
    before = shown(session)
    deletion = branches(bench).delete(session.id, find(session, "two").id)
    assert len(deletion.messages) == 2
    assert shown(session) == ["one", "to one"]
    await bench.archive.close()
    later = Bench()
    again = later.archive.open(session.id)
    assert shown(again) == ["one", "to one"]
    branches(later).undo(session.id)
    assert shown(again) == before
    with pytest.raises(UsageError, match="Nothing was deleted"):
        branches(later).undo(session.id)
    await later.archive.close()
    assert shown(stored(session)) == before


async def test_a_session_whose_messages_are_all_deleted_gets_them_back(bench: Bench) -> None:
    session = talk(bench, "one")
    branches(bench).delete(session.id, find(session, "one").id)
    assert (session.head, session.messages) == (None, {})
    await bench.archive.flush()
    assert stored(session).deleted
    branches(bench).undo(session.id)
    assert shown(session) == ["one", "to one"]
    await bench.archive.close()


async def test_what_was_deleted_is_not_asked_and_goes_for_good_only_on_demand(bench: Bench) -> None:
    session = talk(bench, "one", "two")
    branches(bench).delete(session.id, find(session, "two").id)
    talk(bench, "three", session=session)
    assert sent(bench) == ["one", "to one", "three"]
    assert branches(bench).forget_deleted(session.id) == 2
    await bench.archive.flush()
    assert "two" not in SessionStore().path(session.id).read_text()
    await bench.archive.close()


# Forks


async def test_a_fork_is_a_session_of_its_own_on_disk(bench: Bench) -> None:
    session = talk(bench, "one", "two")
    new = branches(bench).fork(session.id, find(session, "to one").id)
    await bench.archive.flush()
    assert shown(stored(new)) == ["one", "to one"]
    talk(bench, "three", session=new)
    assert sent(bench) == ["one", "to one", "three"]
    assert shown(session) == ["one", "to one", "two", "to two"]
    assert len(await bench.archive.summaries()) == 2
    await bench.archive.close()


async def test_a_session_that_streams_can_be_forked_above_its_answer(bench: Bench) -> None:
    session = talk(bench, "one")
    bench.ask("two", session)
    with pytest.raises(UsageError, match="still being written"):
        branches(bench).fork(session.id, session.head or "")
    new = branches(bench).fork(session.id, find(session, "two").id)
    assert shown(new) == ["one", "to one", "two"]
    bench.conversation.finish_now()
    await bench.archive.close()


# Refusals


Change = Callable[[Branches, Session], object]
CHANGES: dict[str, Change] = {
    "edit": lambda b, s: b.edit(s.id, find(s, "one").id, "x"),
    "edit-answer": lambda b, s: b.edit(s.id, find(s, "to one").id, "x"),
    "begin": lambda b, s: b.begin(s.id, find(s, "to one").id, "x"),
    "again": lambda b, s: b.again(s.id, find(s, "to one").id),
    "show": lambda b, s: b.show(s.id, find(s, "hidden").id),
    "delete": lambda b, s: b.delete(s.id, find(s, "to one").id),
    "undo": lambda b, s: b.undo(s.id),
    "forget": lambda b, s: b.forget_deleted(s.id),
}
changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def with_all(bench: Bench) -> Session:
    """A session with a version that is not shown and something to undo."""
    session = talk(bench, "one", "two")
    question = find(session, "one").id
    head = session.head
    session.append("assistant", "hidden", parent=question).finish = "stop"
    session.head = head
    branches(bench).delete(session.id, find(session, "two").id)
    return session


def unchanged(session: Session) -> tuple[object, ...]:
    return shown(session), list(session.messages), len(session.deleted), session.head


@changes
async def test_a_busy_session_stays_as_it_is(bench: Bench, change: Change) -> None:
    session = with_all(bench)
    bench.ask("three", session)
    before = unchanged(session)
    with pytest.raises(UsageError, match="still answering"):
        change(branches(bench), session)
    assert unchanged(session) == before
    bench.conversation.finish_now()
    await bench.archive.close()


@changes
async def test_a_session_of_another_program_stays_as_it_is(bench: Bench, change: Change) -> None:
    session = with_all(bench)
    await bench.archive.flush()
    other = Bench(Archive(lambda _fact: None))
    await other.load()
    seen = other.archive.open(session.id)
    before = unchanged(seen)
    if change is CHANGES["show"]:
        change(branches(other), seen)
        assert shown(seen) == ["one", "hidden"]
        assert "hidden" not in shown(stored(session))
        branches(other).show(session.id, find(seen, "to one").id)
    else:
        with pytest.raises(SessionLocked):
            change(branches(other), seen)
    assert unchanged(seen) == before
    new = branches(other).fork(session.id, find(seen, "to one").id)
    await other.archive.close()
    assert shown(stored(new)) == ["one", "to one"]
    await bench.archive.close()


@changes
async def test_other_sessions_may_stream(bench: Bench, change: Change) -> None:
    session = with_all(bench)
    bench.ask("of another session")
    bench.facts.clear()
    change(branches(bench), session)
    assert SessionChanged(session=session.id) in bench.facts
    bench.conversation.finish_now()
    await bench.archive.close()


@pytest.mark.parametrize("name", ["edit", "begin", "again"])
async def test_without_a_model_nothing_is_asked_and_nothing_changes(bench: Bench, name: str) -> None:
    session = with_all(bench)
    before = unchanged(session)
    await bench.library.unload()
    with pytest.raises(UsageError, match="No model"):
        CHANGES[name](branches(bench), session)
    assert unchanged(session) == before
    await bench.archive.close()


@pytest.mark.parametrize("name", ["edit", "begin", "again", "show", "delete", "fork"])
async def test_a_message_that_is_gone_is_named(bench: Bench, name: str) -> None:
    session = talk(bench, "one")
    work = branches(bench)
    arguments = ("x",) if name in ("edit", "begin") else ()
    with pytest.raises(UsageError, match="no longer there"):
        getattr(work, name)(session.id, "20000101T000000000-000000", *arguments)
    await bench.archive.close()


async def test_what_there_is_nothing_to_do_with_is_said(bench: Bench) -> None:
    session = bench.archive.new()
    with pytest.raises(UsageError, match="no message yet"):
        branches(bench).again(session.id, None)
    with pytest.raises(UsageError, match="how the answer should begin"):
        branches(bench).begin(talk(bench, "one").id, None, " \t")
    await bench.archive.close()


# Run cards


async def test_an_answer_knows_the_revision_and_the_libraries_that_made_it(bench: Bench) -> None:
    assert bench.library.model is not None
    bench.library.model = msgspec.structs.replace(MODEL, revision="abc123")
    bench.engine.say(p.Ready(pid=1, versions={"torch": "2.15"}))
    session = talk(bench, "one")
    run = session.branch()[-1].run
    assert run is not None
    assert (run.revision, run.versions["torch"]) == ("abc123", "2.15")
    assert "quantchat" in run.versions
    await bench.archive.flush()
    assert stored(session).branch()[-1].run == run
    await bench.archive.close()
