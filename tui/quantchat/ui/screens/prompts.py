"""The library of prompt templates: found by typing, and written in the user's editor."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input
from textual.worker import Worker

from quantchat.domain.prompts import PromptTemplate
from quantchat.domain.text import clean, shortened
from quantchat.errors import QuantchatError
from quantchat.services.background import in_background
from quantchat.services.promptbook import PromptBook
from quantchat.store.library import check_name
from quantchat.ui.screens.typed import TypedScreen
from quantchat.ui.widgets.field import Field
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import Row, RowList

SHOWN = 300


class PromptsScreen(TypedScreen[PromptTemplate]):
    """A line to type in, and the templates that hold it in their names or texts."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+n", "write_new", "New", priority=True),
        Binding("ctrl+g", "edit", "Edit", priority=True),
        Binding("f10", "delete", "Delete", priority=True),
    ]

    def __init__(self, book: PromptBook) -> None:
        super().__init__()
        self._book = book
        self._templates: dict[str, PromptTemplate] = {}

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -prompts") as frame:
            frame.border_title = "Prompts"
            frame.border_subtitle = "Enter takes it  Ctrl+N new  Ctrl+G edits  F10 deletes  Esc closes"
            yield Field(placeholder="Type a part of a name or text")
            yield RowList(id="prompts", empty="No prompts. Ctrl+N writes one; {name} in it is a field")
            yield Line(id="meaning")

    def on_mount(self) -> None:
        self._look()

    def _look(self, follow: str | None = None) -> None:
        _: Worker[None] = self.run_worker(self._read(follow), group="prompts", exclusive=True)

    async def _read(self, follow: str | None) -> None:
        templates, problems = await in_background(self._book.look)
        self._templates = {template.name: template for template in templates}
        self._fill()
        self.query_one(RowList).go_to(follow)
        for problem in problems:
            self._say(problem.sentence(), "$warning")

    @on(Input.Changed)
    def _fill(self) -> None:
        query = self.query_one(Field).value.strip().casefold()
        rows = self.query_one(RowList)
        rows.show([self._row(one) for one in self._templates.values() if _holds(one, query)])
        rows.action_first()

    def _row(self, template: PromptTemplate) -> Row:
        fields = " ".join(f"{{{clean(field, newlines=False)}}}" for field in template.fields)
        return Row(template.name, clean(template.name, newlines=False), fields, prose=True)

    @property
    def _chosen(self) -> PromptTemplate | None:
        return self._templates.get(self.query_one(RowList).highlighted_id or "")

    @on(RowList.OptionHighlighted)
    def _on_highlighted(self, event: RowList.OptionHighlighted) -> None:
        template = self._templates.get(event.option_id or "")
        self._say(shortened(template.text, SHOWN) if template is not None else "")

    def _say(self, words: str, style: str = "") -> None:
        self.query_one("#meaning", Line).show(Content.styled(clean(words, newlines=False), style))

    @on(Input.Submitted)
    @on(RowList.OptionSelected)
    def _on_chosen(self) -> None:
        if self._chosen is not None:
            self.dismiss(self._chosen)

    # Writing

    def action_write_new(self) -> None:
        from quantchat.ui.screens.words import AskScreen

        def begin(name: str | None) -> None:
            if name:
                self._keep(PromptTemplate(name, ""), new=True)

        hint = "Then its text is written in your editor. {name} in it is a field that is asked for"
        self.app.push_screen(AskScreen("Name of the new prompt", self.query_one(Field).value, hint), begin)

    def action_edit(self) -> None:
        if self._chosen is not None:
            self._keep(self._chosen, new=False)

    def _keep(self, template: PromptTemplate, *, new: bool) -> None:
        from quantchat.ui.editor import edit_text

        try:
            check_name(template.name, "prompt")
            if new and template.name in self._templates:
                self._say(f"There is a prompt {template.name} already; Ctrl+G edits it", "$warning")
                return
            text = edit_text(self.app, template.text)
            if text.strip() and text != template.text:
                self._book.files.write(template.name, text, replace=not new)
        except QuantchatError as error:
            self._say(str(error), "$error")
        else:
            self.query_one(Field).value = ""
            self._look(follow=template.name)

    def action_delete(self) -> None:
        from quantchat.ui.screens.dialogs import ConfirmScreen

        template = self._chosen
        if template is None:
            return

        def delete(sure: bool | None) -> None:
            if sure:
                self._delete(template)

        question = f"Delete the prompt “{template.name}”? Its file moves to the trash folder."
        self.app.push_screen(ConfirmScreen(question, "Delete"), delete)

    def _delete(self, template: PromptTemplate) -> None:
        try:
            self._book.files.remove(template.name)
        except QuantchatError as error:
            self._say(str(error), "$error")
        else:
            self._look()


def _holds(template: PromptTemplate, query: str) -> bool:
    return query in template.name.casefold() or query in template.text.casefold()
