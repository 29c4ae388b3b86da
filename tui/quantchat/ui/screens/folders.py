"""Where models are looked for: the user's own folders come and go here."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input
from textual.worker import Worker

from quantchat.domain.text import clean
from quantchat.errors import QuantchatError
from quantchat.services.background import in_background
from quantchat.services.folders import Folder, check_folder, known_folders
from quantchat.ui.widgets.completion import CompletionList
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.path import FolderField
from quantchat.ui.widgets.rows import Row, RowList

if TYPE_CHECKING:
    from quantchat.services.desk import Desk


class FoldersScreen(ModalScreen[None]):
    """The folders, and a line to add one; what is kept is written at once."""

    CSS_PATH = "dialogs.tcss"
    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,ctrl+c", "leave", "Close", priority=True)]

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        self._folders: list[Folder] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -folders") as frame:
            frame.border_title = "Folders with models"
            frame.border_subtitle = "Enter adds  Tab to the list: Delete takes out  Esc closes"
            yield RowList(id="folders", empty="No folders")
            completions = CompletionList(id="folder-completions")
            yield completions
            yield FolderField(completions, placeholder="Add a folder: its path, Tab completes", id="folder")
            yield Line(id="meaning")

    def on_mount(self) -> None:
        self._work(self._fill())

    def _work(self, work: Coroutine[object, object, None]) -> None:
        """Ask the disk beside the messages: one that hangs must keep nobody from closing the dialog, or the program."""
        _: Worker[None] = self.run_worker(work, group="disk", exclusive=True)

    async def _fill(self) -> None:
        desk = self._desk
        self._folders = await in_background(known_folders, desk.settings.models_dirs, desk.given_folders)
        self.query_one(RowList).show([self._row(folder) for folder in self._folders])

    def _row(self, folder: Folder) -> Row:
        mark = "!" if folder.own and folder.label else " "
        return Row(_id(folder), clean(folder.written, newlines=False), folder.label, mark, "$warning")

    @on(Input.Submitted)
    def _on_submitted(self, event: Input.Submitted) -> None:
        self.query_one(FolderField).close_completion()
        self._say("Looking at it …")
        self._work(self._add(event.value))

    async def _add(self, typed: str) -> None:
        try:
            written = await in_background(check_folder, typed, self._folders)
            await self._keep([*self._desk.settings.models_dirs, written], f"Added {written}")
        except QuantchatError as error:
            self._say(str(error), "$error")
        else:
            self.query_one(FolderField).value = ""

    @on(RowList.DeleteRequested)
    def _on_delete_requested(self, event: RowList.DeleteRequested) -> None:
        folder = next((one for one in self._folders if _id(one) == event.row_id), None)
        if folder is not None and folder.own:
            self._work(self._take_out(folder))
        elif folder is not None:
            self._say("Only folders that you added can be taken out", "$warning")

    async def _take_out(self, folder: Folder) -> None:
        left = [written for written in self._desk.settings.models_dirs if written != folder.written]
        try:
            await self._keep(left, f"{folder.written} is not looked at any more; its files stay")
        except QuantchatError as error:
            self._say(str(error), "$error")

    async def _keep(self, folders: list[str], words: str) -> None:
        await self._desk.look_in(folders)
        await self._fill()
        self._say(words)

    def _say(self, words: str, style: str = "") -> None:
        self.query_one("#meaning", Line).show(Content.styled(clean(words, newlines=False), style))

    @on(CompletionList.Chosen)
    def _on_completion_chosen(self, event: CompletionList.Chosen) -> None:
        self.query_one(FolderField).choose(event.place)

    def action_leave(self) -> None:
        if not self.query_one(FolderField).close_completion():
            self.dismiss()


def _id(folder: Folder) -> str:
    return f"{folder.own}:{folder.written}"
