"""The turn state machine over an engine that only records what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from quantchat.domain.generation import SamplingOverrides
from quantchat.engine import protocol as p
from quantchat.engine.client import EngineExited
from quantchat.errors import ErrorReport, SessionLocked, StorageError, UsageError
from quantchat.services.archive import Archive
from quantchat.services.facts import Notice, TextArrived
from quantchat.store.journal import replay
from quantchat.store.sessions import SessionStore
from unit.services.turn_bench import MODEL, REPORT, Bench, asked


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path))
    return Bench()


async def test_late_events_and_events_of_other_turns_are_dropped(bench: Bench) -> None:
    session, turn = await asked(bench)
    bench.engine.say(p.Delta(turn="another", text="not mine", tokens=1))
    bench.engine.say(p.Delta(turn=turn.turn, text="mine", tokens=1))
    bench.finish(turn.turn)
    bench.engine.say(p.Delta(turn=turn.turn, text=" late", tokens=2))
    bench.finish(turn.turn, "length")
    answer = session.branch()[-1]
    assert (answer.text, answer.finish) == ("mine", "stop")
    await bench.archive.close()


async def test_no_more_turns_are_sent_than_the_settings_allow(bench: Bench) -> None:
    first, turn = await asked(bench)
    second = bench.archive.new()
    bench.conversation.send(second.id, "me too")
    bench.conversation.send(first.id, "and then")
    assert len(bench.engine.turns()) == 1
    bench.finish(turn.turn)
    assert len(bench.engine.turns()) == 2
    assert bench.conversation.streaming == {second.id}
    bench.finish(bench.engine.turns()[-1].turn)
    assert [message.content for message in bench.engine.turns()[-1].messages if message.role == "user"] == [
        "why",
        "and then",
    ]
    await bench.archive.close()


async def test_sampling_goes_session_then_settings_then_model(bench: Bench) -> None:
    await bench.load()
    session = bench.archive.new()
    session.sampling = SamplingOverrides(max_new_tokens=9)
    bench.conversation.send(session.id, "x")
    sampling = bench.engine.turns()[-1].sampling
    assert (sampling.max_new_tokens, sampling.top_k, sampling.temperature) == (9, 7, 0.2)
    bench.conversation.finish_now()
    await bench.archive.close()


async def test_the_prompt_of_a_regenerated_answer_ends_with_the_question(bench: Bench) -> None:
    session, turn = await asked(bench)
    bench.engine.say(p.Delta(turn=turn.turn, text="first", tokens=1))
    bench.finish(turn.turn)
    bench.conversation.regenerate(session.id)
    assert [message.role for message in bench.engine.turns()[-1].messages] == ["user"]
    bench.finish(bench.engine.turns()[-1].turn)
    assert len(session.messages) == 3
    await bench.archive.close()


def think(bench: Bench, turn: str, *pieces: tuple[str, str]) -> None:
    for tokens, (channel, text) in enumerate(pieces, 1):
        bench.engine.say(p.Delta(turn=turn, text=text, channel=channel, tokens=tokens))  # type: ignore[arg-type]


async def test_thinking_and_answer_are_kept_apart(bench: Bench) -> None:
    session, turn = await asked(bench)
    think(bench, turn.turn, ("thinking", "It "), ("thinking", "sorts."), ("answer", "By "), ("answer", "column."))
    active = bench.conversation.turn_of(session.id)
    assert active is not None
    assert (active.text, active.thinking, active.tokens) == ("By column.", "It sorts.", 4)
    arrived = [(fact.channel, fact.text) for fact in bench.facts if isinstance(fact, TextArrived)]
    assert arrived == [("thinking", "It "), ("thinking", "sorts."), ("answer", "By "), ("answer", "column.")]
    bench.finish(turn.turn)
    answer = session.branch()[-1]
    assert (answer.text, answer.thinking, answer.finish) == ("By column.", "It sorts.", "stop")
    await bench.archive.flush()
    assert SessionStore().load(session.id).messages[answer.id].thinking == "It sorts."
    bench.conversation.send(session.id, "and rows?")
    assert [m.content for m in bench.engine.turns()[-1].messages] == ["why", "By column.", "and rows?"]
    bench.finish(bench.engine.turns()[-1].turn)
    await bench.archive.close()


async def test_an_answer_stopped_while_thinking_keeps_its_thinking(bench: Bench) -> None:
    session, turn = await asked(bench)
    think(bench, turn.turn, ("thinking", "It sorts, "), ("thinking", "but"))
    bench.conversation.stop(session.id)
    bench.finish(turn.turn, "stopped")
    await bench.archive.flush()
    answer = SessionStore().load(session.id).branch()[-1]
    assert (answer.text, answer.thinking, answer.finish) == ("", "It sorts, but", "stopped")
    bench.conversation.send(session.id, "again")
    assert [m.content for m in bench.engine.turns()[-1].messages] == ["why", "again"]
    bench.finish(bench.engine.turns()[-1].turn)
    await bench.archive.close()


async def test_an_engine_that_dies_ends_the_turn_and_keeps_its_text(bench: Bench) -> None:
    session, turn = await asked(bench)
    bench.engine.say(p.Delta(turn=turn.turn, text="half an", tokens=2))
    bench.engine.running = False
    bench.engine.say(EngineExited(code=None, signal="SIGSEGV", log_tail="boom", expected=False))
    answer = session.branch()[-1]
    assert (answer.text, answer.finish) == ("half an", "error")
    assert answer.error is not None
    assert "SIGSEGV" in answer.error.title
    assert bench.library.engine_pid is None
    await bench.archive.close()


async def test_unloading_during_an_answer_keeps_it(bench: Bench) -> None:
    session, turn = await asked(bench)
    bench.engine.say(p.Delta(turn=turn.turn, text="half an", tokens=2))
    await bench.library.unload()
    assert session.branch()[-1].finish == "stopped"
    assert len(bench.engines) == 2
    await bench.archive.close()


async def test_without_a_model_nothing_is_queued(bench: Bench) -> None:
    session = bench.archive.new()
    with pytest.raises(UsageError, match="No model is loaded"):
        bench.conversation.send(session.id, "hello")
    assert session.queued == []


async def test_a_load_that_fails_gives_waiting_prompts_back(bench: Bench) -> None:
    await bench.library.load(MODEL)
    session = bench.archive.new()
    session.draft = "begun"
    bench.conversation.send(session.id, "waiting")
    command = bench.engine.sent[-1]
    assert isinstance(command, p.Load)
    report = ErrorReport(code="load", title="no")
    bench.engine.say(p.LoadFailed(request=command.request, error=report))
    assert session.draft == "begun\n\nwaiting"
    assert any(isinstance(fact, Notice) and fact.report == report for fact in bench.facts)
    await bench.archive.close()


async def test_events_of_a_replaced_load_are_ignored(bench: Bench) -> None:
    await bench.library.load(MODEL)
    old = bench.engine.sent[-1]
    assert isinstance(old, p.Load)
    await bench.library.load(MODEL)
    bench.engine.say(p.Loaded(request=old.request, report=REPORT))
    assert bench.library.loaded is None


async def test_full_disk_keeps_the_session_in_memory_and_writes_it_later(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_disk: Path,
    fill_disk: Callable[[Path], Path],
) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(small_disk))
    monkeypatch.setattr("quantchat.services.saving.RETRY_SECONDS", 0.05)
    bench = Bench()
    session, turn = await asked(bench)
    await bench.archive.flush()
    path = small_disk / "data" / "sessions" / f"{session.id}.json"
    before = path.read_bytes()
    ballast = fill_disk(small_disk)
    bench.engine.say(p.Delta(turn=turn.turn, text="long " * 4000, tokens=4000))
    bench.finish(turn.turn)
    await bench.archive.flush()
    failure = bench.archive.unsaved(session.id)
    assert failure is not None
    assert "full" in failure.report.title
    assert path.read_bytes() == before
    ballast.unlink()
    for _ in range(200):
        if bench.archive.unsaved(session.id) is None:
            break
        await bench.archive.flush()
        await asyncio.sleep(0.02)
    assert "long long" in path.read_text()
    await bench.archive.close()
    assert not list(path.parent.glob("*.journal"))
    assert not list(path.parent.glob(".*tmp"))


async def test_a_second_program_may_read_but_not_write(bench: Bench) -> None:
    session, turn = await asked(bench)
    bench.finish(turn.turn)
    await bench.archive.flush()
    other = Archive(lambda fact: None)
    seen = other.open(session.id)
    assert [message.text for message in seen.branch()] == [message.text for message in session.branch()]
    assert other.why_read_only(session.id) is not None
    with pytest.raises(SessionLocked, match="open elsewhere"):
        other.save(seen)
    second = Bench(other)
    await second.load()
    with pytest.raises(SessionLocked):
        second.conversation.send(session.id, "not from here")
    assert other.open(session.id).queued == []
    assert second.conversation.waiting == 0
    await bench.archive.close()
    with pytest.raises(SessionLocked):
        other.save(seen)
    other.save(other.open(session.id))
    await other.close()


async def test_the_journal_of_a_queued_answer_outlives_the_end_of_the_one_before(bench: Bench) -> None:
    session, turn = await asked(bench, "one")
    bench.conversation.send(session.id, "two")
    bench.engine.say(p.Delta(turn=turn.turn, text="first", tokens=1))
    bench.finish(turn.turn)
    bench.engine.say(p.Delta(turn=bench.engine.turns()[-1].turn, text="second", tokens=1))
    await bench.archive.flush()
    path = SessionStore().journal_path(session.id)
    for _ in range(200):
        if path.exists() and [answer.text for answer in replay(path)] == ["second"]:
            break
        await asyncio.sleep(0.02)
    assert [answer.text for answer in replay(path)] == ["second"]
    bench.conversation.finish_now()
    await bench.archive.close()
    assert not path.exists()


async def test_a_lock_that_cannot_be_made_does_not_bring_back_an_older_session(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("No permission to write", code="no-permission")

    monkeypatch.setattr("quantchat.store.locks.SessionLocks.acquire", refuse)
    session, turn = await asked(bench, "kept")
    bench.finish(turn.turn)
    bench.conversation.send(session.id, "and this")
    assert bench.archive.open(session.id) is session
    assert [message.text for message in session.branch() if message.role == "user"] == ["kept", "and this"]
    bench.conversation.finish_now()
    await bench.archive.close()


async def test_regenerating_what_another_program_writes_is_refused_and_blocks_nothing(bench: Bench) -> None:
    session, turn = await asked(bench)
    bench.finish(turn.turn)
    await bench.archive.flush()
    other = Bench()
    await other.load()
    with pytest.raises(SessionLocked):
        other.conversation.regenerate(session.id)
    other.conversation.send(other.archive.new().id, "free")
    assert len(other.engine.turns()) == 1
    other.conversation.finish_now()
    await bench.archive.close()
    await other.archive.close()


async def test_quitting_returns_waiting_prompts_instead_of_starting_them(bench: Bench) -> None:
    session, _ = await asked(bench, "one")
    bench.conversation.send(session.id, "two")
    bench.conversation.finish_now()
    await bench.archive.close()
    assert len(bench.engine.turns()) == 1
    assert SessionStore().load(session.id).draft == "two"


async def test_after_deleting_a_streaming_session_the_next_turn_waits_for_the_engine(bench: Bench) -> None:
    session, turn = await asked(bench, "one")
    other = bench.archive.new()
    bench.conversation.send(other.id, "two")
    bench.conversation.forget(session.id)
    await bench.archive.delete(session.id)
    assert len(bench.engine.turns()) == 1
    bench.finish(turn.turn, "stopped")
    assert bench.conversation.streaming == {other.id}
    bench.conversation.finish_now()
    await bench.archive.close()
    assert not SessionStore().path(session.id).exists()


async def test_an_engine_that_dies_while_it_loads_gives_waiting_prompts_back(bench: Bench) -> None:
    await bench.library.load(MODEL)
    session = bench.archive.new()
    bench.conversation.send(session.id, "waiting")
    bench.engine.say(EngineExited(code=None, signal="SIGKILL", log_tail="", expected=False))
    assert (bench.conversation.waiting, session.draft) == (0, "waiting")
    await bench.archive.close()


async def test_a_question_too_long_for_the_window_does_not_spoil_the_next_one(bench: Bench) -> None:
    session, turn = await asked(bench, "far too long")
    full = ErrorReport(code="context-full", title="The conversation no longer fits")
    bench.engine.say(p.Failed(turn=turn.turn, error=full))
    bench.conversation.send(session.id, "short")
    assert [message.content for message in bench.engine.turns()[-1].messages] == ["short"]
    bench.finish(bench.engine.turns()[-1].turn)
    assert [message.text for message in session.branch() if message.role == "user"] == ["far too long", "short"]
    await bench.archive.close()
