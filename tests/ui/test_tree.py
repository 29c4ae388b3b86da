"""Versions, branches, deletions, forks and run cards, by their keys and by their names."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from quantchat.domain.chat import utc_now
from quantchat.services.archive import Archive
from quantchat.store.sessions import SessionStore
from quantchat.ui.screens.card import CardScreen
from quantchat.ui.screens.dialogs import ConfirmScreen
from quantchat.ui.screens.edit import EditScreen
from quantchat.ui.views import message_views
from ui.reading_rig import chatting, screen, sizes
from ui.rig import SLOW, Rig, running
from ui.test_transcript import view
from ui.tree_rig import add, closed, editing, find, focus, notices, screen_of, shown

Patch = pytest.MonkeyPatch
SEEDS = range(int(os.environ.get("QUANTCHAT_TEST_TREES", "1")))
LONG = "\n\n".join(f"line {number}" for number in range(60))


# Versions


async def test_versions_are_walked_at_the_message(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a", "r", "b") as rig:
        add(rig, "other", parent=find(rig, "q").id)
        assert "· 2/2" in screen(rig)
        await focus(rig, "other")
        await rig.pilot.press("less_than_sign")
        assert shown(rig) == ["q", "a", "r", "b"]
        assert rig.chat.transcript.focused_message == find(rig, "a").id
        assert "· 1/2" in screen(rig)
        await rig.pilot.press("less_than_sign")
        assert shown(rig) == ["q", "a", "r", "b"]
        await rig.pilot.press("greater_than_sign")
        assert shown(rig) == ["q", "other"]
        await rig.pilot.press("left")
        assert rig.chat.transcript.focused_message == find(rig, "a").id
        await rig.pilot.press("j", "greater_than_sign")
        await rig.until(lambda: "one version" in notices(rig))


@sizes
async def test_the_place_stays_while_versions_are_walked(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with chatting(tmp_path, monkeypatch, size, *["q", LONG] * 3, "last", "a", "on", LONG) as rig:
        add(rig, "b", parent=find(rig, "last").id)
        await focus(rig, "b")
        row = next(number for number, line in enumerate(view(rig.pilot)) if line.strip().endswith("· 2/2"))
        for key, text in (("left", "a"), ("right", "b"), ("left", "a")):
            await rig.pilot.press(key)
            assert rig.chat.transcript.focused_message == find(rig, text).id
            lines = view(rig.pilot)
            assert "/2" in lines[row]
            assert lines[row + 1].split()[-1] == text
        assert not rig.chat.transcript.unseen


async def test_a_version_is_chosen_by_its_number(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a", "r", "b") as rig:
        await rig.ask("/version")
        await rig.until(lambda: "No message here has another version" in notices(rig))
        for text in ("b2", "b3"):
            add(rig, text, parent=find(rig, "r").id)
        await rig.ask("/version 1")
        await rig.until(lambda: shown(rig)[-1] == "b")
        await rig.ask("/version")
        await rig.until(lambda: shown(rig)[-1] == "b2")
        await rig.ask("/version >")
        await rig.until(lambda: shown(rig)[-1] == "b3")
        await rig.ask("/version")
        await rig.until(lambda: shown(rig)[-1] == "b")
        await rig.ask("/version 4")
        await rig.until(lambda: "versions 1 to 3" in notices(rig))


async def test_a_long_branch_is_exchanged_as_if_it_had_been_opened(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "start", *[f"old {n}" for n in range(1, 30)]) as rig:
        transcript = rig.chat.transcript
        transcript.find("new")
        for number in range(40):
            where = {"parent": find(rig, "start").id} if number == 0 else {}
            rig.chat.session.append("user" if number % 2 else "assistant", f"new {number}", **where).finish = "stop"
        rig.chat.sync_transcript()
        assert [entry.message for entry in transcript._document.entries] == rig.chat._views
        assert transcript._search is not None
        assert transcript._search.total == 40
        await rig.pilot.pause()
        exchanged = screen(rig)
        assert "new 39" in exchanged
        transcript.show(rig.chat._views)
        await rig.pilot.pause()
        assert screen(rig) == exchanged
        await focus(rig, "new 0")
        await rig.pilot.press("left")
        assert [entry.message for entry in transcript._document.entries] == rig.chat._views
        assert transcript.focused_message == find(rig, "old 1").id
        assert transcript._search.total == 0


async def test_the_keys_of_the_transcript_are_said_while_it_has_the_keyboard(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    config = '[keys.read]\nedit = "x"\n'
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a", config=config) as rig:
        await rig.pilot.press("f6")
        await rig.until(lambda: "x change" in rig.line("activity"))
        assert "< > version" in rig.line("activity")
        assert "i card" in rig.line("activity")
        assert len(rig.line("activity")) < 80
        await rig.pilot.press("tab")
        await rig.until(lambda: not rig.line("activity").strip())


# Deleting


@sizes
async def test_a_message_is_deleted_and_comes_back(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with chatting(tmp_path, monkeypatch, size, "q", "a", "r", "b") as rig:
        await focus(rig, "r")
        await rig.pilot.press("D")
        assert shown(rig) == ["q", "a"]
        assert "Deleted 2 messages" in notices(rig)
        assert rig.chat.transcript.focused_message == find(rig, "a").id
        await rig.pilot.press("D")
        assert shown(rig) == ["q"]
        assert "Not answered yet" in screen(rig)
        await rig.pilot.press("u", "u")
        assert shown(rig) == ["q", "a", "r", "b"]
        assert rig.chat.transcript.focused_message == find(rig, "r").id
        await rig.pilot.press("u")
        await rig.until(lambda: "Nothing was deleted" in notices(rig))


async def test_a_deleted_version_gives_its_place_to_the_one_beside_it(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        add(rig, "other", parent=find(rig, "q").id)
        await rig.ask("/delete-message")
        await rig.until(lambda: shown(rig) == ["q", "a"])
        await rig.ask("/undo")
        await rig.until(lambda: shown(rig) == ["q", "other"])


async def test_all_messages_are_deleted_and_come_back_after_a_restart(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        session = rig.chat.session
        await focus(rig, "q")
        await rig.pilot.press("D")
        assert shown(rig) == []
        await rig.pilot.press("tab")
        rig.chat.keep_draft()
        await rig.ask("/new")
        await rig.until(lambda: rig.chat.session is not session, "a new one")
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: rig.chat.summaries)
        rig.chat.choose_session(session.id)
        await rig.ask("/undo")
        await rig.until(lambda: shown(rig) == ["q", "a"])


async def test_what_was_deleted_is_forgotten_only_when_the_user_says_so(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        await rig.ask("/purge")
        await rig.until(lambda: "Nothing was deleted" in notices(rig))
        await rig.ask("/delete-message")
        await rig.until(lambda: shown(rig) == ["q"])
        for key, left in (("n", 1), ("escape", 1), ("y", 0)):
            await rig.ask("/purge")
            await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen))
            await rig.pilot.press("enter")
            assert isinstance(rig.app.screen, ConfirmScreen), "Enter may have been pressed twice"
            await rig.pilot.press(key)
            await closed(rig)
            assert len(rig.chat.session.deleted) == left


# Forks


async def test_a_session_is_forked_at_a_message(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a", "r", "b") as rig:
        await rig.load()
        first = rig.chat.session
        await focus(rig, "a")
        await rig.pilot.press("f")
        await rig.until(lambda: rig.chat.session is not first)
        assert shown(rig) == ["q", "a"]
        assert "(fork)" in rig.line("header")
        await rig.ask("s")
        await rig.until(lambda: shown(rig) == ["q", "a", "s", "You said: s"])
        assert [message.text for message in first.branch()] == ["q", "a", "r", "b"]


# Run cards


@sizes
async def test_the_run_card_of_an_answer(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with chatting(tmp_path, monkeypatch, size, "q", "a [/b]") as rig:
        await rig.load()
        await rig.ask("one")
        await rig.answered(2)
        await focus(rig, "You said: one")
        await rig.pilot.press("i")
        await rig.until(lambda: isinstance(rig.app.screen, CardScreen) and "gptq_torch_aten" in screen_of(rig))
        words = screen_of(rig)
        assert "You said: one" in words
        assert "GPTQ 4b g128" in words
        assert "0.0-scripted" in card_text(rig)
        assert "Temperature" in card_text(rig)
        await rig.pilot.press("escape")
        await closed(rig)
        await focus(rig, "a [/b]")
        await rig.pilot.press("i")
        await rig.until(lambda: isinstance(rig.app.screen, CardScreen) and "a [/b]" in screen_of(rig))
        assert "Kernel" not in card_text(rig)


def card_text(rig: Rig) -> str:
    assert isinstance(rig.app.screen, CardScreen)
    return "\n".join(f"{row.label} {row.value}" for part in rig.app.screen.sections for row in part.rows)


# Refusals


async def test_a_busy_session_refuses_and_others_do_not(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, SLOW) as rig:
        await rig.begin_slow()
        await rig.pilot.press("alt+e")
        await rig.until(lambda: "still answering" in notices(rig))
        assert rig.app.screen is rig.chat
        await rig.ask("/undo")
        busy = rig.chat.session
        await rig.pilot.press("ctrl+n")
        session = rig.chat.session
        for number, text in enumerate(("q", "a")):
            session.append("assistant" if number else "user", text).finish = "stop"
        session.updated = utc_now()
        rig.chat.open_session(session)
        await focus(rig, "a")
        await rig.pilot.press("D")
        assert shown(rig) == ["q"]
        await rig.pilot.press("u")
        assert shown(rig) == ["q", "a"]
        assert busy.id in rig.chat.desk.conversation.streaming


async def test_a_prompt_that_waits_is_no_message_yet(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, SLOW) as rig:
        await rig.begin_slow()
        await rig.ask("and then")
        await rig.until(lambda: rig.chat.session.queued)
        rig.chat.action_transcript()
        rig.chat.transcript.bring("queued:0")
        await rig.pilot.press("e")
        await rig.until(lambda: "still waits" in notices(rig))


async def test_a_session_of_another_program_refuses_and_can_be_forked(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        session = rig.chat.session
        rig.chat.keep_draft()
        await rig.chat.desk.archive.flush()
        other = Archive(lambda _fact: None)
        mine = other.new()
        question = mine.append("user", "x").id
        for text in ("first", "y"):
            mine.append("assistant", text, parent=question).finish = "stop"
        other.save(mine)
        await other.flush()
        await rig.chat.refresh_sessions()
        rig.chat.choose_session(mine.id)
        assert "read only" in rig.line("header")
        await focus(rig, "y")
        await rig.pilot.press("D")
        assert shown(rig) == ["x", "y"]
        assert notices(rig)
        await rig.pilot.press("left")
        assert shown(rig) == ["x", "first"]
        assert [message.text for message in SessionStore().load(mine.id).branch()] == ["x", "y"]
        await rig.pilot.press("right")
        await rig.pilot.press("f")
        await rig.until(lambda: rig.chat.session not in (mine, session))
        assert "read only" not in rig.line("header")
        assert shown(rig) == ["x", "y"]
        await other.close()


async def test_an_empty_session_says_why_not(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        for command in ("edit", "edit-answer", "fork", "begin", "begin x", "delete-message", "undo", "card", "version"):
            rig.app.clear_notifications()
            await rig.ask(f"/{command}")
            await rig.until(lambda: notices(rig), command)
            assert rig.app.screen is rig.chat


# Any keys


async def every_text(rig: Rig) -> set[str]:
    """All prompts and finished answers that memory and disk hold, deleted or not."""
    await rig.chat.desk.archive.flush()
    store = SessionStore()
    sessions = [rig.chat.session, *(store.load(path.stem) for path in store.root.glob("*.json"))]
    gone = [deletion.messages for session in sessions for deletion in session.deleted]
    held = [*(session.messages for session in sessions), *gone]
    return {message.text for messages in held for message in messages.values()}


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_order_of_keys_loses_a_word(tmp_path: Path, monkeypatch: Patch, seed: int) -> None:
    script: dict[str, object] = {"answers": [{"tokens_per_second": 0}]}
    chance = random.Random(seed)
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a", "r", "b", script=script) as rig:
        await rig.load()
        written = await every_text(rig)
        for _ in range(60):
            rig.chat.action_transcript()
            key = chance.choice(["less_than_sign", "greater_than_sign", *"eeDuurbfjkkg"])
            await rig.pilot.press(key)
            if isinstance(rig.app.screen, EditScreen):
                await editing(rig)
                await rig.pilot.press(*chance.choice([("x", "enter"), ("y", "escape"), ("enter",), ("escape",)]))
                await rig.pilot.pause()
                if isinstance(rig.app.screen, EditScreen):
                    await rig.pilot.press("escape")
                await closed(rig)
            await rig.until(lambda: not rig.chat.desk.conversation.busy, "quiet")
            held = await every_text(rig)
            assert held >= written, key
            written = held
            shown_now = [entry.message for entry in rig.chat.transcript._document.entries]
            assert shown_now == message_views(rig.chat.session, None, False), key
        await rig.chat.desk.archive.flush()
        session = rig.chat.session
        stored = SessionStore().load(session.id) if session.messages or session.deleted else session
        assert stored.messages.keys() == session.messages.keys()
        assert stored.head == session.head
