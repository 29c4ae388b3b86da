"""Prompts and answers that are changed, answers that the user begins, and what of that is not sent yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.domain.attachments import Attachment
from quantchat.store.schema import decode_session
from quantchat.ui.screens.edit import EditScreen
from ui.reading_rig import chatting, screen, sizes
from ui.tree_rig import closed, editing, find, focus, notices, screen_of, shown

Patch = pytest.MonkeyPatch


# Changing and asking again


@sizes
async def test_a_prompt_is_changed_and_asked_again(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with chatting(tmp_path, monkeypatch, size, "q", "a", "r", "b") as rig:
        await rig.load()
        await focus(rig, "q")
        await rig.pilot.press("e")
        area = await editing(rig)
        assert area.text == "q"
        assert "Change your prompt" in screen_of(rig)
        assert "asks again" in screen_of(rig)
        await rig.pilot.press(*"2", "ctrl+j", *"more", "enter")
        await closed(rig)
        await rig.answered()
        assert shown(rig) == ["q2\nmore", "You said: q2\nmore"]
        assert rig.chat.focused is rig.chat.prompt
        assert "you · 2/2 · changed by you" in screen(rig)
        await focus(rig, "q2\nmore")
        await rig.pilot.press("left")
        assert shown(rig) == ["q", "a", "r", "b"]


async def test_the_last_prompt_is_changed_from_the_prompt(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a", "r", "b") as rig:
        await rig.load()
        for start in ("alt+e", "/edit"):
            if start.startswith("/"):
                await rig.ask(start)
            else:
                await rig.pilot.press(start)
            assert (await editing(rig)).text == "r"
            await rig.pilot.press("enter")
            await closed(rig)
            await rig.until(lambda: "Nothing was changed" in notices(rig))
        assert shown(rig) == ["q", "a", "r", "b"]


async def test_attachments_of_a_changed_prompt_stay_whole(tmp_path: Path, monkeypatch: Patch) -> None:
    file = Attachment(number=1, text="alpha\nbeta", name="x.txt")
    text = f"look\n{file.block()}"
    async with chatting(tmp_path, monkeypatch, (80, 24), text, "a") as rig:
        await rig.load()
        await rig.pilot.press("alt+e")
        area = await editing(rig)
        assert area.text == f"look\n{file.token}"
        await rig.pilot.press("home", *"well ", "enter")
        await closed(rig)
        await rig.answered()
        assert file.block() in shown(rig)[0]
        assert "well" in shown(rig)[0]


async def test_files_that_a_changed_prompt_mentions_are_attached(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "notes.txt").write_text("hidden words")
    monkeypatch.chdir(tmp_path)
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        await rig.load()
        await rig.pilot.press("alt+e")
        area = await editing(rig)
        area.load("see @./missing.txt")
        await rig.pilot.press("enter")
        await rig.until(lambda: "no such file" in notices(rig))
        assert isinstance(rig.app.screen, EditScreen)
        area.load("see @notes.txt")
        await rig.pilot.press("enter")
        await closed(rig)
        await rig.until(lambda: "hidden words" in shown(rig)[0])


async def test_an_answer_is_changed_and_goes_on(tmp_path: Path, monkeypatch: Patch) -> None:
    script: dict[str, object] = {"answers": [{"text": "One, two, three, four"}]}
    async with chatting(tmp_path, monkeypatch, (80, 24), "count", "One, 2, 3", script=script) as rig:
        await rig.load()
        await focus(rig, "One, 2, 3")
        await rig.pilot.press("e")
        area = await editing(rig)
        area.load_draft(area.draft_of("One, two,"))
        await rig.pilot.press("enter")
        await closed(rig)
        assert shown(rig) == ["count", "One, two,"]
        assert rig.chat.transcript.focused_message == find(rig, "One, two,").id
        await rig.until(lambda: "· 2/2 · changed by you" in screen(rig))
        assert "/continue goes on" in screen(rig)
        assert "stopped" not in screen(rig)
        await rig.ask("/continue")
        await rig.until(lambda: shown(rig) == ["count", "One, two, three, four"])
        assert find(rig, "One, 2, 3").finish == "stop"


async def test_the_answer_is_meant_wherever_the_focus_is(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a", "r", "b") as rig:
        await focus(rig, "q")
        await rig.chat.run_action("edit_answer")
        assert (await editing(rig)).text == "b"


async def test_a_large_paste_into_an_answer_is_its_text(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        await rig.ask("/edit-answer")
        (await editing(rig)).paste("\r\n".join(["pasted"] * 50))
        await rig.pilot.press("enter")
        await closed(rig)
        assert shown(rig)[-1] == "a" + "\n".join(["pasted"] * 50)


# What is not sent


async def test_a_change_that_is_not_sent_is_kept(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        session = rig.chat.session
        await focus(rig, "q")
        await rig.pilot.press("e")
        await editing(rig)
        await rig.pilot.press(*" half", "escape")
        await closed(rig)
        await rig.until(lambda: "you · unsent change" in screen(rig))
        await focus(rig, "q")
        await rig.pilot.press("e")
        area = await editing(rig)
        await rig.until(lambda: area.text == "q half")
        await rig.pilot.press("ctrl+z")
        assert area.text == "q"
        await rig.pilot.press("ctrl+y")
        assert area.text == "q half"
        path = tmp_path / "home" / "data" / "sessions" / f"{session.id}.json"
        await rig.until(lambda: path.exists() and decode_session(path.read_bytes()).edits, "the change on the disk")
        await rig.pilot.press("ctrl+z", "escape")
        await closed(rig)
        await rig.until(lambda: not decode_session(path.read_bytes()).edits, "no change any more")
        assert "unsent" not in screen(rig)


async def test_a_change_is_written_when_the_program_ends(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        session = rig.chat.session
        await rig.pilot.press("alt+e")
        await editing(rig)
        await rig.pilot.press(*" and more")
        await rig.until(lambda: session.edits)
        await rig.pilot.press("ctrl+q")
        await rig.until(lambda: rig.app._exit)
    stored = decode_session((tmp_path / "home" / "data" / "sessions" / f"{session.id}.json").read_bytes())
    assert list(stored.edits.values()) == ["q and more"]


async def test_a_prompt_that_cannot_be_asked_stays_in_its_dialog(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        await rig.pilot.press("alt+e")
        area = await editing(rig)
        await rig.pilot.press(*"2", "enter")
        await rig.until(lambda: "No model is loaded" in notices(rig))
        assert isinstance(rig.app.screen, EditScreen)
        assert area.text == "q2"
        assert shown(rig) == ["q", "a"]
        await rig.load()
        await rig.pilot.press("enter")
        await closed(rig)
        await rig.until(lambda: shown(rig) == ["q2", "You said: q2"])
        assert not rig.chat.session.edits


# The beginning of an answer


@sizes
async def test_the_user_begins_an_answer(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    script: dict[str, object] = {"answers": [{"text": "Well, that depends"}]}
    async with chatting(tmp_path, monkeypatch, size, "why [/b]", "a", script=script) as rig:
        await rig.load()
        await focus(rig, "a")
        await rig.pilot.press("b")
        area = await editing(rig)
        assert area.text == ""
        assert "“why [/b]” begins with" in screen_of(rig)
        await rig.pilot.press(*"Well, ", "escape")
        await closed(rig)
        await focus(rig, "why [/b]")
        await rig.pilot.press("b")
        area = await editing(rig)
        await rig.until(lambda: area.text == "Well, ")
        await rig.pilot.press("enter")
        await closed(rig)
        await rig.until(lambda: shown(rig) == ["why [/b]", "Well, that depends"])
        assert find(rig, "Well, that depends").given == "Well,"
        assert not rig.chat.session.edits


async def test_a_beginning_is_given_behind_the_command(tmp_path: Path, monkeypatch: Patch) -> None:
    script: dict[str, object] = {"answers": [{"text": "No, because"}]}
    async with chatting(tmp_path, monkeypatch, (80, 24), "why", "a", script=script) as rig:
        await rig.load()
        await rig.ask("/begin No,")
        await rig.until(lambda: shown(rig) == ["why", "No, because"])


async def test_an_earlier_answer_is_written_again(tmp_path: Path, monkeypatch: Patch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a", "r", "b") as rig:
        await rig.load()
        await focus(rig, "a")
        await rig.pilot.press("r")
        await rig.until(lambda: shown(rig) == ["q", "You said: q"])
        assert rig.chat.focused is rig.chat.transcript
