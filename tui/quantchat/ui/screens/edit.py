"""A dialog in which a text is changed that may be long: a prompt, an answer, the beginning of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual import on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.worker import Worker

from quantchat.domain.attachments import Draft
from quantchat.domain.text import clean, plain
from quantchat.errors import QuantchatError
from quantchat.ui.screens.editing import Editing
from quantchat.ui.widgets.prompt import Prompt

HINT = "Enter {}  Ctrl+J new line  Ctrl+G $EDITOR  Esc closes"


class EditArea(Prompt):
    """The prompt once more, as large as there is room."""

    folds = True

    def draft_of(self, text: str) -> Draft:
        return Draft.folded(plain(text)) if self.folds else Draft(plain(text))

    def paste(self, text: str) -> None:
        if self.folds:
            super().paste(text)
        else:
            self._replace_via_keyboard(plain(text), *self.selection)


class EditScreen(ModalScreen[None]):
    """Closes when its text was taken, or when the user gives up.

    Args:
        take: Gets the text; says whether it was taken.
        keep: Told the text whenever it changes, so that none is lost.
    """

    CSS_PATH = ["dialogs.tcss", "edit.tcss"]  # noqa: RUF012 - Textual declares it so
    AUTO_FOCUS = "EditArea"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", priority=True),
        Binding("ctrl+c", "copy_or_close", "Copy or close", priority=True),
        Binding("ctrl+g", "editor", "$EDITOR", priority=True),
    ]

    def __init__(self, editing: Editing, take: Callable[[Draft], Awaitable[bool]], keep: Callable[[str], None]) -> None:
        super().__init__()
        self._editing, self._take, self._keep = editing, take, keep

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -edit") as frame:
            # Not as a text, in which Textual would read markup.
            frame.border_title = Content(clean(self._editing.title, newlines=False))
            frame.border_subtitle = HINT.format(self._editing.does)
            yield EditArea()

    @property
    def area(self) -> EditArea:
        return self.query_one(EditArea)

    def on_mount(self) -> None:
        area, editing = self.area, self._editing
        area.folds = editing.folds
        area.take_submit = self._submit
        area.load_draft(area.draft_of(editing.text))
        if editing.unsent and editing.unsent != editing.text:
            area.rewrite(area.draft_of(editing.unsent))

    @on(EditArea.Changed)
    def _on_changed(self, event: EditArea.Changed) -> None:
        event.stop()
        # One that was typed before Enter may be told after the text was taken.
        if not self.area.read_only:
            self._keep(self.area.draft.expanded())

    def _submit(self, draft: Draft) -> None:
        # What would be written while files are read belonged to nothing.
        self.area.read_only = True
        _: Worker[None] = self.run_worker(self._offer(Draft(draft.text.rstrip(), draft.attachments)))

    async def _offer(self, draft: Draft) -> None:
        if await self._take(draft):
            self.dismiss(None)
        else:
            self.area.read_only = False
            self._keep(self.area.draft.expanded())

    def action_close(self) -> None:
        self.dismiss(None)

    def action_copy_or_close(self) -> None:
        if self.area.selected_text:
            raise SkipAction
        self.action_close()

    def action_editor(self) -> None:
        """Go on in the user's own editor."""
        from quantchat.ui.editor import edit_text

        area = self.area
        before = area.draft.expanded()
        try:
            text = edit_text(self.app, before)
        except QuantchatError as error:
            self.app.notify(str(error), severity="warning", markup=False)
            return
        if text != before:
            area.rewrite(area.draft_of(text))
