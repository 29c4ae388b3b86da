"""A session that another program writes: it is followed live, cannot be written, and is taken over in the end."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import msgspec
import pytest

from quantchat.domain.chat import Session
from quantchat.store.locks import Holder
from quantchat.store.sessions import SessionStore
from ui.rig import SIZES, Rig, running
from unit.services.turn_bench import Bench

Patch = pytest.MonkeyPatch
FILES = Path(__file__).parents[1] / "data" / "sessions"
BOTH_SIZES = pytest.mark.parametrize("size", SIZES)


def shown(rig: Rig) -> str:
    """The transcript's lines that are on the screen."""
    transcript = rig.chat.transcript
    return "\n".join(transcript.render_line(y).text.rstrip() for y in range(transcript.size.height))


async def another(question: str) -> tuple[Bench, Session]:
    """Another program on the same home, in which a question is being answered."""
    bench = Bench()
    await bench.load()
    session, _ = bench.ask(question)
    await bench.archive.flush()
    return bench, session


def read_along(rig: Rig, session: Session) -> None:
    rig.chat.choose_session(session.id)
    assert rig.app.desk.archive.why_read_only(session.id) is not None


@BOTH_SIZES
async def test_what_another_program_writes_is_shown_as_it_streams(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        bench, session = await another("which kernel")
        turn = bench.engine.turns()[-1]
        read_along(rig, session)
        await rig.until(lambda: "read only" in rig.line("header"), "the header")
        for words in ("Marlin is", " the fastest", " of them"):
            bench.speak(turn, words)
            await rig.until(lambda words=words: words.strip() in shown(rig), f"{words!r} in the transcript")
        assert "Marlin is the fastest of them" in shown(rig)
        assert "Another quantchat is answering" in rig.line("activity")
        rig.chat.prompt.load("not from here")
        await rig.ask("not from here")
        await rig.until(lambda: rig.app._notifications, "a refusal")
        assert "not from here" not in shown(rig)
        bench.finish(turn.turn)
        await rig.until(lambda: rig.answers and rig.answers[-1].finish == "stop", "the end of the answer")
        await rig.until(lambda: "Another quantchat" not in rig.line("activity"), "a quiet activity line")
        bench.archive.rename(session.id, "Named over there")
        await rig.until(lambda: "Named over there" in rig.line("header"), "the new title")
        await bench.archive.close()


async def test_the_session_is_taken_over_when_the_other_program_leaves(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        bench, session = await another("which kernel")
        read_along(rig, session)
        rig.chat.prompt.load("my own words")
        bench.speak(bench.engine.turns()[-1], "Marlin")
        bench.conversation.finish_now()
        await bench.archive.close()
        await rig.until(lambda: "read only" not in rig.line("header"), "the lock")
        assert [message.text for message in rig.chat.session.branch()] == ["which kernel", "Marlin"]
        assert rig.answers[-1].finish == "stopped"
        assert rig.chat.prompt.text == "my own words"
        await rig.pilot.press("enter")
        await rig.answered(2)
        await rig.app.desk.archive.flush()
        stored = SessionStore().load(session.id)
        assert "my own words" in [message.text for message in stored.messages.values()]


async def test_what_both_had_not_sent_stands_in_the_prompt(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        bench, session = await another("which kernel")
        read_along(rig, session)
        rig.chat.prompt.load("mine")
        bench.finish(bench.engine.turns()[-1].turn)
        session.draft = "theirs"
        bench.archive.save(session)
        await bench.archive.close()
        await rig.until(lambda: "read only" not in rig.line("header"), "the lock")
        assert rig.chat.prompt.text == "theirs\n\nmine"


async def test_take_over_says_who_writes_it(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        bench, session = await another("which kernel")
        read_along(rig, session)
        rig.chat.action_takeover()
        assert "has been writing it since" in await rig.dialog()
        await rig.pilot.press("escape")
        bench.conversation.finish_now()
        await bench.archive.close()


async def test_a_holder_of_another_machine_is_asked_about(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        store = SessionStore()
        session = Session.new()
        session.append("user", "from the other box")
        store.save(session)
        holder = Holder(host="gpu-box-7", pid=1, since=session.created)

        def refuse(*_: object) -> None:
            raise OSError(37, "No locks available")

        monkeypatch.setattr("fcntl.flock", refuse)
        rig.app.desk.archive.locks.path(session.id).write_bytes(msgspec.json.encode(holder))
        read_along(rig, session)
        assert socket.gethostname() != holder.host
        await rig.ask("/takeover")
        await rig.until(lambda: rig.app.screen is not rig.chat, "a question")
        await rig.pilot.press("escape")
        assert rig.app.desk.archive.why_read_only(session.id) is not None
        rig.chat.action_takeover()
        await rig.until(lambda: rig.app.screen is not rig.chat, "a question")
        await rig.pilot.press("y")
        await rig.until(lambda: "read only" not in rig.line("header"), "the lock")


@BOTH_SIZES
async def test_a_newer_session_is_shown_and_left_alone(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        store = SessionStore()
        session_id = str(json.loads((FILES / "newer.json").read_bytes())["id"])
        store.root.mkdir(parents=True, exist_ok=True)
        shutil.copy(FILES / "newer.json", store.path(session_id))
        before = store.path(session_id).read_bytes()
        await rig.chat.refresh_sessions()
        assert [row.id for row in rig.chat.summaries] == [session_id]
        rig.chat.choose_session(session_id)
        await rig.until(lambda: "read only: written by a later" in rig.line("header"), "the header")
        assert "Once more" in shown(rig)
        await rig.ask("can I?")
        await rig.until(lambda: rig.app._notifications or rig.app.screen is not rig.chat, "a refusal")
        rig.chat.action_rename("Mine")
        await rig.app.desk.archive.flush()
        assert store.path(session_id).read_bytes() == before


async def test_the_lock_goes_back_when_another_session_is_shown(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("first")
        await rig.answered()
        first, archive = rig.chat.session, rig.app.desk.archive
        await rig.pilot.press("ctrl+n")
        await rig.until(lambda: not archive.locks.is_locked(first.id), "the lock of the first")
        other = Bench()
        other.archive.rename(first.id, "By another")
        await other.archive.close()
        rig.chat.choose_session(first.id)
        assert rig.chat.session.title == "By another"
        assert archive.why_read_only(first.id) is None
