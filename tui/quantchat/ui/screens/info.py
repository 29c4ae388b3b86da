"""Everything that is known about a model, on one screen that scrolls."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len, chop_cells
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat.domain.models import ModelInfo
from quantchat.domain.sections import Row, Section, Tone, as_text
from quantchat.domain.text import clean
from quantchat.services.background import in_background
from quantchat.services.info import Looked, card, look, sections
from quantchat.ui.screens.dialogs import Panel

if TYPE_CHECKING:
    from quantchat.services.fit import Forecast

STYLES: dict[Tone, str] = {"": "", "good": "$success", "warning": "$warning", "error": "$error"}
LABEL, LONG_LABEL = 14, 22
"""Columns of the labels, and of those of a section with longer ones; still longer ones stand alone in a line."""
NARROW = 56
SPECIAL = "$accent reverse"
LINE_END = "↵"
RETRY_SECONDS = 0.25
HINT = "c copies code, y all  {}Esc closes"


class InfoScreen(ModalScreen[bool]):
    """A model in sections; dismissed with True to load it.

    Args:
        model: What to show.
        predict: Says what a load would come to with the memory as it was seen last; None if nobody has looked.
        server: What is known of the server that has it.
    """

    CSS_PATH = ["dialogs.tcss", "info.tcss"]  # noqa: RUF012 - Textual declares it so
    AUTO_FOCUS = "Panel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "close", "Close"),
        Binding("c", "copy_code", "Copy code"),
        Binding("y,ctrl+o", "copy_all", "Copy all"),
        Binding("enter", "load", "Load"),
    ]

    def __init__(
        self,
        model: ModelInfo,
        predict: Callable[[ModelInfo], Forecast | None],
        server: Callable[[], Sequence[Row]] = tuple,
    ) -> None:
        super().__init__()
        self._server = server
        self.model = model
        self._predict = predict
        self._forecast: Forecast | None = None
        self._looked: Looked | None = None
        self._copied = -1

    @property
    def sections(self) -> tuple[Section, ...]:
        return sections(card(self.model, self._forecast, self._looked, self._server()))

    @property
    def complete(self) -> bool:
        """Whether everything has been looked at."""
        return self._looked is not None and self._forecast is not None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -info") as frame:
            frame.border_title = Content(clean(self.model.name, newlines=False))
            frame.border_subtitle = HINT.format("Enter loads  " if self.model.loadable else "")
            with Panel():
                yield Static(id="info")

    def on_mount(self) -> None:
        self.call_after_refresh(self._draw)
        self.run_worker(self._foresee())
        self.run_worker(self._look())

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._draw)

    async def _foresee(self) -> None:
        """Predict the load as soon as somebody has looked at the memory."""
        self._forecast = await in_background(self._predict, self.model)
        if self._forecast is None:
            self.set_timer(RETRY_SECONDS, lambda: self.run_worker(self._foresee()))
        else:
            self._draw()

    async def _look(self) -> None:
        self._looked = await in_background(look, self.model)
        self._draw()

    def _draw(self) -> None:
        # A dialog that is being closed loses its widgets first.
        with suppress(NoMatches):
            width = self.query_one(Panel).scrollable_content_region.width
            self.query_one("#info", Static).update(info_content(self.sections, width))

    def action_close(self) -> None:
        self.dismiss(False)

    def action_load(self) -> None:
        self.dismiss(True)

    def action_copy_code(self) -> None:
        """Copy the first text that is for copying; again, the next."""
        from quantchat.ui import clipboard

        texts = [part for part in self.sections if part.copy]
        if not texts:
            self.app.notify("There is nothing to run for this model; y copies all of the text", severity="warning")
            return
        self._copied = (self._copied + 1) % len(texts)
        part = texts[self._copied]
        clipboard.send(self.app, part.copy, f"the lines {part.title[:1].lower()}{part.title[1:]}")

    def action_copy_all(self) -> None:
        from quantchat.ui import clipboard

        clipboard.send(self.app, as_text(self.sections), "what is known of the model")


def info_content(parts: Sequence[Section], width: int) -> Content:
    """Lay sections out in some columns."""
    lines = [line for part in parts for line in (*_section(part, width), Content())]
    return Content("\n").join(lines[:-1])


def _section(part: Section, width: int) -> Iterator[Content]:
    yield Content.styled(clean(part.title, newlines=False), "bold $primary")
    labels = [len(clean(row.label, newlines=False)) for row in part.rows]
    column = max([LABEL, *(length for length in labels if length <= LONG_LABEL)])
    for row in part.rows:
        yield from _row(row, width, column)
    if part.pieces:
        yield from _prompt(part)
    yield from (Content(f"  {line}") for line in clean(part.copy).split("\n") if part.copy)


def _row(row: Row, width: int, column: int) -> Iterator[Content]:
    label, value = clean(row.label, newlines=False), clean(row.value, newlines=False)
    beside = bool(label) and width >= NARROW and len(label) <= column
    indent = column + 4 if beside else 2 if not label else 4
    lines = _wrapped(value, max(width - indent, 8))
    if beside:
        yield Content.assemble((f"  {label:<{column}}  ", "$accent"), (lines.pop(0), STYLES[row.tone]))
    elif label:
        yield Content.styled(f"  {label}", "$accent")
    yield from (Content.styled(" " * indent + line, STYLES[row.tone]) for line in lines)


def _wrapped(text: str, width: int) -> list[str]:
    # textwrap counts letters, and some take two columns.
    lines = textwrap.wrap(text, width) if cell_len(text) == len(text) else chop_cells(text, width)
    return lines or [""]


def _prompt(part: Section) -> Iterator[Content]:
    """Draw a prompt with its special tokens apart and the ends of its lines in sight."""
    line = [Content("  ")]
    for piece in part.pieces:
        first, *others = clean(piece.text).split("\n")
        style = SPECIAL if piece.special else ""
        line.append(Content.styled(first, style))
        for text in others:
            yield Content("").join([*line, Content.styled(LINE_END, "dim")])
            line = [Content("  "), Content.styled(text, style)]
    yield Content("").join(line)
