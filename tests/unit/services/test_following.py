"""Following a session that another program writes, and the list that it changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quantchat.domain.chat import Session
from quantchat.engine import protocol as p
from quantchat.services import following as module
from quantchat.services.archive import Archive
from quantchat.services.facts import Fact, SessionChanged, SessionsChanged, TextArrived
from quantchat.services.following import Follower
from unit.services.turn_bench import Bench, asked


class Reader:
    """A second program on the home, and what its screen is told."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.archive = Archive(self.facts.append)
        self.follower = Follower(self.archive, self.facts.append)
        self.free: list[str] = []
        self.follower.on_free = self.free.append

    def follow(self, session_id: str) -> Session:
        session = self.archive.open(session_id)
        self.follower.show(session_id)
        return session

    def said(self, channel: str) -> str:
        """All that has been added to answers."""
        return "".join(f.text for f in self.facts if isinstance(f, TextArrived) and f.channel == channel)

    @property
    def changes(self) -> int:
        return sum(isinstance(fact, SessionChanged) for fact in self.facts)

    @property
    def lists(self) -> int:
        return sum(isinstance(fact, SessionsChanged) for fact in self.facts)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path))
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    return Bench()


@pytest.fixture
async def reader(bench: Bench) -> AsyncIterator[Reader]:
    reader = Reader()
    yield reader
    reader.follower.close()
    await reader.archive.close()
    await bench.archive.close()


async def test_text_comes_as_text_and_changes_as_changes(bench: Bench, reader: Reader) -> None:
    session, turn = await asked(bench)
    await bench.archive.flush()
    seen = reader.follow(session.id)
    bench.speak(turn, "be", "cau")
    await bench.until(lambda: reader.said("answer") == "becau")
    bench.speak(turn, "se")
    await bench.until(lambda: reader.said("answer") == "because")
    assert seen.branch()[-1].text == "because"
    assert reader.changes == 0, "a growing answer is drawn by what is added to it"
    bench.finish(turn.turn)
    await bench.until(lambda: seen.branch()[-1].finish == "stop")
    assert reader.changes > 0
    assert seen.branch()[-1].text == "because"


async def test_thinking_is_followed_in_its_own_channel(bench: Bench, reader: Reader) -> None:
    session, turn = await asked(bench)
    await bench.archive.flush()
    reader.follow(session.id)
    for tokens, (channel, text) in enumerate([("thinking", "It sorts."), ("answer", "By column.")], 1):
        delta = p.Delta(turn=turn.turn, text=text, channel=channel, tokens=tokens)  # type: ignore[arg-type]
        bench.engine.say(delta)
    await bench.until(lambda: (reader.said("thinking"), reader.said("answer")) == ("It sorts.", "By column."))
    bench.conversation.finish_now()


async def test_the_readers_own_draft_stays(bench: Bench, reader: Reader) -> None:
    session, turn = await asked(bench)
    await bench.archive.flush()
    seen = reader.follow(session.id)
    seen.draft = "written by the reader"
    bench.speak(turn, "because")
    await bench.until(lambda: reader.said("answer"))
    session.draft = "of the writer"
    bench.finish(turn.turn)
    await bench.until(lambda: seen.branch()[-1].finish)
    assert seen.draft == "written by the reader"


async def test_the_screen_is_told_when_the_writer_lets_go_and_not_before(bench: Bench, reader: Reader) -> None:
    session, turn = await asked(bench)
    await bench.archive.flush()
    reader.follow(session.id)
    bench.speak(turn, "because")
    await bench.until(lambda: reader.said("answer"))
    assert reader.free == []
    bench.conversation.finish_now()
    await bench.archive.close()
    await bench.until(lambda: reader.free)
    assert reader.archive.open(session.id).branch()[-1].finish == "stopped"
    assert reader.archive.why_read_only(session.id) is None
    told = len(reader.free)
    await asyncio.sleep(0.05)
    assert len(reader.free) <= told + 1, "one that is ours is followed no more"


async def test_a_session_that_its_writer_deletes_stays_on_the_screen(bench: Bench, reader: Reader) -> None:
    session, turn = await asked(bench)
    bench.speak(turn, "because")
    bench.finish(turn.turn)
    await bench.archive.flush()
    seen = reader.follow(session.id)
    await bench.archive.delete(session.id)
    await asyncio.sleep(0.1)
    assert [message.text for message in seen.branch()] == ["why", "because"]
    assert reader.free == [], "there is nothing to take over"


async def test_the_list_is_read_anew_for_files_of_others_alone(bench: Bench, reader: Reader) -> None:
    async def looked() -> None:
        reader.follower.look()
        assert reader.follower._looking is not None
        await reader.follower._looking

    session, turn = await asked(bench)
    bench.finish(turn.turn)
    await bench.archive.flush()
    await looked()
    await looked()
    assert reader.lists == 0
    bench.archive.rename(session.id, "By the other program")
    await bench.archive.flush()
    await looked()
    assert reader.lists == 1
    mine = reader.archive.new()
    mine.append("user", "by this one")
    reader.archive.save(mine)
    await reader.archive.flush()
    await looked()
    assert reader.lists == 1


async def test_a_disk_that_hangs_holds_up_no_look(
    bench: Bench, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = threading.Event()

    def hang(_: Path) -> tuple[int, ...]:
        assert hung.wait(20)
        return ()

    monkeypatch.setattr(module, "_stamp", hang)
    for _ in range(5):
        reader.follower.look()
        await asyncio.sleep(0)
    assert sum(thread.name == "hang" for thread in threading.enumerate()) == 1
    hung.set()
