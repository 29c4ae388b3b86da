"""Several sessions answered at once: one turn each, exactly one end each, and none in another's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.domain.chat import Session
from quantchat.engine import protocol as p
from quantchat.engine.client import EngineExited
from quantchat.errors import StorageError
from quantchat.services.facts import TextArrived, WarmChanged
from quantchat.store.journal import replay
from quantchat.store.sessions import SessionStore
from unit.services.turn_bench import MODEL, Bench


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path))
    bench = Bench(parallel_turns=3)
    await bench.load()
    return bench


def answers(session: Session) -> list[tuple[str, str | None]]:
    return [(message.text, message.finish) for message in session.branch() if message.role == "assistant"]


async def two(bench: Bench) -> tuple[tuple[Session, p.Generate], tuple[Session, p.Generate]]:
    """Two sessions whose answers stream."""
    one, other = bench.ask("one"), bench.ask("two")
    bench.speak(one[1], "a1 ", "a2 ")
    bench.speak(other[1], "b1 ", "b2 ", "b3 ")
    return one, other


async def test_interleaved_texts_go_to_their_own_sessions(bench: Bench) -> None:
    (first, one), (second, other) = await two(bench)
    assert (one.session, other.session) == (first.id, second.id)
    bench.speak(one, "a3")
    bench.finish(other.turn, "length")
    bench.finish(one.turn)
    bench.finish(one.turn, "length")
    assert answers(first) == [("a1 a2 a3", "stop")]
    assert answers(second) == [("b1 b2 b3 ", "length")]
    arrived = [fact.text for fact in bench.facts if isinstance(fact, TextArrived) and fact.session == first.id]
    assert "".join(arrived) == "a1 a2 a3"
    await bench.archive.close()


async def test_a_session_waits_for_its_own_answer_and_lets_others_pass(bench: Bench) -> None:
    session, one = bench.ask("one")
    bench.conversation.send(session.id, "two")
    other, _ = bench.ask("from another")
    assert bench.conversation.streaming == {session.id, other.id}
    assert bench.conversation.waiting_for(session.id) == 1
    bench.finish(one.turn)
    assert [message.content for message in bench.engine.turns()[-1].messages] == ["one", "two"]
    assert bench.engine.turns()[-1].session == session.id
    bench.conversation.finish_now()
    await bench.archive.close()


async def test_what_is_beyond_the_limit_starts_in_the_order_in_which_it_came(bench: Bench) -> None:
    sessions = [bench.archive.new() for _ in range(6)]
    for number, session in enumerate(sessions):
        bench.conversation.send(session.id, f"question {number}")
    assert [turn.session for turn in bench.engine.turns()] == [session.id for session in sessions[:3]]
    assert bench.conversation.waiting == 3
    bench.finish(bench.engine.turns()[1].turn)
    assert bench.engine.turns()[-1].session == sessions[3].id
    bench.finish(bench.engine.turns()[0].turn)
    assert bench.engine.turns()[-1].session == sessions[4].id
    bench.conversation.finish_now()
    await bench.archive.close()


async def test_stop_ends_only_the_sessions_own_turn(bench: Bench) -> None:
    (first, one), (second, other) = await two(bench)
    assert bench.conversation.stop(first.id)
    assert [command for command in bench.engine.sent if isinstance(command, p.Stop)] == [p.Stop(turn=one.turn)]
    bench.finish(one.turn, "stopped")
    assert bench.conversation.streaming == {second.id}
    bench.finish(other.turn)
    assert answers(first) == [("a1 a2 ", "stopped")]
    await bench.archive.close()


async def test_stop_all_stops_every_turn_and_gives_back_what_waits(bench: Bench) -> None:
    (first, one), (_, other) = await two(bench)
    bench.conversation.send(first.id, "next")
    assert bench.conversation.stop_all()
    assert {command.turn for command in bench.engine.sent if isinstance(command, p.Stop)} == {one.turn, other.turn}
    for turn in (one, other):
        bench.finish(turn.turn, "stopped")
    assert first.draft == "next"
    assert not bench.conversation.busy
    assert not bench.conversation.stop_all()
    await bench.archive.close()


async def test_an_engine_that_dies_ends_all_turns_and_keeps_their_texts(bench: Bench) -> None:
    (first, _), (second, _) = await two(bench)
    bench.conversation.send(second.id, "next")
    bench.engine.running = False
    bench.engine.say(EngineExited(code=None, signal="SIGSEGV", log_tail="boom", expected=False))
    assert answers(first) == [("a1 a2 ", "error")]
    assert answers(second) == [("b1 b2 b3 ", "error")]
    assert second.draft == "next"
    assert not bench.conversation.busy
    await bench.archive.flush()
    assert answers(SessionStore().load(second.id)) == answers(second)
    await bench.archive.close()


async def test_switching_models_keeps_all_answers_and_starts_what_waited(bench: Bench) -> None:
    (first, _), (second, _) = await two(bench)
    bench.conversation.send(first.id, "next")
    bench.conversation.stop_running()
    await bench.library.load(MODEL)
    assert [answers(session)[0][1] for session in (first, second)] == ["stopped", "stopped"]
    command = bench.engine.sent[-1]
    assert isinstance(command, p.Load)
    assert bench.library.loaded is None
    bench.loaded(command)
    assert [turn.session for turn in bench.engine.turns()] == [first.id]
    bench.conversation.finish_now()
    await bench.archive.close()


async def test_quitting_keeps_all_texts_and_leaves_no_journal(bench: Bench) -> None:
    (first, _), (second, _) = await two(bench)
    bench.conversation.send(first.id, "next")
    bench.conversation.finish_now()
    await bench.archive.close()
    store = SessionStore()
    assert answers(store.load(first.id)) == [("a1 a2 ", "stopped")]
    assert answers(store.load(second.id)) == [("b1 b2 b3 ", "stopped")]
    assert store.load(first.id).draft == "next"
    assert not list(store.root.glob("*.journal"))


async def test_each_answer_has_a_journal_of_its_own(bench: Bench) -> None:
    (first, one), (second, other) = await two(bench)
    bench.finish(other.turn)
    await bench.archive.flush()
    store = SessionStore()
    await bench.until(lambda: store.journal_path(first.id).exists() and replay(store.journal_path(first.id))[0].text)
    assert replay(store.journal_path(first.id))[0].text.startswith("a1 ")
    assert not store.journal_path(second.id).exists()
    bench.finish(one.turn)
    await bench.archive.close()


async def test_a_turn_that_fails_leaves_the_others_alone(bench: Bench) -> None:
    (first, one), (second, _) = await two(bench)
    bench.engine.say(p.Failed(turn=one.turn, error=StorageError("it broke").report))
    assert answers(first) == [("a1 a2 ", "error")]
    assert bench.conversation.streaming == {second.id}
    bench.conversation.finish_now()
    await bench.archive.close()


async def test_the_engine_forgets_a_deleted_session_after_its_turn_has_ended(bench: Bench) -> None:
    (first, one), (second, other) = await two(bench)
    bench.finish(other.turn)
    bench.conversation.forget(second.id)
    assert bench.engine.sent[-1] == p.Forget(session=second.id)
    bench.conversation.forget(first.id)
    await bench.archive.delete(first.id)
    assert bench.engine.sent[-1] == p.Stop(turn=one.turn)
    bench.finish(one.turn, "stopped")
    assert bench.engine.sent[-1] == p.Forget(session=first.id)
    assert not SessionStore().path(first.id).exists()
    await bench.archive.close()


async def test_warm_sessions_are_listed_until_their_model_goes(bench: Bench) -> None:
    session, turn = bench.ask("one")
    bench.finish(turn.turn)
    bench.engine.say(p.Warm(sessions=(p.WarmSession(session.id, 40, 4000), p.WarmSession("old", 9, 900, "host"))))
    assert {name: warm.place for name, warm in bench.conversation.warm.items()} == {session.id: "device", "old": "host"}
    assert isinstance(bench.facts[-1], WarmChanged)
    await bench.library.load(MODEL)
    assert not bench.conversation.warm
    command = bench.engine.sent[-1]
    assert isinstance(command, p.Load)
    bench.loaded(command)
    assert not bench.conversation.warm
    bench.engine.say(p.Warm(sessions=(p.WarmSession("new", 9, 900),)))
    bench.engine.running = False
    bench.engine.say(EngineExited(code=1, signal=None, log_tail="", expected=False))
    assert not bench.conversation.warm
    await bench.archive.close()


async def test_progress_of_the_prompt_is_kept_with_its_turn(bench: Bench) -> None:
    session, turn = bench.ask("one")
    bench.engine.say(p.Prefill(turn=turn.turn, done=2940, total=3000, reused=2900, dropped=4))
    running = bench.conversation.turn_of(session.id)
    assert running is not None
    assert (running.prefill_done, running.prompt_tokens, running.reused, running.dropped) == (2940, 3000, 2900, 4)
    bench.conversation.stop(session.id)
    bench.finish(turn.turn, "stopped")
    assert answers(session) == [("", "stopped")]
    await bench.archive.close()
