"""Searching in the transcript."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual import events
from textual.geometry import Region
from textual.widgets import Input

from quantchat import paths
from quantchat.ui.transcript.search import Query
from ui.reading_rig import (
    chatting,
    find_line,
    screen,
    sizes,
    styled,
    thinker,
    together,
    transcript,
)
from ui.test_transcript import answer, conversation, shown, user


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


async def test_the_current_hit_stays_when_a_message_above_it_goes() -> None:
    """It was counted by number, and so became the hit of the message below."""
    async with transcript((80, 24)) as (_pilot, widget):
        widget.show([user(number, f"needle {number}") for number in range(4)])
        widget.action_scroll_home()
        widget.find("needle")
        widget.step_search(1)
        widget.discard("u0")
        assert (search := widget._search)
        assert (search.place, search.total) == (1, 3)
        widget.discard("u1")
        assert (search.place, search.total) == (0, 2)


def test_counting_knows_the_marks_between_words() -> None:
    query = Query("two words")
    assert query.count(query.fold("Two **words** and two\n- words, twowords")) == 2


@pytest.mark.parametrize("keys", [("f6", "slash"), ("alt+s",)])
async def test_what_is_typed_right_behind_goes_into_the_find_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]
) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "an orange") as rig:
        await together(rig, *keys, *"orange")
        await rig.until(lambda: find_line(rig).field.value == "orange", "the words")
        assert rig.chat.prompt.text == ""


async def test_another_session_is_shown_at_its_end_and_searched_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "an orange", "a") as rig:
        widget = rig.chat.transcript
        widget.find("orange")
        widget.show([*conversation(40), user(99, "oranges and an orange")])
        await rig.pilot.pause()
        assert widget.following
        assert widget._search
        assert widget._search.total == 2
        assert styled(rig.pilot, "hit") == ["orange", "orange"]


@pytest.mark.parametrize("pasted", ["two\nlines", "\x1b[2J\u202eevil"])
async def test_what_is_pasted_into_the_find_line_is_one_clean_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pasted: str
) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "a") as rig:
        await rig.pilot.press("alt+s")
        rig.app.post_message(events.Paste(pasted))
        await rig.until(lambda: find_line(rig).field.value, "the words")
        assert find_line(rig).field.value == pasted.split("\n")[0].replace("\x1b", "").replace("\u202e", "")


@sizes
async def test_finding_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    said = [f"{kind} {number} with words\n\n{'filler ' * 60}" for number in range(15) for kind in ("ask", "say")]
    async with chatting(tmp_path, monkeypatch, size, *said) as rig:
        await rig.pilot.press("f6", "g", "alt+s")
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
        await rig.pilot.press("escape", "alt+s", "x")
        await rig.until(lambda: "not found" in screen(rig), "words for no hit")
        await rig.pilot.press("escape")
        assert rig.chat.focused is rig.chat.prompt
        assert "not found" not in screen(rig)


async def test_a_command_that_was_typed_in_the_messages_is_told_where_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "undo it", "a") as rig:
        await rig.pilot.press("f6", *"/continue")
        await rig.until(lambda: "not found; in the prompt /continue is a command" in screen(rig), "words about it")
        find_line(rig).field.value = "undo"
        await rig.until(lambda: "1 of 1" in screen(rig), "a word that is also one of the chat")
        find_line(rig).field.value = "undone"
        await rig.until(lambda: "not found " in screen(rig), "a word that is no command")


async def test_the_last_search_goes_on_where_it_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The find line told the count of nothing when it was opened again, and its first Enter went nowhere."""
    async with chatting(tmp_path, monkeypatch, (80, 24), "one apple", "an apple", "the apple") as rig:
        await rig.ask("/find apple")
        await rig.until(lambda: "1 of 3" in screen(rig), "the first hit")
        await rig.pilot.press("escape", "alt+s")
        await rig.until(lambda: "1 of 3" in screen(rig), "the first hit again")
        await rig.pilot.press("enter")
        await rig.until(lambda: "2 of 3" in screen(rig), "the second hit")
        await rig.pilot.press("f6", "slash")
        await rig.pilot.press("enter")
        await rig.until(lambda: "3 of 3" in screen(rig), "the third hit")
        find_line(rig).field.value = "pear"
        await rig.until(lambda: "not found" in screen(rig), "words for no hit")
        await rig.pilot.press("escape", "alt+s")
        await rig.until(lambda: "not found" in screen(rig), "words for no hit again")


async def test_find_takes_its_text_from_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "q", "an orange and an apple") as rig:
        await rig.ask("/find an apple")
        await rig.until(lambda: "1 of 1" in screen(rig), "the hit")
        assert find_line(rig).field.value == "an apple"


@pytest.mark.parametrize("theme", sorted(file.stem for file in paths.shipped_themes_dir().glob("*.toml")))
async def test_marks_are_told_apart_in_every_theme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theme: str) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "an orange", "an orange") as rig:
        rig.app.theme = theme
        rig.chat.transcript.find("orange")
        await rig.until(lambda: rig.app.current_theme.name == theme, "the theme")
        await rig.pilot.pause()
        widget = rig.chat.transcript
        strips = widget.render_lines(Region(0, 0, *widget.outer_size))
        looks = [s.style for strip in strips for s in strip if s.text == "orange" or s.text == "an "]
        assert len(looks) == 4
        assert len({str(style) for style in looks[:2]}) == len({str(style) for style in looks[2:]}) == 2
        assert looks[1] != looks[3]
        assert all(style.color.is_default or style.color != style.bgcolor for style in looks)
