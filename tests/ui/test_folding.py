"""Thinking, long prompts and attachments, folded and unfolded."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.domain.attachments import Attachment
from quantchat.ui.widgets.transcript import MessageView
from ui.reading_rig import (
    chatting,
    screen,
    sizes,
    thinker,
    transcript,
)
from ui.test_transcript import answer, conversation, shown, user, view, words


@sizes
async def test_thinking_is_folded_and_unfolded(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show([user(0, "why"), thinker(0)])
        widget.focus()
        await pilot.pause()
        assert "▸ thought for 5 words" in shown(pilot)
        assert "so it is" not in shown(pilot)
        await pilot.press("o")
        assert [line for line in words(pilot) if line][2:] == [
            "SmolLM2",
            "▾ thinking",
            "first",
            "then",
            "so it is",
            "the answer",
        ]
        await pilot.press("enter")
        assert "so it is" not in shown(pilot)
        assert widget.source_of_last_answer() == "the answer"


@sizes
async def test_all_thinking_is_shown_and_hidden_together(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show([thinker(0, thinking="one"), thinker(1, thinking="two")])
        widget.thinking_shown = True
        await pilot.pause()
        assert {"one", "two"} <= set(words(pilot))
        widget.append(thinker(2, thinking="three"))
        await pilot.pause()
        assert "three" in words(pilot)
        widget.thinking_shown = False
        await pilot.pause()
        assert not {"one", "two", "three"} & set(words(pilot))


@sizes
async def test_thinking_streams_folded_to_its_last_lines_and_folds_when_the_answer_begins(
    size: tuple[int, int],
) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show([answer(0, "", streaming=True)])
        for number in range(10):
            widget.extend("a0", f"thought {number}\n", "thinking")
        await pilot.pause()
        assert [line for line in words(pilot) if line] == [
            "SmolLM2",
            "▸ thinking, 20 words",
            "thought 7",
            "thought 8",
            "thought 9",
        ]
        widget.extend("a0", "So")
        widget.extend("a0", " be it")
        await pilot.pause()
        assert [line for line in words(pilot) if line] == ["SmolLM2", "▸ thought for 20 words", "So be it"]


async def test_thinking_that_is_shown_streams_as_it_is_shown_at_once() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.thinking_shown = True
        widget.show([answer(0, "", streaming=True)])
        thinking = "\n\nOne thought, a long one, " + "with more words " * 20 + "\n\n- a\n- b\n\nlast"
        for start in range(0, len(thinking), 7):
            widget.extend("a0", thinking[start : start + 7], "thinking")
            await pilot.pause(0)
        widget.extend("a0", "done")
        await pilot.pause()
        streamed = view(pilot)
        widget.show([answer(0, "done", streaming=True)])
        widget.replace(MessageView("a0", "assistant", "done", "SmolLM2", thinking=thinking))
        await pilot.pause()
        assert view(pilot) == streamed
        assert words(pilot)[2].startswith("One thought")


async def test_hostile_thinking_is_cleaned() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.thinking_shown = True
        widget.show([thinker(0, thinking="\x1b[2J\u202eback [bold]x[/]")])
        await pilot.pause()
        assert "[2Jback [bold]x[/]" in words(pilot)


@sizes
async def test_a_long_paste_is_folded(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show([user(0, "\n".join(f"row {number}" for number in range(320)))])
        widget.focus()
        await pilot.pause()
        assert "row 5" in shown(pilot)
        assert "row 6" not in shown(pilot)
        assert "314 more lines" in shown(pilot)
        await pilot.press("o")
        assert "row 6" in shown(pilot)
        await pilot.press("G")
        assert "row 319" in shown(pilot)
        await pilot.press("o")
        assert "314 more lines" in shown(pilot)
        assert "row 5" in shown(pilot)


async def test_one_long_line_is_folded_too() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show([user(0, "x" * 9_600)])
        await pilot.pause()
        assert "9,000 more characters" in shown(pilot)
        assert "x" * 70 in shown(pilot)


@sizes
async def test_attachments_are_folded_to_their_names_and_a_click_opens_them(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        block = Attachment.file(1, "notes.py", "import this\nprint()").block()
        widget.show([user(0, f"look at\n{block}\nand explain")])
        await pilot.pause()
        assert words(pilot)[:4] == ["you", "look at", "▸ [file 1: notes.py, 2 lines], o shows all", "and explain"]
        await pilot.click(widget, offset=(4, 2))
        await pilot.pause()
        assert "import this" in shown(pilot)


@pytest.mark.parametrize(
    ("keys", "said"), [("z,enter", "314 more lines, z shows all"), ("", "314 more lines, a click shows all")]
)
async def test_what_is_folded_names_the_key_that_the_user_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str, said: str
) -> None:
    """It said `o` whatever the key was."""
    config = tmp_path / "home" / "config"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(f'[keys.read]\nfold = "{keys}"\n')
    async with chatting(tmp_path, monkeypatch, (80, 24), "\n".join(["row"] * 320)) as rig:
        assert said in screen(rig)


async def test_unfolding_does_not_move_what_is_read() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        later = [user(number, "later") for number in range(60, 80)]
        widget.show([*conversation(10), thinker(50, thinking="\n".join(map(str, range(40)))), *later])
        widget.focus()
        await pilot.pause()
        for _ in range(20):
            await pilot.press("k")
        assert widget.focused_message == "a50"
        await pilot.press("up", "up", "up")
        row = next(number for number, line in enumerate(words(pilot)) if line.startswith("▸ thought"))
        above = words(pilot)[:row]
        assert row > 3
        await pilot.press("o")
        assert words(pilot)[: row + 1] == [*above, "▾ thinking"]


@sizes
async def test_thinking_is_switched_by_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    async with chatting(tmp_path, monkeypatch, size, "ask", "say", thinking="deep thought") as rig:
        assert "deep thought" not in screen(rig)
        await rig.pilot.press("ctrl+t")
        assert "deep thought" in screen(rig)
        await rig.pilot.press("ctrl+t")
        assert "▸ thought for 2 words" in screen(rig)


async def test_tags_in_older_answers_are_thinking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "ask", "<think>\nhm hm\n</think>\n\nsay") as rig:
        assert "▸ thought for 2 words" in screen(rig)
        assert rig.chat.transcript.source_of_last_answer() == "say"
