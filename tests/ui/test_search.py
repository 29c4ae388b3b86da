"""The search in all sessions, and the way from a hit to its message."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual.widgets import Input

from quantchat.domain.chat import Message, Session, SessionSummary, new_id
from quantchat.domain.found import Found, Hit
from quantchat.services.finding import Finder
from quantchat.store.locks import SessionLocks
from quantchat.ui.screens.search import HitList, HitRow, SearchScreen, excerpt, heading
from quantchat.ui.widgets.find import FindLine
from quantchat.ui.widgets.line import Line
from ui.rig import SIZES, SLOW, Rig, running
from ui.session_rig import keep, make_session

Patch = pytest.MonkeyPatch
BOTH_SIZES = pytest.mark.parametrize("size", SIZES)
LONG = "\n\n".join(f"Paragraph {number} about nothing." for number in range(60))


def branched() -> Session:
    """A session whose second answer is shown; the first says something that the second does not."""
    session = make_session("Two answers", 2, ["which river?", f"{LONG}\n\nThe cassowary swims.\n\n{LONG}"])
    question = next(iter(session.messages))
    second = Message(
        id=new_id(), role="assistant", text="The heron stands.", created=session.created, parent=question, finish="stop"
    )
    session.messages[second.id] = second
    session.head = second.id
    return session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keep(
        tmp_path,
        make_session("Birds of [/b] Australia", 1, ["which birds?", "The Cassowary and the emu"], tags=["nature"]),
        branched(),
        make_session("Nothing here", 3, ["yes?", "no"]),
    )
    return tmp_path


async def search(rig: Rig, text: str = "") -> SearchScreen:
    await rig.until(lambda: len(rig.chat.summaries) == 3, "sessions")
    await rig.pilot.press("ctrl+f")
    await rig.until(lambda: isinstance(rig.app.screen, SearchScreen) and rig.app.screen.query(Input))
    screen = rig.app.screen
    assert isinstance(screen, SearchScreen)
    screen.query_one(Input).value = text
    return screen


def said(screen: SearchScreen) -> str:
    return screen.query_one("#count", Line).plain


def lines(screen: SearchScreen) -> list[str]:
    hits = screen.query_one(HitList)
    return [hits.render_line(y).text.rstrip() for y in range(2 * len(hits.hits))]


async def test_hits_come_as_it_is_typed(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        screen = await search(rig)
        assert said(screen) == ""
        await rig.pilot.press(*"casso")
        await rig.until(lambda: said(screen) == "2 places in 2 sessions")
        assert lines(screen)[0].startswith("Two answers")
        assert "answer" in lines(screen)[0]
        assert "The cassowary swims." in lines(screen)[1]
        assert lines(screen)[2].startswith("Birds of [/b] Australia")
        assert "The Cassowary and the emu" in lines(screen)[3]
        await rig.pilot.press(*"wary x")
        await rig.until(lambda: said(screen) == "Nothing holds that")
        assert lines(screen) == []
        screen.query_one(Input).value = "nature"
        await rig.until(lambda: said(screen) == "1 place in 1 session")
        assert "tag" in lines(screen)[0]
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat)


@BOTH_SIZES
async def test_enter_goes_to_the_message_on_its_branch(folder: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(folder, monkeypatch, size=size) as rig:
        screen = await search(rig, "CASSOWARY swims")
        await rig.until(lambda: said(screen) == "1 place in 1 session")
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.chat.session.title == "Two answers")
        answer = next(m for m in rig.chat.session.messages.values() if "cassowary" in m.text)
        await rig.until(lambda: rig.chat.transcript.searching)
        assert rig.chat.session.head == answer.id, "the branch that holds it is shown"
        transcript = rig.chat.transcript
        assert transcript.focused_message == answer.id
        await rig.until(lambda: "cassowary swims" in shown(rig), "the place in view")
        assert rig.chat.focused is transcript
        assert not transcript.following
        await rig.pilot.press("escape")
        await rig.until(lambda: not transcript.searching)
        await rig.pilot.press("escape")
        assert rig.chat.focused is rig.chat.prompt


def shown(rig: Rig) -> str:
    transcript = rig.chat.transcript
    return "\n".join(transcript.render_line(y).text for y in range(transcript.size.height))


async def test_the_text_of_the_last_search_stands_there_again(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        screen = await search(rig, "emu")
        await rig.until(lambda: said(screen) == "1 place in 1 session")
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.chat.session.title.startswith("Birds"))
        assert rig.chat.query_one(FindLine).field.value == "emu"
        await rig.pilot.press("ctrl+f")
        await rig.until(lambda: isinstance(rig.app.screen, SearchScreen) and rig.app.screen.query(Input))
        assert rig.app.screen.query_one(Input).value == "emu"
        await rig.pilot.press(*"hero")
        assert rig.app.screen.query_one(Input).value == "hero", "what was there is written over"


async def test_a_hit_in_a_title_opens_the_session(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        await rig.until(lambda: len(rig.chat.summaries) == 3)
        await rig.ask("/search nothing here")
        await rig.until(lambda: isinstance(rig.app.screen, SearchScreen) and rig.app.screen.query(Input))
        screen = rig.app.screen
        assert isinstance(screen, SearchScreen)
        await rig.until(lambda: said(screen) == "1 place in 1 session")
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.chat.session.title == "Nothing here")
        assert rig.chat.focused is rig.chat.prompt
        assert not rig.chat.transcript.searching


async def test_unsaved_words_are_found_too(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch, SLOW) as rig:
        await rig.until(lambda: len(rig.chat.summaries) == 3)
        await rig.begin_slow()
        rig.chat.prompt.load("an unsent wombat")
        await rig.pilot.press("ctrl+f")
        await rig.until(lambda: isinstance(rig.app.screen, SearchScreen) and rig.app.screen.query(Input))
        screen = rig.app.screen
        assert isinstance(screen, SearchScreen)
        screen.query_one(Input).value = "wombat"
        await rig.until(lambda: said(screen) == "1 place in 1 session")
        assert "draft" in lines(screen)[0]
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.app.screen is rig.chat)
        assert rig.chat.prompt.text == "an unsent wombat"
        assert rig.chat.own_turn is not None, "the answer goes on"


async def test_a_session_of_another_program_turns_to_the_branch_unwritten(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        await rig.until(lambda: len(rig.chat.summaries) == 3)
        held = next(row.id for row in rig.chat.summaries if row.title == "Two answers")
        path = folder / "home" / "data" / "sessions" / f"{held}.json"
        before = path.read_bytes()
        with SessionLocks().acquire(held):
            screen = await search(rig, "cassowary swims")
            await rig.until(lambda: said(screen) == "1 place in 1 session")
            await rig.pilot.press("enter")
            await rig.until(lambda: rig.chat.session.id == held and "cassowary swims" in shown(rig))
            await rig.app.desk.archive.flush()
        assert path.read_bytes() == before


async def test_a_session_that_is_gone_says_so(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        screen = await search(rig, "emu")
        await rig.until(lambda: said(screen) == "1 place in 1 session")
        for path in (folder / "home" / "data" / "sessions").glob("*.json"):
            path.unlink()
        await rig.pilot.press("enter")
        assert "There is no such session" in await rig.dialog()


async def test_a_new_letter_breaks_the_search_off(folder: Path, monkeypatch: Patch) -> None:
    begun: list[str] = []
    ended: list[str] = []

    async def slow(_finder: Finder, text: str, **_options: object) -> Found:
        begun.append(text)
        if text == "a":
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(text)
        return Found(text=text)

    monkeypatch.setattr(Finder, "search", slow)
    async with running(folder, monkeypatch) as rig:
        screen = await search(rig, "a")
        await rig.until(lambda: "a" in begun)
        assert said(screen) == "Searching …"
        await rig.pilot.press("enter")
        screen.query_one(Input).value = "ab"
        await rig.until(lambda: said(screen) == "Nothing holds that")
        assert set(ended) == {"a"}
        assert rig.app.screen is screen


@pytest.mark.parametrize("width", [18, 24, 60, 120])
def test_the_hit_stays_in_view(width: int) -> None:
    row = SessionSummary.of(make_session("A title " * 9))
    before = "some words before that are rather long, "
    hit = Hit(
        session=row,
        place="answer",
        message="m",
        excerpt=f"{before}HIT and what comes behind it",
        start=len(before),
        end=len(before) + 3,
        count=3,
    )
    line = excerpt(hit, width)
    assert "HIT" in line.plain[:width]
    assert line.plain.endswith("…" if line.cell_length >= width else "behind it"), "what is cut off shows"
    assert line.cell_length <= width
    assert "×3" in heading(HitRow(hit, below=False), 60).plain
