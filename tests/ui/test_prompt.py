from __future__ import annotations

from collections.abc import Callable

import pytest
from textual import events
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from quantchat.ui.widgets.prompt import Prompt


class PromptApp(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []
        self.recalled = 0

    def compose(self) -> ComposeResult:
        yield Prompt(placeholder="Ask anything", id="prompt")

    def on_prompt_submitted(self, message: Prompt.Submitted) -> None:
        self.sent.append(message.text)

    def on_prompt_recall_requested(self) -> None:
        self.recalled += 1


def prompt_of(pilot: Pilot[None]) -> Prompt:
    return pilot.app.query_one(Prompt)


async def test_enter_sends_and_leaves_the_text_to_the_owner() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt_of(pilot).load("hello\nthere")
        await pilot.press("enter")
        assert app.sent == ["hello\nthere"]
        assert prompt_of(pilot).text == "hello\nthere"


async def test_an_empty_prompt_is_not_sent() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt_of(pilot).load("  \n ")
        await pilot.press("enter")
        assert app.sent == []


@pytest.mark.parametrize("key", ["ctrl+j", "shift+enter", "shift+\r"])
async def test_new_line_keys(key: str) -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt_of(pilot).load("ab")
        await pilot.press(key, "c")
        assert prompt_of(pilot).text == "ab\nc"
        assert app.sent == []


async def test_up_recalls_only_in_an_empty_prompt() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        await pilot.press("up")
        assert app.recalled == 1
        prompt_of(pilot).load("one\ntwo")
        await pilot.press("up")
        assert app.recalled == 1
        assert prompt_of(pilot).cursor_location[0] == 0


@pytest.mark.parametrize(("lines", "height"), [(1, 3), (4, 6), (8, 10), (30, 10)])
@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
async def test_the_prompt_grows_to_eight_lines(lines: int, height: int, size: tuple[int, int]) -> None:
    app = PromptApp()
    async with app.run_test(size=size) as pilot:
        prompt_of(pilot).load("\n".join("x" * lines))
        await pilot.pause()
        assert prompt_of(pilot).size.height + 2 == height


async def test_a_paste_is_cleaned_and_inserted_once() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt_of(pilot).post_message(events.Paste("a\x1b[31mb\r\nc\u202e"))
        await pilot.pause()
        assert prompt_of(pilot).text == "a[31mb\nc"


async def test_the_placeholder_shows() -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        await pilot.pause()
        assert "Ask anything" in "".join(strip.text for strip in app.screen._compositor.render_strips())


async def _send(pilot: Pilot[None]) -> None:
    await pilot.press("enter", "ctrl+j", "x")


@pytest.mark.parametrize(
    "block", [lambda prompt: setattr(prompt, "read_only", True), lambda prompt: setattr(prompt, "disabled", True)]
)
async def test_a_read_only_or_disabled_prompt_does_nothing(block: Callable[[Prompt], None]) -> None:
    app = PromptApp()
    async with app.run_test() as pilot:
        prompt_of(pilot).load("waiting")
        block(prompt_of(pilot))
        await _send(pilot)
        assert app.sent == []
        assert prompt_of(pilot).text == "waiting"
