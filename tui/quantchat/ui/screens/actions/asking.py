"""What a session asks with: its system prompt, its chat template, and prompts of the library."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from quantchat.domain.attachments import Draft
from quantchat.domain.text import clean, plain
from quantchat.errors import QuantchatError
from quantchat.services.background import in_background
from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from quantchat.domain.chat import Session
    from quantchat.domain.prompts import PromptTemplate
    from quantchat.services.promptbook import PromptBook
    from quantchat.ui.screens.template import Wanted

OWN_WORDS = frozenset({"own", "default", "model", "none"})
"""Typed behind `/template`, these put the model's own back."""


class AskingActions(ScreenPart):
    """System prompt, chat template, prompt library."""

    # The system prompt

    def action_system(self, text: str = "") -> None:
        """Tell the model something before the chat, from the next answer on."""
        from quantchat.ui.screens.words import WordsScreen

        session = self.session

        def keep(wanted: str | None) -> None:
            if wanted is not None:
                self._keep_system(session, wanted)

        if text.strip():
            keep(text.strip())
        else:
            title = "System prompt of this session: what the model is told first"
            self._app.push_screen(WordsScreen(title, session.system_prompt, self._take_from_library), keep)

    def _keep_system(self, session: Session, text: str) -> None:
        text = plain(text)
        if text == session.system_prompt:
            return
        if self._configure(session, system_prompt=text):
            words = "It counts from the next answer on" if text else "This session has none any more"
            self._app.notify(words, title="System prompt", markup=False)

    def _configure(self, session: Session, **changes: str) -> bool:
        """Change a session, or say why not; tell whether it was changed."""
        try:
            self.desk.archive.configure(session.id, **changes)  # type: ignore[arg-type]
        except QuantchatError as error:
            self._app.notify(clean(str(error)), severity="warning", markup=False)
            return False
        return True

    # The chat template

    async def action_template(self, wanted: str = "") -> None:
        """Ask with another chat template, put the model's own back, or show which is used."""
        from quantchat.services import chattemplate
        from quantchat.ui.screens.template import TemplateScreen

        session, model = self.session, self._model_path()
        wanted = wanted.strip()
        if wanted.lower() in OWN_WORDS:
            self._put_template(session, "")
        elif wanted:
            await self._take_template(session, lambda: chattemplate.read_template(wanted, model))
        else:
            text = session.template or await in_background(chattemplate.own_template, model)
            screen = TemplateScreen(bool(session.template), lambda: in_background(chattemplate.sample, text, model))
            self._app.push_screen(screen, lambda chosen: self._on_template_chosen(session, text, chosen))

    def _model_path(self) -> str | None:
        report = self.desk.library.loaded
        return report.path if report is not None else self.session.model

    async def _take_template(self, session: Session, read: Callable[[], str]) -> None:
        try:
            text = await in_background(read)
        except QuantchatError as error:
            self._app.show_error(error.report)
            return
        self._put_template(session, text)

    def _put_template(self, session: Session, text: str) -> None:
        if self._configure(session, template=text):
            words = "This session asks with its own" if text else "This session asks with the model's own"
            self._app.notify(words, title="Chat template", markup=False)

    async def _on_template_chosen(self, session: Session, text: str, chosen: Wanted | None) -> None:
        from quantchat.services import chattemplate
        from quantchat.ui.editor import edit_text

        if chosen == "own":
            self._put_template(session, "")
        if chosen != "edit":
            return
        try:
            edited = edit_text(self._screen.app, text)
        except QuantchatError as error:
            self._app.notify(clean(str(error)), severity="warning", markup=False)
            return
        model = self._model_path()
        if edited != text:
            await self._take_template(session, lambda: chattemplate.checked(edited, model))

    # The library

    @cached_property
    def prompt_book(self) -> PromptBook:
        """The user's prompt templates."""
        from quantchat.services.promptbook import PromptBook

        return PromptBook()

    async def action_prompts(self, name: str = "") -> None:
        """Put a prompt of the library into the prompt, with its fields filled in."""
        await self._screen.typed()
        self._choose_prompt(name.strip(), self._screen.prompt.draft, self._put_prompt)

    def _take_from_library(self, take: Callable[[Draft], None]) -> None:
        self._choose_prompt("", Draft(), take)

    def _choose_prompt(self, name: str, first: Draft, take: Callable[[Draft], None]) -> None:
        from quantchat.ui.screens.prompts import PromptsScreen

        def ask(template: PromptTemplate | None) -> None:
            if template is not None:
                self._ask_fields(template, first, take)

        if not name:
            self._app.push_screen(PromptsScreen(self.prompt_book), ask)
            return
        try:
            ask(self.prompt_book.find(name))
        except QuantchatError as error:
            self._app.notify(clean(str(error)), severity="warning", markup=False)

    def _ask_fields(self, template: PromptTemplate, first: Draft, take: Callable[[Draft], None]) -> None:
        from quantchat.ui.screens.fields import FieldsScreen

        def fill(draft: Draft | None) -> None:
            if draft is not None:
                take(draft)

        if template.fields:
            self._app.push_screen(FieldsScreen(template, first), fill)
        else:
            take(first.joined(template.filled({})))

    def _put_prompt(self, draft: Draft) -> None:
        prompt = self._screen.prompt
        prompt.load_draft(draft)
        self._screen.set_focus(prompt)
