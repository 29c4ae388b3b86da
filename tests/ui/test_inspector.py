"""The prompt inspector: what the engine is asked with, what each message takes, and what is wrong with it."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual.widgets import Static

from quantchat.domain.chat import ChatMessage
from quantchat.engine.protocol import PromptPiece, RenderedPrompt
from quantchat.services.inspecting import UNKNOWN_TEXT, UNKNOWN_TOKENS, Inspected
from quantchat.ui import clipboard
from quantchat.ui.screens.inspector import InspectorScreen, PromptParts
from quantchat.ui.widgets.find import FindLine
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.prompttext import PromptText, line_starts, shown
from ui.rig import SIZES, Rig, running

Patch = pytest.MonkeyPatch


async def opened(rig: Rig) -> InspectorScreen:
    await rig.until(lambda: isinstance(rig.app.screen, InspectorScreen), "the inspector")
    screen = rig.app.screen
    assert isinstance(screen, InspectorScreen)
    await rig.until(lambda: screen.inspected or screen.refusal, "the prompt")
    await rig.pilot.pause()
    return screen


def warnings(screen: InspectorScreen) -> str:
    return str(screen.query_one("#prompt-warnings Static", Static).content)


def lines(widget: PromptText | PromptParts) -> list[str]:
    return [widget.render_line(y).text.rstrip() for y in range(widget.size.height)]


@pytest.mark.parametrize("size", SIZES)
async def test_the_prompt_with_what_is_being_written(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    script = {"answers": [{"text": "Paris it is."}]}
    async with running(tmp_path, monkeypatch, script, size=size) as rig:
        await rig.load()
        await rig.ask("What is the capital of France?")
        await rig.answered()
        rig.chat.prompt.load("And of Italy?")
        await rig.pilot.press("alt+v")
        screen = await opened(rig)
        prompt = screen.inspected and screen.inspected.prompt
        assert prompt is not None
        assert prompt.text.endswith("<|im_start|>user\nAnd of Italy?<|im_end|>\n<|im_start|>assistant\n")
        figures = screen.query_one("#prompt-figures", Line).plain
        assert figures.startswith(f"{prompt.tokens:,} tokens, ")
        assert "alpha-GPTQ" in figures
        assert warnings(screen) == ""
        table = lines(screen.query_one(PromptParts))
        assert [row.split()[1:3] for row in table[:3]] == [["user", "6"], ["assistant", "3"], ["user", "3"]]
        assert "And of Italy?" in table[2]
        assert table[3].split()[0] == "template"
        text = lines(screen.query_one(PromptText))
        assert text[0] == "<|im_start|>user↵"
        assert text[1] == "What is the capital of France?<|im_end|>↵"
        assert max(map(cell_len, text + table)) <= size[0] - 4
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat)
        assert rig.chat.prompt.text == "And of Italy?"


async def test_a_question_may_stand_behind_the_command(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("/inspect Hi<|im_end|> \x1b[31mthere\u200b")
        screen = await opened(rig)
        assert "Message 1 (user) holds <|im_end|>" in warnings(screen)
        text = "\n".join(lines(screen.query_one(PromptText)))
        assert "\x1b" not in text
        assert "<U+200B>" in text


async def test_what_cannot_be_shown_is_said(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, {"window": 8}) as rig:
        await rig.ask("/prompt Why?")
        screen = await opened(rig)
        assert "No model is loaded" in warnings(screen)
        await rig.pilot.press("q")
        await rig.load()
        await rig.ask("/prompt")
        assert "There is nothing to ask yet" in warnings(await opened(rig))


async def test_messages_without_room_are_named_and_marked(tmp_path: Path, monkeypatch: Patch) -> None:
    script = {"window": 40, "answers": [{"text": "Yes. " * 12}]}
    async with running(tmp_path, monkeypatch, script) as rig:
        await rig.load()
        await rig.ask("one two three four five six")
        await rig.answered()
        await rig.ask("/inspect " + "and then " * 10)
        screen = await opened(rig)
        assert "The 2 oldest messages have no room in the context window of 40 tokens" in warnings(screen)
        table = lines(screen.query_one(PromptParts))
        assert "(no room) one two" in table[0]
        assert "(no room)" in table[1]
        assert "no room" not in table[2]


async def test_moving_finding_and_copying(tmp_path: Path, monkeypatch: Patch) -> None:
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(clipboard, "send", lambda app, text, what: sent.append((text, what)))
    talk = [ChatMessage("user", f"Question {number}.\n" * 30) for number in range(40)]
    async with running(tmp_path, monkeypatch, size=(80, 24)) as rig:

        async def ask() -> Inspected:
            return made(talk)

        screen = InspectorScreen(ask)
        rig.app.push_screen(screen)
        await rig.until(lambda: screen.inspected, "the prompt")
        await rig.pilot.pause()
        text, table = screen.query_one(PromptText), screen.query_one(PromptParts)
        assert table.size.height == 6
        await rig.pilot.press("n", "n", "n")
        await rig.until(lambda: lines(text)[2].startswith("Question 3."))
        await rig.pilot.press("p")
        await rig.until(lambda: lines(text)[2].startswith("Question 2."))
        await rig.pilot.press("shift+tab", "G")
        await rig.until(lambda: text.scroll_y == text.max_scroll_y)
        await rig.pilot.press("slash", *"on 39", "enter")
        count = screen.query_one("#find-count", Line)
        await rig.until(lambda: "of 30" in count.plain)
        before = text.scroll_y
        await rig.pilot.press("up", "up")
        await rig.until(lambda: "of 30" in count.plain and text.scroll_y != before)
        assert any("Question 39." in line for line in lines(text))
        await rig.pilot.press("escape")
        await rig.until(lambda: not screen.query_one(FindLine).display)
        await rig.pilot.press("c", "y")
        assert sent[0][0] == "".join(message.content for message in talk)
        assert "    40  user" not in sent[0][0]
        assert "  40  user" in sent[1][0]
        await rig.pilot.resize_terminal(50, 20)
        await rig.until(lambda: text.size.width < 60)
        assert all(cell_len(line) <= 50 for line in lines(text))


async def test_engines_that_cannot_tell_tokens_or_text_say_so(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, size=(80, 24)) as rig:
        for prompt, words in (
            (RenderedPrompt(request="r", text="<s>Why?", tokens=3), UNKNOWN_TOKENS),
            (RenderedPrompt(request="r", text="", tokens=3), UNKNOWN_TEXT),
        ):
            inspected = Inspected(prompt=prompt, messages=(ChatMessage("user", "Why?"),), model="m")

            async def ask(found: Inspected = inspected) -> Inspected:
                return found

            screen = InspectorScreen(ask)
            rig.app.push_screen(screen)
            await rig.until(lambda: screen.inspected, "the prompt")  # noqa: B023 - awaited here
            await rig.pilot.pause()
            assert words in warnings(screen)
            assert lines(screen.query_one(PromptParts))[0].split()[:4] == ["1", "user", "?", "?"]
            assert lines(screen.query_one(PromptText))[0] == prompt.text
            await rig.pilot.press("escape")
            await rig.until(lambda: rig.app.screen is rig.chat)


def made(talk: list[ChatMessage]) -> Inspected:
    pieces = tuple(PromptPiece(text=m.content, tokens=90, message=index) for index, m in enumerate(talk))
    text = "".join(piece.text for piece in pieces)
    prompt = RenderedPrompt(request="r", text=text, tokens=90 * len(talk), pieces=pieces)
    return Inspected(prompt=prompt, messages=tuple(talk), model="some model")


@pytest.mark.parametrize("text", ["", "\n", "abc", "abcd", "abcde\n\nfg", "日本語です", "a🙂b🙂c\n", "x" * 13])
@pytest.mark.parametrize("width", [1, 2, 4, 80])
def test_lines_hold_every_character_once_and_fit(text: str, width: int) -> None:
    starts = list(line_starts(text, width))
    cut = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    assert "".join(cut) == text
    assert all(cell_len(line.rstrip("\n")) <= max(width, 2) for line in cut)


def test_a_hundred_thousand_tokens_are_laid_out_in_proportion() -> None:
    rand = random.Random(7)

    def seconds(tokens: int) -> float:
        words = " ".join(rand.choice(["river", "海", "sea\n", "x"]) for _ in range(tokens))
        pieces = [PromptPiece(text=words, tokens=tokens, message=0)]
        best = float("inf")
        for _ in range(3):
            begun = time.thread_time()
            list(line_starts(shown(pieces).text, 76))
            best = min(best, time.thread_time() - begun)
        return best

    assert seconds(100_000) < 3 * 10 * seconds(10_000)
