"""The exact prompt: what is wrong with it, what each message takes, and all of its text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from typing import ClassVar

from textual import on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.events import Resize
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat.domain.text import clean
from quantchat.engine.protocol import PromptPiece, PromptWarning
from quantchat.errors import ErrorReport, QuantchatError
from quantchat.services.inspecting import HEAD, Inspected, Part, row_text, warning_text
from quantchat.ui.screens.dialogs import Panel
from quantchat.ui.widgets.find import FindLine
from quantchat.ui.widgets.lazy import LazyRows
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.prompttext import PromptText, shown

HINT = "n p messages  Tab parts  / finds  c copies the prompt, y all  Esc closes"
ASKING = "Asking the engine …"
LEAST_ROWS = 3
TABLE_SHARE = 4
"""The table takes at most one of so many lines of the screen; it scrolls."""
TEMPLATE = "template"


class PromptParts(LazyRows):
    """What the messages and the template take; the text follows the cursor."""

    class Moved(Message):
        """The cursor is on another message; None is the template."""

        def __init__(self, part: Part) -> None:
            super().__init__()
            self.part = part

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, empty="")
        self._parts: Sequence[Part] = ()

    def show(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self.show_ids([TEMPLATE if part.message is None else str(part.message) for part in parts])

    def item(self, number: int) -> Hashable:
        return number

    def lines_of(self, item: Hashable, width: int) -> Sequence[Content]:
        part = self._parts[item if isinstance(item, int) else 0]
        return [Content.styled(row_text(part, width), "$warning" if part.state else "")]

    def _move(self, number: int) -> None:
        super()._move(number)
        if self._cursor is not None:
            self.post_message(self.Moved(self._parts[self._cursor]))


class InspectorScreen(ModalScreen[None]):
    """A prompt in three parts.

    Args:
        ask: Gets it from the engine.
    """

    CSS_PATH = ["dialogs.tcss", "inspector.tcss"]  # noqa: RUF012 - Textual declares it so
    AUTO_FOCUS = "PromptText"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "close", "Close", priority=True),
        Binding("q", "close", "Close"),
        # First of all, so that letters which come in the same packet go to the line that it opens.
        Binding("slash,alt+s", "find", "Find", priority=True),
        Binding("n", "message(1)", "Next message"),
        Binding("p", "message(-1)", "Message before"),
        Binding("c,ctrl+o", "copy_prompt", "Copy the prompt"),
        Binding("y", "copy_all", "Copy all"),
    ]

    def __init__(self, ask: Callable[[], Awaitable[Inspected]]) -> None:
        super().__init__()
        self._ask = ask
        self.inspected: Inspected | None = None
        self.refusal: ErrorReport | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -inspector") as frame:
            frame.border_title = "Prompt"
            frame.border_subtitle = HINT
            yield Line(Content(ASKING), id="prompt-figures")
            with Panel(id="prompt-warnings"):
                yield Static()
            yield Line(id="prompt-head")
            yield PromptParts(id="prompt-parts")
            yield PromptText(id="prompt-text")
            yield FindLine(id="prompt-find")

    def on_mount(self) -> None:
        self.run_worker(self._fetch())

    async def _fetch(self) -> None:
        try:
            self.inspected = await self._ask()
        except QuantchatError as error:
            self.refusal = error.report
        # A dialog that is being closed loses its widgets first.
        with suppress(NoMatches):
            self._draw()

    def _draw(self) -> None:
        words = self.query_one("#prompt-warnings Static", Static)
        if self.inspected is None:
            self.query_one("#prompt-figures", Line).show(Content("There is no prompt to show"))
            words.update(_refused(self.refusal))
            return
        prompt, parts = self.inspected.prompt, self.inspected.parts()
        self.query_one("#prompt-figures", Line).show(Content(self.inspected.figures()))
        words.update(_noted(self.inspected.notes(), prompt.warnings))
        self.query_one("#prompt-head", Line).show(Content(HEAD))
        self.query_one(PromptParts).show(parts)
        self.query_one(PromptText).show(shown(prompt.pieces or [PromptPiece(text=prompt.text, tokens=0, message=0)]))
        self._size_table()

    def on_resize(self, event: Resize) -> None:
        self._size_table()

    def _size_table(self) -> None:
        with suppress(NoMatches):
            table = self.query_one(PromptParts)
            table.styles.height = min(len(table.ids), max(LEAST_ROWS, self.size.height // TABLE_SHARE))

    # Moving

    @on(PromptParts.Moved)
    @on(LazyRows.Chosen)
    def _on_moved(self, event: PromptParts.Moved | LazyRows.Chosen) -> None:
        part = event.part.message if isinstance(event, PromptParts.Moved) else _number(event.row_id)
        text = self.query_one(PromptText)
        if part is None:
            text.go_to_end()
        else:
            text.go_to_message(part)
        if isinstance(event, LazyRows.Chosen):
            self.set_focus(text)

    def action_message(self, direction: int) -> None:
        table = self.query_one(PromptParts)
        if direction > 0:
            table.action_cursor_down()
        else:
            table.action_cursor_up()

    # Finding

    def action_find(self) -> None:
        line = self.query_one(FindLine)
        if line.field.has_focus:
            raise SkipAction
        line.open()

    @on(FindLine.Typed)
    def _on_typed(self, event: FindLine.Typed) -> None:
        event.stop()
        self.query_one(FindLine).show_count(*self.query_one(PromptText).find(event.text))

    @on(FindLine.Stepped)
    def _on_stepped(self, event: FindLine.Stepped) -> None:
        event.stop()
        self.query_one(FindLine).show_count(*self.query_one(PromptText).step(event.direction))

    # Copying and leaving

    def action_copy_prompt(self) -> None:
        if self.inspected is not None:
            from quantchat.ui import clipboard

            clipboard.send(self.app, self.inspected.prompt.text, "the prompt")

    def action_copy_all(self) -> None:
        if self.inspected is not None:
            from quantchat.ui import clipboard

            clipboard.send(self.app, self.inspected.report(), "the prompt and what is known of it")

    def action_close(self) -> None:
        """Close the find line, else the screen."""
        line = self.query_one(FindLine)
        if line.display:
            line.close()
            self.query_one(PromptText).find("")
            self.set_focus(self.query_one(PromptText))
        else:
            self.dismiss(None)


def _number(row_id: str) -> int | None:
    return None if row_id == TEMPLATE else int(row_id)


def _refused(report: ErrorReport | None) -> Content:
    if report is None:
        return Content()
    words = [clean(part) for part in (report.title, report.detail, report.remedy) if part]
    return Content.assemble((words[0], "bold $error"), *(f"\n{line}" for line in words[1:]))


def _noted(notes: Sequence[str], warnings: Sequence[PromptWarning]) -> Content:
    lines = [Content.styled(note, "$foreground-muted") for note in notes]
    for warning in warnings:
        cause, remedy = warning_text(warning).split("\n", 1)
        lines += [Content.styled(cause, "$warning"), Content(remedy)]
    return Content("\n").join(lines)
