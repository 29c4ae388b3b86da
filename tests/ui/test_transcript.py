from __future__ import annotations

import subprocess
import sys
import unicodedata
from itertools import pairwise

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Offset
from textual.pilot import Pilot
from textual.selection import SELECT_ALL, Selection

from quantchat.ui.widgets.transcript import MessageView, Transcript

SIZES = [(80, 24), (200, 50)]


class TranscriptApp(App[None]):
    AUTO_FOCUS = None

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[bool] = []

    def compose(self) -> ComposeResult:
        yield Transcript()

    def on_transcript_follow_changed(self, message: Transcript.FollowChanged) -> None:
        self.changes.append(message.following)


def user(number: int, text: str) -> MessageView:
    return MessageView(f"u{number}", "user", text, "you")


def answer(number: int, text: str, *, streaming: bool = False) -> MessageView:
    return MessageView(f"a{number}", "assistant", text, "SmolLM2", streaming=streaming)


def conversation(turns: int) -> list[MessageView]:
    return [
        message
        for number in range(turns)
        for message in (user(number, f"question {number}"), answer(number, f"answer {number}\n\n- one\n- two"))
    ]


def transcript_of(pilot: Pilot[None]) -> Transcript:
    return pilot.app.query_one(Transcript)


def screen_lines(pilot: Pilot[None]) -> list[str]:
    return [strip.text.rstrip() for strip in pilot.app.screen._compositor.render_strips()]


def view(pilot: Pilot[None]) -> list[str]:
    """What is shown, without the scroll bar's column."""
    return [line[: transcript_of(pilot).scrollable_content_region.width].rstrip() for line in screen_lines(pilot)]


def words(pilot: Pilot[None]) -> list[str]:
    """What is shown without the bars, which tell which message is focused."""
    return [line[2:] for line in view(pilot)]


def shown(pilot: Pilot[None]) -> str:
    return "\n".join(view(pilot))


@pytest.mark.parametrize("size", SIZES)
async def test_messages_are_shown_with_label_text_and_footer(size: tuple[int, int]) -> None:
    async with TranscriptApp().run_test(size=size) as pilot:
        reply = MessageView("2", "assistant", "# Title\n\n**bold** text", "SmolLM2", "stopped · 42 tokens")
        transcript_of(pilot).show([MessageView("1", "user", "hello\n  there", "you"), reply])
        await pilot.pause()
        expected = [
            "▌ you",
            "▌ hello",
            "▌   there",
            "",
            "  SmolLM2",
            "  Title",
            "",
            "  bold text",
            "  stopped · 42 tokens",
        ]
        assert [line.rstrip() for line in view(pilot)][: len(expected)] == expected


@pytest.mark.parametrize("size", SIZES)
async def test_streamed_text_is_followed(size: tuple[int, int]) -> None:
    async with TranscriptApp().run_test(size=size) as pilot:
        transcript = transcript_of(pilot)
        transcript.show(conversation(20))
        transcript.append(answer(99, "", streaming=True))
        for number in range(60):
            transcript.extend("a99", f"word {number}\n\n")
        await pilot.pause()
        assert transcript.following
        assert "word 59" in shown(pilot)
        assert transcript.scroll_y == transcript.max_scroll_y


async def test_scrolling_up_holds_the_view_and_end_follows_again() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.focus()
        transcript.show([*conversation(20), answer(99, "start", streaming=True)])
        await pilot.press("pageup")
        assert not transcript.following
        before = view(pilot)
        for number in range(40):
            transcript.extend("a99", f"\n\nword {number}")
        transcript.append(user(100, "queued"))
        await pilot.pause()
        assert view(pilot)[:-1] == before[:-1]
        assert "new text below" in view(pilot)[-1]
        await pilot.press("end")
        assert transcript.following
        assert "queued" in shown(pilot)
        assert "new text below" not in shown(pilot)
        assert app.changes == [False, True]


async def test_down_at_the_end_keeps_following() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.focus()
        transcript.show(conversation(20))
        await pilot.press("down", "j")
        transcript.append(user(100, "the last"))
        await pilot.pause()
        assert transcript.following
        assert "the last" in shown(pilot)


@pytest.mark.parametrize(("away", "back"), [("up", "down"), ("pageup", "pagedown"), ("g", "G"), ("home", "end")])
async def test_keys(away: str, back: str) -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.focus()
        transcript.show(conversation(30))
        await pilot.pause()
        bottom = words(pilot)
        await pilot.press(away)
        assert words(pilot) != bottom
        assert not transcript.following
        if away in ("g", "home"):
            assert words(pilot)[1] == "question 0"
        await pilot.press(back)
        assert words(pilot) == bottom
        assert transcript.following


async def test_the_wheel_stops_following_and_comes_back() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.show(conversation(30))
        await pilot.pause()
        bottom = view(pilot)
        await pilot._post_mouse_events([_wheel("Up")], widget=transcript, button=0)
        await pilot.pause()
        assert not transcript.following
        for _ in range(3):
            await pilot._post_mouse_events([_wheel("Down")], widget=transcript, button=0)
        await pilot.pause()
        assert transcript.following
        assert view(pilot) == bottom


def _wheel(direction: str) -> type:
    from textual import events

    return getattr(events, f"MouseScroll{direction}")


async def test_reading_upwards_passes_every_line_once() -> None:
    """Heights above are estimates until they are seen; correcting them must not skip or repeat a line."""
    async with TranscriptApp().run_test(size=(60, 12)) as pilot:
        transcript = transcript_of(pilot)
        paragraph = " ".join(f"wonderfully{number}" for number in range(30))
        transcript.show(
            [
                answer(number, f"m{number} {paragraph}\n\n```\nx\n```\n\n| a |\n|---|\n| {number} |")
                for number in range(20)
            ]
        )
        await pilot.pause()
        seen = [view(pilot)]
        for _ in range(400):
            transcript.action_scroll_up()
            await pilot.pause()
            seen.append(view(pilot))
        for later, earlier in pairwise(seen):
            assert earlier[1:] == later[:-1] or earlier == later
        assert seen[-1][1].startswith("  m0 ")


async def test_a_resize_storm_keeps_the_place() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.show(conversation(60))
        await pilot.pause()
        transcript.action_page_up()
        await pilot.pause()
        before = view(pilot)
        for size in [(10, 5), (200, 50), (3, 2), (1, 1), (40, 10), (80, 24)]:
            await pilot.resize_terminal(*size)
        assert before[0] in view(pilot)
        assert not transcript.following


async def test_a_resize_while_following_stays_at_the_end() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript_of(pilot).show([*conversation(60), user(100, "the last")])
        for size in [(30, 8), (120, 40)]:
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert "the last" in shown(pilot)


HOSTILE = "\x1b[2J\x1b]0;owned\x07 [/x] [bold]b[/] \u202eright\u2066 \x9b31m &#x202e; &#13; \x00 \ud800 end"


@pytest.mark.parametrize("role", ["user", "assistant", "note"])
async def test_hostile_text_reaches_the_terminal_as_words(role: str) -> None:
    async with TranscriptApp().run_test(size=(200, 24)) as pilot:
        hostile = MessageView(
            "1",
            role,
            f"{HOSTILE}\n\n```{HOSTILE}\n{HOSTILE}\n```\n\n    {HOSTILE}\n\n[l](http://x/{HOSTILE})",
            HOSTILE,
            HOSTILE,
        )
        transcript_of(pilot).show([hostile])
        await pilot.pause()
        text = shown(pilot)
        bad = [
            char
            for char in text
            if char != "\n" and (unicodedata.category(char) in ("Cc", "Cs") or char in "\u202e\u2066")
        ]
        assert bad == []
        assert "[/x] [bold]b[/]" in text


async def test_html_like_words_stay() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript_of(pilot).show([answer(1, "<think>\nhmm\n</think>\n\nuse List<int> and <br> and setup.py")])
        await pilot.pause()
        assert all(word in shown(pilot) for word in ("<think>", "hmm", "</think>", "List<int>", "<br>", "setup.py"))
        assert "http" not in shown(pilot)


async def test_show_switches_and_lands_at_the_end() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.show(conversation(40))
        await pilot.pause()
        transcript.action_scroll_home()
        transcript.show([user(1, "another session")])
        await pilot.pause()
        assert transcript.following
        assert "another session" in shown(pilot)
        assert "question" not in shown(pilot)
        transcript.show([])
        await pilot.pause()
        assert shown(pilot).strip() == ""
        assert transcript.source_of_last_answer() is None


async def test_replace_and_discard() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.show([*conversation(1), answer(9, "half", streaming=True)])
        transcript.extend("a9", " an answer\tx")
        transcript.replace(MessageView("a9", "assistant", "half an answer\tx", "SmolLM2", "stopped", "interrupted"))
        transcript.replace(answer(1234, "unknown"))
        transcript.extend("nobody", "unknown")
        await pilot.pause()
        assert "half an answer" in shown(pilot)
        assert "stopped" in shown(pilot)
        assert "unknown" not in shown(pilot)
        assert transcript.source_of_last_answer() == "half an answer\tx"
        transcript.discard("u0")
        transcript.discard("nobody")
        await pilot.pause()
        assert "question 0" not in shown(pilot)
        transcript.discard("a9")
        assert transcript.source_of_last_answer() == "answer 0\n\n- one\n- two"


async def test_a_theme_change_repaints() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.show([answer(1, "# Title\n\n```python\nreturn 1\n```")])
        await pilot.pause()
        dark = list(pilot.app.screen._compositor.render_strips())
        pilot.app.theme = "textual-light"
        transcript.refresh_theme()
        await pilot.pause()
        light = list(pilot.app.screen._compositor.render_strips())
        assert [strip.text for strip in dark] == [strip.text for strip in light]
        code = next(number for number, strip in enumerate(dark) if "return" in strip.text)
        assert dark[code] != light[code]


async def test_who_speaks_is_told_by_bar_weight_and_background() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        queued = MessageView("3", "user", "later", "you", tone="queued")
        failed = MessageView("4", "note", "no memory", "engine", tone="error")
        transcript_of(pilot).show([user(1, "mine"), answer(1, "its"), queued, failed])
        await pilot.pause()
        strips = list(pilot.app.screen._compositor.render_strips())
        styles = {segment.text.strip(): segment.style for strip in strips for segment in strip if segment.style}
        assert styles["you"].bold
        assert styles["SmolLM2"].bold
        assert styles["mine"].bgcolor != styles["its"].bgcolor
        assert styles["no memory"].color != styles["its"].color
        assert [line[:1] for line in view(pilot) if line] == ["▌", "▌", " ", " ", "┊", "┊", "!", "!"]


async def test_selection_gives_the_lines_without_the_bar() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.show([user(1, "one\ntwo"), answer(1, "**three** four")])
        await pilot.pause()
        words, ending = transcript.get_selection(Selection(Offset(3, 1), Offset(4, 2))) or ("", "")
        assert (words, ending) == ("ne\ntw", "\n")
        assert transcript.get_selection(SELECT_ALL) == ("one\ntwo\n\n**three** four", "\n")
        pilot.app.screen.selections = {transcript: Selection(Offset(2, 1), Offset(5, 1))}
        await pilot.pause()
        assert pilot.app.screen.get_selected_text() == "one"


async def test_dragging_selects() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.show([user(1, "漢字 words"), answer(1, "three four")])
        await pilot.pause()
        await pilot.mouse_down(transcript, offset=(2, 1))
        await pilot.hover(transcript, offset=(7, 4))
        await pilot.mouse_up(transcript, offset=(7, 4))
        assert pilot.app.screen.get_selected_text() == "漢字 words\n\nSmolLM2\nthree"


async def test_wide_characters_keep_their_columns() -> None:
    async with TranscriptApp().run_test(size=(40, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.show([user(1, "漢字" * 40 + "🙂" * 40), answer(1, "漢字" * 40 + " ✅\ufe0f done")])
        await pilot.pause()
        assert {strip.cell_length for strip in pilot.app.screen._compositor.render_strips()} == {40}
        assert "done" in shown(pilot)


def test_importing_the_widget_leaves_the_renderers_alone() -> None:
    heavy = "('markdown_it', 'pygments', 'rich.markdown')"
    code = f"import sys, quantchat.ui.widgets.transcript; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_resize_amid_a_streamed_fence_loses_nothing() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.show([answer(1, "intro\n\n```python\nfirst = 1\nsec", streaming=True)])
        await pilot.resize_terminal(60, 20)
        transcript.extend("a1", "ond = 2\n```\n\nafter")
        await pilot.pause()
        streamed = view(pilot)
        transcript.replace(answer(1, transcript.source_of_last_answer() or ""))
        await pilot.pause()
        assert view(pilot) == streamed
        assert all(word in shown(pilot) for word in ("intro", "first = 1", "second = 2", "after"))


async def test_messages_given_while_hidden_are_shown_later() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        transcript = transcript_of(pilot)
        transcript.display = False
        await pilot.pause()
        transcript.show(conversation(30))
        transcript.append(user(99, "the last"))
        await pilot.pause()
        transcript.display = True
        await pilot.pause()
        await pilot.pause()
        assert "the last" in shown(pilot)
