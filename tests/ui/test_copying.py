"""Selecting in the transcript and copying from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ui.reading_rig import (
    chatting,
    sizes,
    transcript,
)
from ui.test_transcript import answer, conversation, user

CODE = "First:\n\n```python\nprint(1)\n```\n\n- in a list:\n\n  ```sh\n  ls -l\n  pwd\n  ```\n\nEnd."


@sizes
async def test_selecting_by_mouse_over_messages_while_text_streams(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show([user(0, "漢字 mine"), answer(0, "its words", streaming=True)])
        await pilot.pause()
        await pilot.mouse_down(widget, offset=(4, 1))
        await pilot.hover(widget, offset=(3, 4))
        widget.extend("a0", "\n\nand more")
        await pilot.hover(widget, offset=(4, 4))
        await pilot.mouse_up(widget, offset=(4, 4))
        await pilot.pause()
        assert pilot.app.screen.get_selected_text() == "字 mine\n\nSmolLM2\nits"
        widget.extend("a0", "\n\nand again")
        await pilot.pause()
        assert pilot.app.screen.get_selected_text() == "字 mine\n\nSmolLM2\nits"


async def test_a_selection_does_not_pass_to_other_messages() -> None:
    """It named lines by number, so that Ctrl+C copied words of the next session that nobody had selected."""
    async with transcript((80, 24)) as (pilot, widget):
        widget.show(conversation(3))
        widget.action_scroll_home()
        await pilot.pause()
        await pilot.click(widget, offset=(4, 1), times=2)
        assert pilot.app.screen.get_selected_text() == "question"
        widget.discard("a2")
        assert pilot.app.screen.get_selected_text() == "question"
        widget.discard("u0")
        assert pilot.app.screen.get_selected_text() is None
        await pilot.click(widget, offset=(4, 6), times=2)
        assert pilot.app.screen.get_selected_text()
        widget.show(conversation(4))
        assert pilot.app.screen.get_selected_text() is None


@sizes
async def test_two_clicks_select_a_word_and_three_a_message(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show([user(0, "漢字 mine"), answer(0, "these are its words\n\nand more")])
        await pilot.pause()
        await pilot.click(widget, offset=(12, 4), times=2)
        await pilot.pause()
        assert pilot.app.screen.get_selected_text() == "its"
        await pilot.click(widget, offset=(12, 4), times=3)
        await pilot.pause()
        assert pilot.app.screen.get_selected_text() == "SmolLM2\nthese are its words\n\nand more"
        await pilot.click(widget, offset=(5, 1), times=2)
        await pilot.pause()
        assert pilot.app.screen.get_selected_text() == "漢字"


@sizes
async def test_messages_and_code_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    async with chatting(tmp_path, monkeypatch, size, "ask\x07", CODE, "and", "no code", thinking="hm") as rig:
        sent: list[tuple[str, str]] = []
        monkeypatch.setattr("quantchat.ui.clipboard.send", lambda _app, text, what: sent.append((text, what)))
        await rig.pilot.press("ctrl+o", "alt+c", "alt+c", "alt+c")
        await rig.pilot.press("f6", "y", "g", "y", "j", "y", "c")
        await rig.until(lambda: len(sent) == 8, "all copies")
        assert sent == [
            ("no code", "the last answer"),
            ("ls -l\npwd", "code block 2 of 2, sh, 2 lines"),
            ("print(1)", "code block 1 of 2, python, 1 line"),
            ("ls -l\npwd", "code block 2 of 2, sh, 2 lines"),
            ("no code", "the answer"),
            ("ask\x07", "your message"),
            (CODE, "the answer"),
            ("print(1)", "code block 1 of 2, python, 1 line"),
        ]


@sizes
async def test_there_may_be_nothing_to_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    async with chatting(tmp_path, monkeypatch, size, "ask", "no code") as rig:
        await rig.pilot.press("alt+c")
        await rig.until(
            lambda: "There is no code to copy" in [note.message for note in rig.app._notifications], "words"
        )


@sizes
async def test_ctrl_c_copies_what_the_mouse_selected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    async with chatting(tmp_path, monkeypatch, size, "漢字 mine", "**its** words") as rig:
        widget = rig.chat.transcript
        await rig.pilot.mouse_down(widget, offset=(4, 1))
        await rig.pilot.hover(widget, offset=(5, 4))
        await rig.pilot.mouse_up(widget, offset=(5, 4))
        await rig.pilot.press("ctrl+c")
        await rig.until(lambda: rig.app.clipboard, "the clipboard")
        assert rig.app.clipboard.split("\n")[0] == "字 mine"
        assert rig.app.clipboard.split("\n")[-1] == "its"
        widget.text_select_all()
        await rig.pilot.press("ctrl+c")
        await rig.until(lambda: "**its**" in rig.app.clipboard, "the source")
        assert rig.app.clipboard == "漢字 mine\n\n**its** words"


async def test_ctrl_c_copies_what_is_selected_in_the_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "ask", "say") as rig:
        rig.chat.prompt.load("some words")
        rig.chat.prompt.select_all()
        await rig.pilot.press("ctrl+c")
        await rig.until(lambda: rig.app.clipboard == "some words", "the clipboard")
