"""The line above which the model sees nothing, and the figures and warnings that go with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.geometry import Offset
from textual.pilot import Pilot
from textual.selection import SELECT_ALL, Selection

from quantchat.domain.chat import Message, utc_now
from quantchat.domain.generation import TurnStatistics
from quantchat.ui.transcript.document import Place
from quantchat.ui.transcript.selection import row, whole_message
from quantchat.ui.views import figures_of, footer_of
from quantchat.ui.widgets.transcript import UNSEEN, MessageView
from ui.reading_rig import chatting, focused_words, screen, sizes, styled, transcript
from ui.rig import Rig
from ui.test_transcript import answer, conversation, user, view

LIMITS = "[sampling]\nmax_new_tokens = 8\n"


def rules(pilot: Pilot[None]) -> list[int]:
    """Numbers of the rows that show the line."""
    return [number for number, line in enumerate(view(pilot)) if UNSEEN in line]


def around(pilot: Pilot[None]) -> tuple[str, str]:
    """The last words above the line and the first below it."""
    lines, (place,) = view(pilot), rules(pilot)
    above = next(line for line in reversed(lines[:place]) if line.strip())
    return above.strip(), next(line for line in lines[place + 1 :] if line.strip()).strip()


@sizes
async def test_the_line_stands_below_the_last_message_that_is_not_seen(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show(conversation(3))
        widget.mark_unseen("a0")
        await pilot.pause()
        assert around(pilot) == ("• two", "▌ you")
        line = view(pilot)[rules(pilot)[0]]
        assert line.startswith("──")
        assert line.endswith("──")
        assert len(line) == widget.scrollable_content_region.width
        assert any(UNSEEN in text for text in styled(pilot, "dim"))
        assert view(pilot)[rules(pilot)[0] + 1] == ""
        widget.mark_unseen("a1")
        await pilot.pause()
        assert len(rules(pilot)) == 1
        widget.mark_unseen(None)
        await pilot.pause()
        assert rules(pilot) == []


async def test_marks_of_messages_that_are_not_there_are_no_marks() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show(conversation(2))
        widget.mark_unseen("elsewhere")
        await pilot.pause()
        assert rules(pilot) == []


async def test_what_is_noted_about_a_message_stands_above_the_line() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show([user(0, "why"), MessageView("a0:error", "note", "It failed.", "", tone="error"), user(1, "so")])
        widget.mark_unseen("u0")
        await pilot.pause()
        assert around(pilot) == ("! It failed.", "▌ you")
        widget.mark_unseen("u1")
        await pilot.pause()
        (place,) = rules(pilot)
        assert view(pilot)[place - 2].strip().endswith("so")


@sizes
async def test_the_line_stays_through_streaming_and_new_sizes(size: tuple[int, int]) -> None:
    async with transcript(size) as (pilot, widget):
        widget.show([*conversation(1), user(1, "more"), answer(1, "", streaming=True)])
        widget.mark_unseen("a0")
        for number in range(5):
            widget.extend("a1", f"word {number} ")
            await pilot.pause()
            assert around(pilot) == ("• two", "▌ you")
        widget.replace(answer(0, "another text"))
        await pilot.pause()
        assert around(pilot) == ("another text", "▌ you")
        for width in (45, 30, 100):
            await pilot.resize_terminal(width, 40)
            await pilot.pause()
            rows = [line for line in view(pilot) if "─ the model no" in line or "the model no longer" in line]
            assert len(rows) == 1
            assert len(rows[0]) <= widget.scrollable_content_region.width
        assert around(pilot) == ("another text", "▌ you")


async def test_the_line_moves_nothing_for_a_reader_further_down() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show(conversation(30))
        await pilot.pause()
        before = view(pilot)
        widget.mark_unseen("a2")
        await pilot.pause()
        assert view(pilot) == before
        widget.following = False
        widget._go(Place(30, 0))
        await pilot.pause()
        before = view(pilot)
        widget.mark_unseen("a4")
        await pilot.pause()
        assert view(pilot) == before
        widget.action_scroll_home()
        await pilot.pause()
        assert rules(pilot) == []
        widget._go(Place(8, 0))
        await pilot.pause()
        assert around(pilot) == ("• two", "▌ you")


async def test_the_line_is_no_part_of_what_is_copied_or_selected() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show(conversation(2))
        widget.mark_unseen("a0")
        await pilot.pause()
        marked = widget.get_selection(Selection(Offset(0, 0), Offset(0, row(Place(2, 0)))))
        everything = widget.get_selection(SELECT_ALL)
        message = widget.get_selection(whole_message(1, widget._document.size(1)))
        widget.mark_unseen(None)
        await pilot.pause()
        assert marked == widget.get_selection(Selection(Offset(0, 0), Offset(0, row(Place(2, 0)))))
        assert everything == widget.get_selection(SELECT_ALL)
        assert message is not None
        assert message[0].startswith("SmolLM2")
        assert UNSEEN not in message[0] + str(marked)
        widget.mark_unseen("a0")
        await pilot.pause()
        place = rules(pilot)[0]
        await pilot.click(widget, offset=(40, place), times=2)
        assert not widget.screen.selections


async def test_the_line_has_no_focus_and_is_not_found() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show(conversation(2))
        widget.mark_unseen("a0")
        widget.focus()
        await pilot.pause()
        widget.action_previous_message()
        widget.action_previous_message()
        await pilot.pause()
        assert widget.focused_message == "a0"
        assert focused_words(pilot)[0] == "SmolLM2"
        assert rules(pilot)
        widget.find("longer sees")
        await pilot.pause()
        assert styled(pilot, "hit", "current") == []
        widget.find("two")
        await pilot.pause()
        assert styled(pilot, "hit", "current") == ["two", "two"]


async def test_folding_keeps_the_line_below_the_message() -> None:
    async with transcript((80, 24)) as (pilot, widget):
        widget.show([MessageView("a0", "assistant", "the answer", "M", thinking="one\ntwo\nthree"), user(1, "so")])
        widget.mark_unseen("a0")
        for shown in (True, False):
            widget.thinking_shown = shown
            await pilot.pause()
            assert around(pilot) == ("the answer", "▌ you")


def test_an_answer_that_ran_into_the_wall_says_what_helps() -> None:
    message = Message(id="a", role="assistant", text="x", created=utc_now(), finish="context")
    words = footer_of(message, can_go_on=True)
    assert "context window full" in words
    assert "/continue goes on without the oldest turns" in words
    assert "larger window" in words
    assert "/continue" not in footer_of(message)


def test_an_answer_that_was_interrupted_as_it_went_on_has_no_figures_of_its_beginning() -> None:
    message = Message(id="a", role="assistant", text="x", created=utc_now(), statistics=TurnStatistics(new_tokens=29))
    assert figures_of(message) == ("29 tokens",)
    message.finish = "interrupted"
    assert figures_of(message) == ()


def test_one_token_is_no_plural() -> None:
    message = Message(id="a", role="assistant", text="x", created=utc_now(), statistics=TurnStatistics(new_tokens=1))
    assert figures_of(message) == ("1 token",)


# The whole program

WORDS = ("one question of five words", "an answer of five words") * 4


@sizes
async def test_the_model_says_what_it_will_not_see_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    # A message of five words has seven tokens: all take 56, six of them 42.
    async with chatting(tmp_path, monkeypatch, size, *WORDS, script={"window": 52}, config=LIMITS) as rig:
        assert rig.chat.desk.context.of(rig.chat.session) is None
        await rig.load()
        await rig.until(lambda: below(rig) == rig.chat.session.branch()[2].id, "the line")
        await rig.until(lambda: "ctx 42/52" in rig.line("status"), "the figure")
        rig.chat.transcript.action_scroll_home()
        await rig.until(lambda: UNSEEN in screen(rig), "the line on the screen")
        rig.chat.prompt.load("a question of five words")
        await rig.until(lambda: below(rig) == rig.chat.session.branch()[4].id, "the line further down")
        await rig.until(lambda: "ctx 35/52" in rig.line("status"), "the figure with the question")
        rig.chat.prompt.load("word " * 60)
        await rig.until(lambda: "does not fit" in rig.line("activity"), "the warning")
        await rig.until(lambda: below(rig) is None, "no line where nothing is sent")
        rig.chat.prompt.load("")
        await rig.until(lambda: below(rig) == rig.chat.session.branch()[2].id, "the line where it was")
        await rig.until(lambda: "does not fit" not in rig.line("activity"), "no warning")
        rig.chat.desk.unload()
        await rig.until(lambda: below(rig) is None, "no line without a model")


def below(rig: Rig) -> str | None:
    """The message below the line."""
    document = rig.chat.transcript._document
    ruled = [number for number, entry in enumerate(document.entries) if entry._rule]
    return document.entries[ruled[0] + 1].message.id if ruled else None


async def test_a_command_in_the_prompt_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chatting(tmp_path, monkeypatch, (80, 24), "why", "so", script={"window": 60}, config=LIMITS) as rig:
        await rig.load()
        await rig.until(lambda: "ctx 6/60" in rig.line("status"), "the figure")
        rig.chat.prompt.load("/help")
        rig.chat.prompt.load("and then what")
        await rig.until(lambda: "ctx 11/60" in rig.line("status"), "the figure with the draft")
        rig.chat.prompt.load("/help")
        await rig.until(lambda: "ctx 6/60" in rig.line("status"), "the figure without a command")


async def test_the_line_stands_while_an_answer_streams_and_is_right_in_every_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {"window": 60, "answers": [{"match": "slow", "text": "word " * 400, "tokens_per_second": 50}]}
    config = "[sampling]\nmax_new_tokens = 400\n"
    async with chatting(tmp_path, monkeypatch, (200, 50), *WORDS[:4], script=slow, config=config) as rig:
        full = rig.chat.session
        await rig.load()
        await rig.ask("be slow")
        await rig.until(lambda: rig.chat.own_turn and rig.chat.own_turn.tokens > 2, "a streaming answer")
        assert rig.chat.own_turn.dropped == 4
        await rig.until(lambda: below(rig) == full.branch()[4].id, "the line above the question")
        other = rig.chat.desk.archive.new()
        rig.chat.open_session(other)
        await rig.pilot.pause()
        assert below(rig) is None
        rig.chat.open_session(full)
        await rig.pilot.pause()
        assert below(rig) == full.branch()[4].id
        rig.chat.desk.conversation.stop(full.id)
        await rig.answered(3)
