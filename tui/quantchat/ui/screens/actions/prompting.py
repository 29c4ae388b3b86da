"""What becomes of a prompt: a command, a question with its files, or a draft; and writing it by other means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from quantchat.domain.attachments import Draft
from quantchat.errors import QuantchatError, UsageError
from quantchat.ui.commands import QUIT_WORDS, Command, find_slash, is_mistyped
from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from quantchat.domain.chat import Session
    from quantchat.services.recall import Walk
    from quantchat.ui.screens.actions.drafts import Drafts

P = TypeVar("P")
T = TypeVar("T")

READ_SECONDS = 10.0
"""A file on a disk that does not answer gives up the prompt again after this."""


class PromptActions(ScreenPart):
    """Sending, running commands, attaching, editing."""

    if TYPE_CHECKING:
        drafts: Drafts

    def prepare_completion(self) -> None:
        """Let the prompt complete; after the first frame, which does not need it."""
        from quantchat.ui.completion.completer import Completer
        from quantchat.ui.widgets.completion import CompletionList

        screen = self._screen
        screen.prompt.completer = Completer(screen.prompt, screen.query_one(CompletionList), self._known_words)

    def _known_words(self, kind: str) -> dict[str, str]:
        """What can stand behind a command, by its kind, each with its meaning."""
        from quantchat.domain.presets import describe_preset
        from quantchat.domain.sampling import MEANINGS

        if kind == "preset":
            return {name: describe_preset(values) for name, values in self.desk.presets.items()}
        if kind == "prompt":
            return {template.name: template.summary for template in self._screen.prompt_book.look()[0]}
        return {name.replace("_", "-"): meaning for name, meaning in MEANINGS.items()}

    def begin_recall(self) -> Walk:
        """Begin to walk through earlier prompts: all, or without a history those of the session."""
        from quantchat.services.recall import Walk
        from quantchat.store.history import Entry

        entries = self._screen.recall.entries()
        if not entries or self.desk.archive.is_temporary(self.session.id):
            asked = [message.text for message in self.session.branch() if message.role == "user"]
            entries = [*(Entry.of(Draft.folded(text)) for text in reversed(asked)), *entries]
        return Walk(entries)

    # What Enter does

    def submit(self, draft: Draft) -> None:
        """Run a command, or ask; what cannot be sent stays in the prompt."""
        text = draft.text.strip()
        if text.lower() in QUIT_WORDS:
            self._run_typed(find_slash("quit"), "")
        elif draft.text.startswith("/") and "\n" not in text and not draft.attachments and self._take_command(text):
            return
        elif text:
            self._send(Draft(draft.text.rstrip(), draft.attachments))

    def _take_command(self, text: str) -> bool:
        """Run what was typed as a command, or say why not; tell whether it was meant as one."""
        # Not only at the space of a Latin keyboard: a paste may hold a tab, and input methods have wide spaces.
        name, *argument = text.split(maxsplit=1)
        command = find_slash(name)
        if command is not None:
            self._run_typed(command, "".join(argument))
        elif is_mistyped(text):
            self._warn(f"There is no command {name}. F1 lists them")
        return command is not None or is_mistyped(text)

    def _run_typed(self, command: Command | None, argument: str) -> None:
        if command is None:
            return
        if argument and not command.argument:
            self._warn(f"/{command.slashes[0]} takes nothing behind it. To send this as a prompt, begin with a space")
            return
        screen = self._screen
        screen.prompt.load("")
        screen.call_later(self.run_command, command, argument)

    async def run_command(self, command: Command, argument: str = "") -> None:
        """Run a command of the table; its action gets the argument if there is one."""
        screen = self._screen
        if not argument:
            await screen.run_action(command.action)
            return
        done = getattr(screen, f"action_{command.action}")(argument)
        if asyncio.iscoroutine(done):
            await done

    # Sending

    def _send(self, draft: Draft) -> None:
        from quantchat.services.attachments import mentions

        session = self.session
        sending = self.drafts.sending
        if any(session.id == waiting for waiting, _ in sending) or mentions(draft.text):
            # Not while the screen waits: the disk may be slow, and keys behind Enter belong to the next prompt.
            self._screen.keep_draft()
            sending.append((session.id, draft))
            self._screen.prompt.load("")
            self.drafts.since[session.id] = Draft()
            self.desk.run(self._send_with_files(session, draft))
        elif self._ask(session, draft, draft, Draft()):
            self._screen.prompt.load("")

    async def _send_with_files(self, session: Session, draft: Draft) -> None:
        async with self.drafts.in_order:
            whole = await self.with_files(draft)
            if self._app.leaving:
                return
            self.drafts.sending.remove((session.id, draft))
            sent = whole is not None and self._ask(session, draft, whole, self._screen.unsent(session))
        if not sent:
            self._screen.give_back(session, draft)

    async def with_files(self, draft: Draft) -> Draft | None:
        """Attach the files that a prompt mentions; None if that failed, which was said then."""
        from quantchat.services.attachments import mentions, with_mentioned_files

        return await self._read_files(with_mentioned_files, draft) if mentions(draft.text) else draft

    async def _read_files(self, read: Callable[[P], T], what: P) -> T | None:
        """Read on another thread, within bounds; None if that failed, which was said then."""
        from quantchat.services.background import in_background

        try:
            return await asyncio.wait_for(in_background(read, what), READ_SECONDS)
        except TimeoutError:
            self._warn("A file could not be read in time")
        except UsageError as error:
            self._warn(str(error))
        return None

    def _ask(self, session: Session, written: Draft, whole: Draft, rest: Draft) -> bool:
        """Send a prompt; the rest stays the draft of its session."""
        screen = self._screen
        kept = None
        try:
            # It may have been left meanwhile: what is read anew must not come over the draft that is set here.
            session = self.desk.archive.open(session.id)
            kept = session.written()
            self._set_draft(session, rest)
            self.desk.conversation.send(session.id, whole.expanded())
        except QuantchatError as error:
            if kept is not None:
                self._set_draft(session, kept)
            self._warn(str(error))
            return False
        if not self.desk.archive.is_temporary(session.id):
            screen.recall.add(written)
        if session is self.session:
            screen.drop_elsewhere()
            self.desk.remember(last_session=session.id)
            screen.transcript.action_scroll_end()
        return True

    def _set_draft(self, session: Session, draft: Draft) -> None:
        session.write(draft)
        if session is self.session:
            self.drafts.mirrored = session.draft

    def _warn(self, words: str) -> None:
        self._screen.app.notify(words, severity="warning", markup=False)

    # Files

    async def action_attach(self, path: str = "") -> None:
        """Put a text file into the prompt, or begin to name one."""
        from quantchat.services.attachments import read_file

        screen = self._screen
        screen.set_focus(screen.prompt)
        file = await self._read_files(read_file, path) if path else None
        if file is not None:
            screen.prompt.attach(file.text, file.name)
        elif not path:
            screen.prompt.begin_mention()
        elif not screen.prompt.text:
            screen.prompt.load(f"/attach {path}")

    # The editor

    async def action_editor(self) -> None:
        """Write the prompt in the user's own editor; it stays as it is when that fails."""
        from quantchat.ui.editor import edit_text

        screen = self._screen
        await screen.typed()
        screen.keep_draft()
        before = screen.prompt.draft.expanded()
        try:
            text = edit_text(screen.app, before)
        except QuantchatError as error:
            self._warn(str(error))
        else:
            # An editor that was only looked into leaves tokens where they stood, and what can be undone.
            if text != before:
                screen.prompt.load(text)
        screen.set_focus(screen.prompt)
