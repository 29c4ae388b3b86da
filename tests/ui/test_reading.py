"""Moving and focusing in the transcript, and what is drawn of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual import events
from textual.geometry import Region

from quantchat.ui.widgets.transcript import MessageView
from ui.reading_rig import (
    chatting,
    focused_words,
    screen,
    sizes,
    together,
    top_words,
    transcript,
)
from ui.test_transcript import answer, conversation, shown, user, view, words


@sizes
async def test_new_text_below_is_told_until_the_end_is_reached(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show([*conversation(60), answer(99, "start", streaming=True)])
        await pilot.pause()
        widget.action_page_up()
        await pilot.pause()
        assert "new text below" not in shown(pilot)
        before = view(pilot)
        widget.extend("a99", "\n\nmore\n\nand more")
        await pilot.pause()
        after = view(pilot)
        assert after[:-1] == before[:-1]
        assert after[-1].endswith("▼ new text below")
        for _ in range(3):
            widget.action_page_down()
        await pilot.pause()
        assert "new text below" not in shown(pilot)
        assert "and more" in shown(pilot)


@sizes
async def test_a_click_on_the_mark_goes_to_the_end(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show(conversation(60))
        await pilot.pause()
        widget.action_scroll_home()
        widget.append(user(99, "the last"))
        await pilot.pause()
        assert not widget.following
        column = view(pilot)[-1].index("new text")
        await pilot.click(widget, offset=(column, size[1] - 1))
        await pilot.pause()
        assert widget.following
        assert "the last" in shown(pilot)


async def test_a_changed_footer_above_is_no_new_text() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show(conversation(60))
        await pilot.pause()
        widget.action_scroll_home()
        widget.replace(MessageView("a1", "assistant", "answer 1\n\n- one\n- two", "SmolLM2", "stopped"))
        await pilot.pause()
        assert not widget.unseen
        assert "stopped" in shown(pilot)


@sizes
async def test_messages_are_focused_one_by_one(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show(conversation(40))
        await pilot.pause()
        assert focused_words(pilot) == []
        widget.focus()
        await pilot.pause()
        assert widget.focused_message == "a39"
        await pilot.press("k")
        assert widget.focused_message == "u39"
        assert focused_words(pilot) == ["you", "question 39"]
        await pilot.press("g")
        assert widget.focused_message == "u0"
        await pilot.press("j", "j")
        assert widget.focused_message == "u1"
        await pilot.press("G")
        assert widget.focused_message == "a39"
        assert widget.following
        widget.screen.set_focus(None)
        await pilot.pause()
        assert focused_words(pilot) == []


@sizes
async def test_every_message_is_seen_whole_on_the_way_up(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show(conversation(30))
        widget.focus()
        await pilot.pause()
        for number in range(29, 0, -1):
            await pilot.press("k")
            assert focused_words(pilot) == ["you", f"question {number}"]
            await pilot.press("k")
            assert focused_words(pilot)[:2] == ["SmolLM2", f"answer {number - 1}"]


@sizes
async def test_a_tall_message_is_read_page_by_page(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        tall = "\n\n".join(f"line {number}" for number in range(100))
        widget.show([user(0, "ask"), answer(0, tall), user(1, "thanks"), *conversation(30)])
        widget.focus()
        await pilot.pause()
        await pilot.press("g", "j")
        seen = set(words(pilot))
        for _ in range(20):
            if widget.focused_message != "a0":
                break
            seen |= set(words(pilot))
            await pilot.press("j")
        assert widget.focused_message == "u1"
        assert {f"line {number}" for number in range(100)} <= seen


async def test_focus_stays_in_view_when_lines_are_scrolled() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show(conversation(40))
        widget.focus()
        await pilot.pause()
        for _ in range(60):
            await pilot.press("up")
            assert focused_words(pilot)
        assert not widget.following


@sizes
async def test_a_click_focuses_a_message(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show(conversation(40))
        await pilot.pause()
        row = next(number for number, line in enumerate(view(pilot)) if "question 38" in line)
        await pilot.click(widget, offset=(5, row))
        await pilot.pause()
        assert focused_words(pilot) == ["you", "question 38"]


async def test_the_newest_message_is_focused_by_one_who_did_not_read() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show([user(0, "short")])
        widget.append(answer(0, "short too"))
        widget.focus()
        await pilot.pause()
        assert widget.focused_message == "a0"
        widget.append(user(1, "and more"))
        await pilot.pause()
        assert widget.focused_message == "a0"


async def test_focus_follows_its_message_when_another_goes() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show(conversation(3))
        widget.focus()
        await pilot.press("g", "j", "j", "j")
        assert widget.focused_message == "a1"
        widget.discard("u0")
        await pilot.pause()
        assert widget.focused_message == "a1"


@sizes
async def test_lines_that_did_not_change_stay_the_same_strips(size: tuple[int, int]) -> None:
    """The writer tells by identity what the terminal shows already."""
    async with transcript(size) as (pilot, widget):
        widget.show([*conversation(60), answer(99, "start\n\n", streaming=True)])
        widget.focus()
        widget.find("one")
        await pilot.pause()
        region = Region(0, 0, *widget.outer_size)
        before = widget.render_lines(region)
        again = widget.render_lines(region)
        assert all(old is new for old, new in zip(before, again, strict=True))
        widget.end_search()
        widget.following = True
        await pilot.pause()
        before = widget.render_lines(region)
        widget.extend("a99", "more words\n\nand more")
        await pilot.pause()
        after = widget.render_lines(region)
        moved = next(number for number, strip in enumerate(before) if strip is after[0])
        kept = len(before) - moved - 4
        assert moved > 0
        assert all(old is new for old, new in zip(before[moved : moved + kept], after[:kept], strict=True))


@sizes
async def test_reading_begins_and_ends_by_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    async with chatting(tmp_path, monkeypatch, size, "q", "a") as rig:
        await rig.pilot.press("f6")
        assert rig.chat.focused is rig.chat.transcript
        assert "█" in screen(rig)
        await rig.pilot.press("tab")
        assert rig.chat.focused is rig.chat.prompt
        await rig.pilot.press("f6", "escape")
        assert rig.chat.focused is rig.chat.prompt


async def test_tab_leaves_before_the_letters_behind_it_are_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        await rig.pilot.press("f6")
        await together(rig, "tab", *"a draft")
        await rig.until(lambda: rig.chat.prompt.text == "a draft", "the letters behind Tab")
        await rig.pilot.pause()
        assert rig.chat.focused is rig.chat.prompt


async def test_letters_that_are_no_command_go_to_the_prompt_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        await rig.pilot.press("f6")
        await together(rig, *"which one? enjoy Go")
        await rig.until(lambda: rig.chat.prompt.text == "which one? enjoy Go", "the words")
        assert rig.chat.focused is rig.chat.prompt


async def test_what_is_pasted_goes_to_the_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        await rig.pilot.press("f6")
        rig.app.post_message(events.Paste("some words"))
        await rig.until(lambda: rig.chat.prompt.text == "some words", "the words")
        assert rig.chat.focused is rig.chat.prompt


@sizes
async def test_own_prompts_are_jumped_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    said = [f"ask {number // 2}" if number % 2 == 0 else "\n\n".join(["long"] * 60) for number in range(10)]
    async with chatting(tmp_path, monkeypatch, size, *said) as rig:
        tops = []
        for _ in range(6):
            await rig.pilot.press("alt+up")
            tops.append(top_words(rig))
        assert tops == ["ask 4", "ask 3", "ask 2", "ask 1", "ask 0", "ask 0"]
        await rig.pilot.press("alt+down", "alt+down")
        assert top_words(rig) == "ask 2"
        await rig.pilot.press("alt+down", "alt+down", "alt+down")
        assert rig.chat.transcript.following
        await rig.ask("/back")
        await rig.until(lambda: top_words(rig) == "ask 4", "the last prompt")
        await rig.ask("/forward")
        await rig.until(lambda: rig.chat.transcript.following, "the end")
