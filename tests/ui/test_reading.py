"""Moving, focusing, folding, searching and copying in the transcript."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual import events
from textual.geometry import Region
from textual.pilot import Pilot
from textual.widgets import Input

from quantchat.domain.attachments import Attachment
from quantchat.domain.chat import utc_now
from quantchat.ui.transcript.search import Query
from quantchat.ui.widgets.find import FindLine
from quantchat.ui.widgets.transcript import MessageView, Transcript
from ui.rig import SIZES, Rig, running
from ui.test_transcript import TranscriptApp, answer, conversation, shown, transcript_of, user, view, words

sizes = pytest.mark.parametrize("size", SIZES)
CODE = "First:\n\n```python\nprint(1)\n```\n\n- in a list:\n\n  ```sh\n  ls -l\n  pwd\n  ```\n\nEnd."


@asynccontextmanager
async def transcript(size: tuple[int, int]) -> AsyncIterator[tuple[Pilot[None], Transcript]]:
    async with TranscriptApp().run_test(size=size) as pilot:
        yield pilot, transcript_of(pilot)


def thinker(number: int, *, text: str = "the answer", thinking: str = "first\nthen\nso it is") -> MessageView:
    return MessageView(f"a{number}", "assistant", text, "SmolLM2", thinking=thinking)


def focused_words(pilot: Pilot[None]) -> list[str]:
    return [line[2:] for line in view(pilot) if line.startswith("█")]


def styled(pilot: Pilot[None], *kinds: str) -> list[str]:
    """The texts on the screen that are drawn in the style of a component of the transcript."""
    widget = transcript_of(pilot)
    wanted = [widget.get_component_rich_style(f"transcript--{kind}").bgcolor for kind in kinds]
    strips = widget.render_lines(Region(0, 0, *widget.outer_size))
    return [s.text for strip in strips for s in strip if s.style and s.style.bgcolor in wanted]


# New text below


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


# Focus


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


# Folds


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
        assert words(pilot)[:4] == ["you", "look at", "▸ [file 1: notes.py, 2 lines], o shows it", "and explain"]
        await pilot.click(widget, offset=(4, 2))
        await pilot.pause()
        assert "import this" in shown(pilot)


async def test_unfolding_does_not_move_what_is_read() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        later = [user(number, "later") for number in range(60, 80)]
        widget.show([*conversation(10), thinker(50, thinking="\n".join(map(str, range(40)))), *later])
        widget.focus()
        await pilot.pause()
        for _ in range(20):
            await pilot.press("k")
        assert widget.focused_message == "a50"
        row = next(number for number, line in enumerate(words(pilot)) if line.startswith("▸ thought"))
        above = words(pilot)[:row]
        await pilot.press("o")
        assert words(pilot)[: row + 1] == [*above, "▾ thinking"]


# Finding


@sizes
async def test_hits_are_marked_counted_and_visited(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show(conversation(60))
        await pilot.pause()
        widget.action_scroll_home()
        widget.find("QUESTION")
        assert (search := widget._search)
        assert (search.place, search.total) == (0, 0)
        widget.find("question 4")
        search = widget._search
        assert search
        await pilot.pause()
        assert (search.place, search.total) == (1, 11)
        assert styled(pilot, "current") == ["question 4"]
        widget.step_search(1)
        await pilot.pause()
        assert search.place == 2
        assert styled(pilot, "current") == ["question 4"]
        assert "question 40" in shown(pilot)
        widget.step_search(-1)
        widget.step_search(-1)
        await pilot.pause()
        assert search.place == 11
        assert "question 49" in shown(pilot)
        widget.end_search()
        assert styled(pilot, "hit", "current") == []


@pytest.mark.parametrize(
    ("query", "text", "found"),
    [
        ("wrapped words", "some **wrapped** words, wrapped\nwords", 2),
        ("Case", "case Case CASE", 1),
        ("case", "case Case CASE", 3),
        ("漢字", "漢字 かな 漢字", 2),
        ("a.b", "a.b axb", 1),
        ("   ", "   ", 0),
        ("two words", "> two\n> words", 1),
        ("needle", "ne\x07edle", 1),
    ],
)
async def test_what_is_found(query: str, text: str, found: int) -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show([answer(0, text)])
        await pilot.pause()
        widget.find(query)
        assert widget._search
        assert widget._search.total == found
        await pilot.pause()
        marked = styled(pilot, "hit", "current")
        assert "".join(marked).replace(" ", "").lower() == query.replace(" ", "").lower() * found


@pytest.mark.parametrize("width", range(20, 44, 3))
async def test_a_hit_that_wraps_is_marked_on_both_lines(width: int) -> None:
    async with transcript((width, 24)) as (pilot, widget):
        widget.show([answer(0, "Some words before it, then a needle in a haystack and others after.")])
        await pilot.pause()
        widget.find("a needle in a haystack")
        await pilot.pause()
        assert " ".join("".join(styled(pilot, "current")).split()).replace(" ", "") == "aneedleinahaystack"


@sizes
async def test_what_is_folded_is_found_and_unfolded(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        paste = "\n".join(f"row {number}" for number in range(300))
        widget.show([user(0, paste), thinker(0, thinking="a buried thought"), *conversation(40)])
        await pilot.pause()
        widget.find("row 222")
        await pilot.pause()
        assert styled(pilot, "current") == ["row 222"]
        widget.find("buried")
        await pilot.pause()
        assert styled(pilot, "current") == ["buried"]


async def test_a_hit_that_is_not_shown_marks_its_message() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show([answer(0, "```python\nx = 1\n```"), *conversation(30)])
        await pilot.pause()
        widget.find("python")
        await pilot.pause()
        assert styled(pilot, "current") == ["SmolLM2"]


async def test_streamed_text_is_counted_as_it_comes() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show([answer(0, "a needle", streaming=True)])
        widget.find("needle")
        widget.extend("a0", " and a nee")
        assert widget._search
        assert widget._search.total == 1
        widget.extend("a0", "dle")
        widget.append(user(1, "needle"))
        assert widget._search.total == 3
        widget.discard("u1")
        assert widget._search.total == 2
        await pilot.pause()
        assert styled(pilot, "hit", "current") == ["needle", "needle"]


def test_counting_in_ten_thousand_messages_does_not_build_on_painting() -> None:
    query = Query("two words")
    assert query.count(query.fold("Two **words** and two\n- words, twowords")) == 2


# Copying


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


# How little is drawn


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


# In the whole program


@asynccontextmanager
async def chatting(
    folder: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], *said: str, thinking: str = ""
) -> AsyncIterator[Rig]:
    """The program with a session in which questions and answers alternate."""
    async with running(folder, monkeypatch, size=size) as rig:
        session = rig.chat.desk.archive.new()
        for number, text in enumerate(said):
            message = session.append("assistant" if number % 2 else "user", text)
            if number % 2:
                message.finish, message.thinking = "stop", thinking
        session.updated = utc_now()
        rig.chat.open_session(session)
        await rig.until(lambda: rig.chat._find_line is not None, "the find line")
        await rig.pilot.pause()
        yield rig


def find_line(rig: Rig) -> FindLine:
    return rig.chat.query_one(FindLine)


def screen(rig: Rig) -> str:
    return "\n".join(strip.text for strip in rig.chat._compositor.render_strips())


async def together(rig: Rig, *keys: str) -> None:
    """Send keys as one packet: all are there before the first one is handled."""
    for key in keys:
        character = "/" if key == "slash" else key if len(key) == 1 else None
        rig.app.post_message(events.Key(key, character))
    await rig.pilot.pause()


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


async def test_letters_that_are_no_command_go_to_the_prompt_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        await rig.pilot.press("f6")
        await together(rig, *"which one? enjoy Go")
        await rig.until(lambda: rig.chat.prompt.text == "which one? enjoy Go", "the words")
        assert rig.chat.focused is rig.chat.prompt


async def test_what_is_typed_behind_the_slash_goes_into_the_find_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "an orange") as rig:
        await rig.pilot.press("f6")
        await together(rig, "slash", *"orange")
        await rig.until(lambda: find_line(rig).field.value == "orange", "the words")
        assert rig.chat.prompt.text == ""


@sizes
async def test_finding_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    said = [f"{kind} {number} with words\n\n{'filler ' * 60}" for number in range(15) for kind in ("ask", "say")]
    async with chatting(tmp_path, monkeypatch, size, *said) as rig:
        await rig.pilot.press("f6", "g", "alt+f")
        assert isinstance(rig.chat.focused, Input)
        find_line(rig).field.value = "say 1"
        await rig.until(lambda: "1 of 6" in screen(rig), "the count")
        assert "say 1 " in screen(rig)
        await rig.pilot.press("enter")
        await rig.until(lambda: "2 of 6" in screen(rig), "the next hit")
        await rig.until(lambda: "say 10" in screen(rig), "its message")
        await rig.pilot.press("up")
        await rig.until(lambda: "1 of 6" in screen(rig), "the hit before")
        await rig.pilot.press("f6", "n", "n")
        await rig.until(lambda: "3 of 6" in screen(rig), "the hit after the next")
        await rig.pilot.press("N")
        await rig.until(lambda: "2 of 6" in screen(rig), "the hit before")
        await rig.pilot.press("escape")
        assert not find_line(rig).display
        assert rig.chat.focused is rig.chat.transcript
        assert not rig.chat.transcript.searching
        await rig.pilot.press("escape")
        assert rig.chat.focused is rig.chat.prompt


@sizes
async def test_escape_in_the_find_line_returns_to_where_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    async with chatting(tmp_path, monkeypatch, size, "q", "a") as rig:
        await rig.pilot.press("f6", "slash")
        assert isinstance(rig.chat.focused, Input)
        await rig.pilot.press("escape")
        assert rig.chat.focused is rig.chat.transcript
        await rig.pilot.press("escape", "alt+f", "x")
        await rig.until(lambda: "not found" in screen(rig), "words for no hit")
        await rig.pilot.press("escape")
        assert rig.chat.focused is rig.chat.prompt
        assert "not found" not in screen(rig)


async def test_find_takes_its_text_from_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "an orange and an apple") as rig:
        await rig.ask("/find an apple")
        await rig.until(lambda: "1 of 1" in screen(rig), "the hit")
        assert find_line(rig).field.value == "an apple"


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


def top_words(rig: Rig) -> str:
    widget = rig.chat.transcript
    return widget.render_lines(Region(0, 1, widget.outer_size.width, 1))[0].text[2:].strip()


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
