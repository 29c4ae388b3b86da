"""Cut answers go on in their own message, and no crash doubles or loses a word of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from quantchat.domain.chat import Session
from quantchat.domain.generation import TurnStatistics
from quantchat.engine import protocol as p
from quantchat.errors import ErrorReport, UsageError
from quantchat.services.archive import Archive
from quantchat.store.journal import Journal, replay
from quantchat.store.sessions import SessionStore
from unit.services.turn_bench import Bench

FIRST = TurnStatistics(prompt_tokens=10, new_tokens=3, prefill_seconds=0.5, decode_seconds=2.0, drafted=4, accepted=1)
SECOND = TurnStatistics(
    prompt_tokens=13, new_tokens=2, prefill_seconds=0.1, decode_seconds=1.0, drafted=2, accepted=2, reused_tokens=12
)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    bench = Bench()
    await bench.load()
    return bench


async def cut(bench: Bench, reason: str = "length") -> Session:
    """A session whose answer `one two` was cut."""
    session, turn = bench.ask("count")
    bench.speak(turn, "one", " two")
    bench.engine.say(p.Finished(turn=turn.turn, reason=reason, statistics=FIRST))  # type: ignore[arg-type]
    return session


@pytest.mark.parametrize("reason", ["length", "stopped", "context"])
async def test_a_cut_answer_goes_on_in_its_own_message(bench: Bench, reason: str) -> None:
    session = await cut(bench, reason)
    (answer,) = [message for message in session.branch() if message.role == "assistant"]
    bench.conversation.resume(session.id)
    turn = bench.engine.turns()[-1]
    assert turn.resume == p.Partial(text="one two")
    assert (turn.session, [message.content for message in turn.messages]) == (session.id, ["count"])
    bench.speak(turn, " three", " four")
    running = bench.conversation.turn_of(session.id)
    assert running is not None
    assert running.text == "one two three four"
    bench.engine.say(p.Finished(turn=turn.turn, reason="stop", statistics=SECOND))
    assert session.branch()[-1] is answer
    assert (answer.text, answer.finish, len(session.messages)) == ("one two three four", "stop", 2)
    await bench.archive.close()


async def test_what_both_parts_cost_adds_up(bench: Bench) -> None:
    session = await cut(bench)
    bench.conversation.resume(session.id)
    bench.engine.say(p.Finished(turn=bench.engine.turns()[-1].turn, reason="length", statistics=SECOND))
    cost = session.branch()[-1].statistics
    assert cost is not None
    assert (cost.new_tokens, cost.decode_seconds, cost.drafted, cost.accepted) == (5, 3.0, 6, 3)
    assert (cost.prompt_tokens, cost.prefill_seconds, cost.reused_tokens) == (13, 0.1, 12)
    assert cost.context_tokens == 15
    await bench.archive.close()


async def test_thinking_that_was_cut_goes_on(bench: Bench) -> None:
    session, turn = bench.ask("why")
    bench.engine.say(p.Delta(turn=turn.turn, text="It may", channel="thinking", tokens=2))
    bench.conversation.stop(session.id)
    bench.finish(turn.turn, "stopped")
    bench.conversation.resume(session.id)
    turn = bench.engine.turns()[-1]
    assert turn.resume == p.Partial(thinking="It may")
    bench.engine.say(p.Delta(turn=turn.turn, text=" sort.", channel="thinking", tokens=2))
    bench.engine.say(p.Delta(turn=turn.turn, text="By rows.", tokens=4))
    bench.finish(turn.turn)
    answer = session.branch()[-1]
    assert (answer.thinking, answer.text) == ("It may sort.", "By rows.")
    await bench.archive.close()


async def test_a_complete_answer_is_left_alone_and_the_reason_is_said(bench: Bench) -> None:
    session = await cut(bench, "stop")
    with pytest.raises(UsageError, match="complete"):
        bench.conversation.resume(session.id)
    with pytest.raises(UsageError, match="no answer to continue"):
        bench.conversation.resume(bench.archive.new().id)
    assert len(bench.engine.turns()) == 1
    await bench.archive.close()


async def test_an_answer_without_a_word_cannot_go_on(bench: Bench) -> None:
    session, turn = bench.ask("count")
    bench.conversation.stop(session.id)
    bench.finish(turn.turn, "stopped")
    with pytest.raises(UsageError, match="no answer to continue"):
        bench.conversation.resume(session.id)
    await bench.archive.close()


async def test_a_session_that_answers_does_not_resume_as_well(bench: Bench) -> None:
    session = await cut(bench)
    bench.conversation.resume(session.id)
    with pytest.raises(UsageError, match="still answering"):
        bench.conversation.resume(session.id)
    bench.conversation.finish_now()
    await bench.archive.close()


async def test_a_rest_that_fails_keeps_the_beginning_and_can_be_tried_again(bench: Bench) -> None:
    session = await cut(bench)
    bench.conversation.resume(session.id)
    full = ErrorReport(code="context-full", title="The conversation no longer fits")
    bench.engine.say(p.Failed(turn=bench.engine.turns()[-1].turn, error=full))
    answer = session.branch()[-1]
    assert (answer.text, answer.finish, answer.error) == ("one two", "error", full)
    assert [message.content for message in session.prompt()] == ["count", "one two"]
    bench.conversation.resume(session.id)
    assert answer.error is None
    bench.finish(bench.engine.turns()[-1].turn)
    assert (answer.finish, answer.error) == ("stop", None)
    await bench.archive.close()


async def test_a_rest_that_waits_can_be_taken_back(bench: Bench) -> None:
    session = await cut(bench)
    _, other = bench.ask("of another session")
    bench.conversation.resume(session.id)
    assert bench.conversation.waiting_for(session.id) == 1
    assert bench.conversation.stop(session.id)
    bench.finish(other.turn)
    assert (len(bench.engine.turns()), session.branch()[-1].finish) == (2, "length")
    await bench.archive.close()


async def recovered(folder: Path, tmp_path: Path) -> Session:
    """What the next start makes of what is on the disk now."""
    shutil.copytree(folder, tmp_path / "after")
    store = SessionStore(tmp_path / "after")
    for lock in store.root.glob("*.lock"):
        lock.unlink()
    archive = Archive(lambda fact: None, store)
    await archive.recover()
    (name,) = (path.stem for path in store.root.glob("*.json"))
    session = archive.open(name)
    await archive.close()
    return session


async def test_a_kill_in_the_rest_loses_and_doubles_nothing(bench: Bench, tmp_path: Path) -> None:
    session = await cut(bench)
    bench.conversation.resume(session.id)
    bench.speak(bench.engine.turns()[-1], " three", " four")
    await bench.archive.flush()
    journal = SessionStore().journal_path(session.id)
    await bench.until(lambda: journal.exists() and replay(journal) and "four" in replay(journal)[-1].text)
    found = await recovered(journal.parent, tmp_path)
    assert [(m.text, m.finish) for m in found.branch()[1:]] == [("one two three four", "interrupted")]
    assert found.branch()[-1].statistics == FIRST
    bench.conversation.finish_now()
    await bench.archive.close()
    assert SessionStore().load(session.id).branch()[-1].text == "one two three four"


async def test_a_kill_before_the_rest_has_begun_keeps_the_beginning(bench: Bench, tmp_path: Path) -> None:
    session = await cut(bench)
    bench.conversation.resume(session.id)
    await bench.archive.flush()
    found = await recovered(SessionStore().root, tmp_path)
    assert [(m.text, m.finish) for m in found.branch()[1:]] == [("one two", "interrupted")]
    bench.conversation.finish_now()
    await bench.archive.close()


async def test_a_recovered_answer_can_go_on(bench: Bench, tmp_path: Path) -> None:
    session = await cut(bench)
    session.branch()[-1].finish = "interrupted"
    bench.conversation.resume(session.id)
    turn = bench.engine.turns()[-1]
    bench.speak(turn, " three")
    bench.finish(turn.turn)
    await bench.archive.close()
    assert SessionStore().load(session.id).branch()[-1].text == "one two three"


async def test_how_the_first_part_ended_is_not_rewritten_by_the_second(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal of the first part may be closed after the second has begun."""
    ends: list[object] = []
    close = Journal.close

    def noted(journal: Journal, finish: object = None, *rest: object) -> None:
        ends.append(finish)
        close(journal, finish, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "close", noted)
    session = await cut(bench)
    bench.conversation.resume(session.id)
    await bench.archive.flush()
    assert ends[0] == "length"
    bench.conversation.finish_now()
    await bench.archive.close()
