"""/export and /import in the screen: what is chosen, what is told, and what can be stopped."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from textual.widgets import Static

from quantchat.services import exchange as services
from quantchat.store.exchange import staging
from quantchat.store.exchange.importing import Import
from quantchat.ui.screens.dialogs import ConfirmScreen
from quantchat.ui.screens.exchange import ExportScreen, TransferScreen
from quantchat.ui.widgets.field import Field
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import RowList
from ui.rig import SIZES, SLOW, Rig, running

Patch = pytest.MonkeyPatch
ANSWER: dict[str, object] = {"answers": [{"match": "tides", "text": "The **moon** pulls."}]}


def told(rig: Rig, words: str) -> bool:
    return any(words in str(notice.message) for notice in rig.app._notifications)


def history(folder: Path, *texts: str, name: str = "in.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n" for text in texts))
    return path


async def answered(rig: Rig) -> None:
    await rig.load()
    await rig.ask("Why do tides come?")
    await rig.answered()


def titles(rig: Rig) -> set[str]:
    return {summary.title for summary in rig.chat.summaries}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


# Export


@pytest.mark.parametrize("size", SIZES)
async def test_a_format_is_chosen_and_what_it_loses_is_said(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, ANSWER, size=size) as rig:
        await answered(rig)
        await rig.ask("/export")
        await rig.until(
            lambda: isinstance(rig.app.screen, ExportScreen) and rig.app.screen.query(RowList), "the dialog"
        )
        screen = rig.app.screen
        frame = screen.query_one(".dialog")
        assert rig.app.size.region.contains_region(frame.region)
        losses = screen.query_one("#losses", Static)
        assert all(frame.region.contains_region(part.region) for part in (losses, *screen.query("RowList, Field")))
        await rig.until(lambda: screen.query_one(Field).value.endswith("Why-do-tides-come.md"), "a name for the file")
        assert str(losses.content) == "Leaves out run cards, settings"
        await rig.pilot.press("j")
        await rig.until(lambda: screen.query_one(Field).value.endswith("tides-come.json"), "another name")
        assert str(losses.content) == "Leaves out nothing of it"
        await rig.pilot.press("enter")
        path = tmp_path / "here" / "Why-do-tides-come.json"
        await rig.until(lambda: told(rig, f"Written to {path}"), "the word")
        assert json.loads(path.read_text())["messages"]


async def test_a_typed_name_says_the_format_and_no_file_is_written_over(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, ANSWER) as rig:
        await answered(rig)
        await rig.ask("/export talk.md")
        path = tmp_path / "here" / "talk.md"
        await rig.until(lambda: told(rig, "Left out: run cards"), "the word")
        assert "The **moon** pulls." in path.read_text()
        path.write_text("mine")
        await rig.ask("/export talk.md")
        await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen), "the question")
        await rig.pilot.press("n")
        assert path.read_text() == "mine"
        await rig.ask("/export talk.md")
        await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen), "the question")
        await rig.pilot.press("y")
        await rig.until(lambda: path.read_text() != "mine", "the new file")
        await rig.ask("/export html")
        await rig.until(lambda: (tmp_path / "here" / "Why-do-tides-come.html").exists(), "the page")


@pytest.mark.parametrize(
    ("typed", "words"),
    [("/export", "nothing in this session yet"), ("/export x.md", "nothing in this session yet")],
)
async def test_an_empty_session_is_not_exported(tmp_path: Path, monkeypatch: Patch, typed: str, words: str) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask(typed)
        await rig.until(lambda: told(rig, words), "the word")


async def test_what_cannot_be_written_is_explained(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, ANSWER) as rig:
        await answered(rig)
        await rig.ask("/export talk.txt")
        await rig.until(lambda: told(rig, "does not say its format"), "the word")
        await rig.ask("/export no/such/talk.md")
        assert "there is no folder" in (await rig.dialog()).lower()


async def test_the_answer_so_far_is_exported_while_it_streams(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, SLOW) as rig:
        await rig.begin_slow()
        await rig.ask("/export talk.json")
        path = tmp_path / "here" / "talk.json"
        await rig.until(path.exists, "the file")
        texts = [message["text"] for message in json.loads(path.read_text())["messages"].values()]
        assert texts[0] == "be slow"
        assert texts[1].startswith("word")
        assert rig.chat.own_turn is not None


async def test_several_sessions_are_exported_together(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, ANSWER) as rig:
        await answered(rig)
        await rig.ask(f"/import {history(tmp_path, 'one', 'two')}")
        await rig.until(lambda: {"one", "two"} <= titles(rig), "the sessions")
        rig.chat.export_sessions([summary.id for summary in rig.chat.summaries])
        await rig.until(
            lambda: isinstance(rig.app.screen, ExportScreen) and rig.app.screen.query(RowList), "the dialog"
        )
        losses = rig.app.screen.query_one("#losses", Static)
        await rig.until(lambda: "what was deleted" in str(losses.content), "what the format cannot hold")
        await rig.pilot.press("j", "enter")
        path = tmp_path / "here" / "sessions.json"
        await rig.until(path.exists, "the file")
        assert len(json.loads(path.read_text())) == 3


# Import


async def test_one_session_comes_in_and_is_shown(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, ANSWER) as rig:
        await answered(rig)
        await rig.ask("/export all.json")
        await rig.until(lambda: told(rig, "Written to"), "the file")
        content = json.loads((tmp_path / "here" / "all.json").read_text())
        content["title"], content["id"] = "evil \x1b[2J", "20200101T000000000-abcdef"
        (tmp_path / "here" / "all.json").write_text(json.dumps(content))
        await rig.ask("/import all.json")
        await rig.until(lambda: rig.chat.session.title == "evil \x1b[2J", "the imported session")
        assert told(rig, "1 session with 2 messages")
        assert [answer.text for answer in rig.answers] == ["The **moon** pulls."]
        assert "\x1b" not in rig.line("header")
        await rig.ask("And tides?")
        await rig.answered(2)


async def test_import_alone_asks_for_a_file(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.chat.run_action("import_sessions")
        assert rig.chat.prompt.text == "/import "


async def test_bad_parts_are_told_and_the_rest_may_come_in(tmp_path: Path, monkeypatch: Patch) -> None:
    path = history(tmp_path, "one", "two")
    path.write_text(path.read_text() + '{"messages": [{"role": "robot"}]}\n')
    async with running(tmp_path, monkeypatch) as rig:
        for key, expected in (("n", 0), ("y", 2)):
            await rig.ask(f"/import {path}")
            await rig.until(
                lambda: isinstance(rig.app.screen, ConfirmScreen) and rig.app.screen.query(Static), "the question"
            )
            question = str(rig.app.screen.query_one(Static).content)
            assert "in.jsonl, line 3: message 1 has the role 'robot'" in question
            await rig.pilot.press(key)
            await rig.until(lambda: not isinstance(rig.app.screen, ConfirmScreen), "the end of the question")
            await rig.until(lambda expected=expected: len(rig.chat.summaries) == expected, "the list")
            await rig.until(lambda: not (tmp_path / "home" / "data" / "incoming").exists(), "no leftovers")


async def test_a_file_of_nothing_is_explained(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "bad.json").write_text('[{"role": "robot"}]')
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask(f"/import {tmp_path / 'bad.json'}")
        assert "ad.json, line 1: message 1 has the role 'robot'" in await rig.dialog()
        await rig.pilot.press("escape")
        await rig.ask(f"/import {tmp_path / 'gone.json'}")
        assert "gone.json" in await rig.dialog()


@pytest.fixture
def held(monkeypatch: Patch) -> asyncio.Event:
    """Holds reading back until the event is set, as a slow disk would, or until the user stops it."""
    go = asyncio.Event()
    read = services.read

    async def slow(incoming: Import, path: Path) -> None:
        while not go.is_set():
            incoming.progress.check()
            await asyncio.sleep(0.01)
        await read(incoming, path)

    monkeypatch.setattr(services, "read", slow)
    return go


async def test_a_long_import_shows_how_far_it_is(tmp_path: Path, monkeypatch: Patch, held: asyncio.Event) -> None:
    path = history(tmp_path, *(f"question {number}" for number in range(50)))
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask(f"/import {path}")
        await rig.until(lambda: isinstance(rig.app.screen, TransferScreen) and rig.app.screen.query(Line), "the dialog")
        screen = rig.app.screen
        assert rig.app.size.region.contains_region(screen.query_one(".dialog").region)
        await rig.until(lambda: screen.query_one(Line).plain == "0 sessions", "how far it is")
        held.set()
        await rig.until(lambda: len(rig.chat.summaries) == 50, "the sessions")
        await rig.until(lambda: not isinstance(rig.app.screen, TransferScreen), "the end of the dialog")
        assert told(rig, "50 sessions with 50 messages")


async def test_a_long_import_can_be_stopped(tmp_path: Path, monkeypatch: Patch, held: asyncio.Event) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask(f"/import {history(tmp_path, 'one')}")
        await rig.until(lambda: isinstance(rig.app.screen, TransferScreen), "the dialog")
        await rig.pilot.press("escape")
        await rig.until(lambda: told(rig, "The import was stopped; nothing came in"), "the word")
        await rig.until(lambda: not isinstance(rig.app.screen, TransferScreen), "the end of the dialog")
        assert rig.chat.summaries == []
        assert not (tmp_path / "home" / "data" / "incoming").exists()


async def test_a_file_that_never_answers_can_be_left(tmp_path: Path, monkeypatch: Patch) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask(f"/import {tmp_path / 'pipe'}")
        await rig.until(lambda: isinstance(rig.app.screen, TransferScreen), "the dialog")
        await rig.pilot.press("escape")
        await rig.until(lambda: told(rig, "nothing came in"), "the word")
        await rig.until(lambda: not isinstance(rig.app.screen, TransferScreen), "the end of the dialog")
    (tmp_path / "pipe").write_bytes(b"[]")


async def test_what_was_broken_off_comes_in_at_the_next_start(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    from quantchat.store.sessions import SessionStore

    incoming = Import(SessionStore())
    incoming.__enter__()
    incoming.read(history(tmp_path, "left over"))
    incoming.incoming._sync()
    staging._own.clear()
    assert os.listdir(tmp_path / "home" / "data" / "incoming")
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: titles(rig) == {"left over"}, "the session")
        assert not (tmp_path / "home" / "data" / "incoming").exists()
