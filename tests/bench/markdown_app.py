"""What the wire is measured against: Textual's own `Markdown` widget in a window of the same shape.

Run by `wire.py` with a JSON file of `{text, fast_tokens, tokens_per_second, token_characters, hz, sidebar}`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from markdown_it import MarkdownIt
from textual.app import App, ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Markdown, Static, TextArea

from scripted_engine import tokens_of


class MarkdownApp(App[None]):
    """A sidebar, an answer that streams in, and a prompt."""

    CSS = """
    #sidebar { width: 56; border: round $primary; }
    TextArea { height: 4; }
    """

    def __init__(self, script: dict[str, object]) -> None:
        super().__init__()
        self.animation_level = "none"
        self._script = script
        self._tokens = tokens_of(str(script["text"]), int(str(script["token_characters"])))
        self._done = int(str(script["fast_tokens"]))

    def compose(self) -> ComposeResult:
        yield Static("starting", id="state")
        with Horizontal():
            if self._script["sidebar"]:
                yield Static("Models", id="sidebar")
            with Vertical():
                with VerticalScroll() as answer:
                    answer.can_focus = False
                    yield Markdown(parser_factory=lambda: MarkdownIt("gfm-like", {"html": False}))
                yield TextArea()

    async def on_mount(self) -> None:
        area = self.query_one(TextArea)
        area.cursor_blink = False
        area.focus()
        self._markdown = self.query_one(Markdown)
        self.query_one(VerticalScroll).anchor()
        await self._markdown.append("".join(self._tokens[: self._done]))
        self.query_one("#state", Static).update("Answering")
        self._begun = time.monotonic()
        self._first = self._done
        self.set_interval(1 / float(str(self._script["hz"])), self._stream)

    async def _stream(self) -> None:
        rate = float(str(self._script["tokens_per_second"]))
        due = self._first + round((time.monotonic() - self._begun) * rate)
        text = "".join(self._tokens[self._done : due])
        self._done = max(due, self._done)
        if text:
            await self._markdown.append(text)


if __name__ == "__main__":
    MarkdownApp(json.loads(Path(sys.argv[1]).read_text())).run()
