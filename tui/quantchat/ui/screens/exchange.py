"""The dialogs of export and import: which format and file, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from quantchat.domain.text import clean
from quantchat.store.exchange.formats import FORMATS, Format, find_format
from quantchat.store.exchange.progress import Progress
from quantchat.ui.widgets.field import Field
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import Row, RowList

LOOK_SECONDS = 0.2


class Choice(NamedTuple):
    """What the user chose."""

    kind: Format
    path: str


class ExportScreen(ModalScreen[Choice | None]):
    """The formats; a line says what each cannot hold, and the field below where the file goes."""

    CSS_PATH = ["dialogs.tcss", "exchange.tcss"]  # noqa: RUF012 - Textual declares it so
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,ctrl+c", "cancel", "Cancel", priority=True)]

    def __init__(self, what: str, suggest: Callable[[Format], str], warn: Callable[[Format], str]) -> None:
        super().__init__()
        self._what, self._suggest, self._warn_of = clean(what, newlines=False), suggest, warn
        self._kind = FORMATS[0]
        self._suggested = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -export") as frame:
            frame.border_title = Content(f"Export {self._what}")
            frame.border_subtitle = "Enter exports  Tab to the file's name  Esc cancels"
            yield RowList(id="formats", empty="No formats")
            yield Static(id="losses", markup=False)
            yield Field(placeholder="Where to", id="target")

    def on_mount(self) -> None:
        rows = [Row(kind.name, kind.title, prose=True) for kind in FORMATS]
        self.query_one(RowList).show(rows, follow=FORMATS[0].name)

    @on(RowList.OptionHighlighted)
    def _on_highlighted(self, event: RowList.OptionHighlighted) -> None:
        self._kind = find_format(event.option_id or FORMATS[0].name)
        self.query_one("#losses", Static).update(self._warn_of(self._kind))
        field = self.query_one(Field)
        if field.value in ("", self._suggested):
            self._suggested = self._suggest(self._kind)
            field.value = self._suggested
            field.cursor_position = len(self._suggested)

    @on(RowList.OptionSelected)
    @on(Input.Submitted)
    def _on_chosen(self) -> None:
        path = self.query_one(Field).value.strip()
        self.dismiss(Choice(self._kind, path) if path else None)

    def action_cancel(self) -> None:
        self.dismiss(None)


class TransferScreen(ModalScreen[None]):
    """How far an export or import is; Esc ends it. It goes away by itself once `finished` is set."""

    CSS_PATH = ["dialogs.tcss", "exchange.tcss"]  # noqa: RUF012 - Textual declares it so
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,ctrl+c", "stop", "Stop", priority=True)]

    def __init__(self, title: str, progress: Progress) -> None:
        super().__init__()
        self._what, self._progress = clean(title, newlines=False), progress
        self.finished = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -transfer") as frame:
            frame.border_title = Content(self._what)
            frame.border_subtitle = "Esc stops; nothing is changed then"
            yield Line(id="meaning")

    def on_mount(self) -> None:
        self._look()
        self.set_interval(LOOK_SECONDS, self._look)

    def on_unmount(self) -> None:
        if not self.finished:
            self._progress.cancel()

    def _look(self) -> None:
        if self.finished and self.is_active:
            self.dismiss()
            return
        progress = self._progress
        share = f"{min(progress.done / progress.total, 1):.0%}  " if progress.total else ""
        self.query_one("#meaning", Line).show(Content(f"{share}{progress.sessions:,} sessions"))

    def action_stop(self) -> None:
        self._progress.cancel()


def default_path(folder: Path, name: str) -> str:
    """Name a file of a folder that is not there yet, as the user may edit it."""
    from quantchat.store.exchange.writing import free_path

    return str(free_path(folder, name))
