"""Versions and branches: changing what was said, walking, deleting, forking, looking at run cards.

In the transcript a command is about the message that is focused there, elsewhere about the last one of its kind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from quantchat.domain.attachments import Draft
from quantchat.domain.text import shortened
from quantchat.domain.tree import BEGINNING
from quantchat.errors import QuantchatError, UsageError
from quantchat.ui.keys import show_keys
from quantchat.ui.screens.actions.drafts import PAUSE_SECONDS
from quantchat.ui.screens.actions.part import ScreenPart
from quantchat.ui.screens.editing import Editing

if TYPE_CHECKING:
    from textual.events import DescendantBlur, DescendantFocus
    from textual.timer import Timer

    from quantchat.domain.chat import Message, Role, Session

T = TypeVar("T")

HINTS = (
    ("read.edit", "change"),
    ("read.again", "again"),
    ("read.begin", "begin"),
    ("read.previous-version", ""),
    ("read.next-version", "version"),
    ("read.fork", "fork"),
    ("read.delete", "delete"),
    ("read.undo", "undo"),
    ("read.card", "card"),
)
_TITLE = 40


class TreeActions(ScreenPart):
    """What is done to the tree of the session that is shown."""

    _edits_timer: Timer | None = None

    @cached_property
    def _unsaved_edits(self) -> dict[str, Session]:
        return {}

    # What can be done

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        if event.widget is self._screen.transcript:
            self._screen.later("activity")

    def on_descendant_blur(self, event: DescendantBlur) -> None:
        if event.widget is self._screen.transcript:
            self._screen.later("activity")

    def reading_hint(self) -> str:
        """Say what the keys of the transcript do while it has the keyboard."""
        screen, keys = self._screen, self._app.key_map
        if screen.focused is not screen.transcript:
            return ""
        bound = ((show_keys(keys[name].partition(",")[0]), words) for name, words in HINTS)
        return "".join(f"{key} {words}  " if words else f"{key} " for key, words in bound if key).rstrip()

    # Which message

    def _focused_message(self) -> Message | None:
        """The message that has the keys, if the transcript has the keyboard; what is said about one counts as it."""
        screen = self._screen
        shown = screen.transcript.focused_message if screen.focused is screen.transcript else None
        if shown is None:
            return None
        if shown.startswith("queued:"):
            raise UsageError("This prompt still waits", remedy="Esc takes it back")
        message = self.session.messages.get(shown.partition(":")[0])
        return message or self._last()

    def _last(self, role: Role | None = None) -> Message | None:
        """The last message that is shown, or the last of a role."""
        return next((m for m in reversed(self.session.branch()) if role in (None, m.role)), None)

    def _target(self, role: Role | None = None, *, strictly: bool = False) -> Message:
        """The focused message, if it is of the role or any will do, else the last one of the role."""
        message = self._focused_message()
        if message is None or (strictly and message.role != role):
            message = self._last(role)
        if message is None:
            raise UsageError("There is no such message yet", remedy="Type a prompt and press Enter")
        return message

    def _attempt(self, work: Callable[[], T]) -> T | None:
        """Do it, or say why it cannot be done."""
        try:
            return work()
        except QuantchatError as error:
            self._app.notify(str(error), severity="warning", markup=False)
            # A session of another program was read anew to see whether it is free.
            self._screen.sync_transcript()
            return None

    # Versions

    def action_version(self, which: str = "") -> None:
        """Show another version of a message: `<` the one before, `>` the one after, a number, or the next in turn."""
        self._attempt(lambda: self._show_version(which.strip()))

    def _show_version(self, which: str) -> None:
        screen, session = self._screen, self.session
        message = self._focused_message() or self._last_with_versions()
        versions = [version.id for version in session.siblings(message.id)]
        if len(versions) < 2:
            raise UsageError("There is one version of this message", remedy="r writes another answer, e changes it")
        here = versions.index(message.id)
        place = _place(which, here, len(versions))
        if not 0 <= place < len(versions) or place == here:
            return
        with screen.transcript.held():
            self.desk.branches.show(session.id, versions[place])
        if screen.focused is not screen.transcript:
            screen.transcript.bring(versions[place])

    def _last_with_versions(self) -> Message:
        branch = self.session.branch()
        found = next((m for m in reversed(branch) if len(self.session.siblings(m.id)) > 1), None)
        if found is None:
            raise UsageError("No message here has another version", remedy="Ctrl+R writes another answer")
        return found

    def answer_again(self) -> None:
        """Add a version of the answer that is focused, or another answer to the question that is."""
        self._attempt(self._answer_again)

    def _answer_again(self) -> None:
        self.desk.branches.again(self.session.id, self._target().id)
        self._screen.transcript.action_scroll_end()

    # Changing

    def action_edit(self) -> None:
        """Change a message of the user and ask again, or in the transcript change the answer that is focused."""
        self._attempt(lambda: self._edit(self._target("user")))

    def action_edit_answer(self) -> None:
        self._attempt(lambda: self._edit(self._target("assistant", strictly=True)))

    def _edit(self, message: Message) -> None:
        if message.role == "system":
            raise UsageError("Only prompts and answers can be changed here")
        own = message.role == "user"
        title, does = ("Change your prompt", "asks again") if own else ("Change the answer", "keeps both versions")
        self._write(message.id, Editing(title, does, message.text, folds=own), partial(self._take_edit, message))

    def _write(self, key: str, editing: Editing, take: Callable[[Draft], Awaitable[bool]]) -> None:
        """Let the user write a text that belongs to a message; what is not sent is kept by its key."""
        from quantchat.ui.screens.edit import EditScreen

        session = self.session
        self.desk.branches.changeable(session.id, key.removeprefix(BEGINNING))

        def keep(text: str) -> None:
            self._keep_edit(session, key, text if text != editing.text else "")

        found = replace(editing, unsent=session.edits.get(key, ""))
        self._app.push_screen(EditScreen(found, take, keep), lambda _: self._screen.sync_transcript())

    async def _take_edit(self, message: Message, draft: Draft) -> bool:
        """Put a changed message beside the first one; say whether that was possible."""
        own = message.role == "user"
        whole = await self._screen.with_files(draft) if own else draft
        if whole is None:
            return False
        text = whole.expanded()
        if text == message.text:
            self._app.notify("Nothing was changed")
            return True
        copy = self._attempt(lambda: self.desk.branches.edit(self.session.id, message.id, text))
        if copy is None:
            return False
        if own:
            self._screen.recall.add(draft)
            self._ask_on()
        else:
            self._screen.transcript.bring(copy.id)
        return True

    def _keep_edit(self, session: Session, key: str, text: str) -> None:
        """Note what is not sent yet, and write it when the user pauses."""
        if session.edits.get(key, "") == text:
            return
        if text:
            session.edits[key] = text
        else:
            session.edits.pop(key, None)
        self._unsaved_edits[session.id] = session
        if self._edits_timer is None:
            self._edits_timer = self._screen.set_timer(PAUSE_SECONDS, self._save_edits)

    def _save_edits(self) -> None:
        self._edits_timer = None
        while self._unsaved_edits:
            _, session = self._unsaved_edits.popitem()
            with suppress(QuantchatError):
                self.desk.archive.save(session)

    def _ask_on(self) -> None:
        """Follow the answer that begins, and write on."""
        screen = self._screen
        screen.transcript.action_scroll_end()
        screen.set_focus(screen.prompt)

    # The beginning of an answer

    def action_begin(self, text: str = "") -> None:
        """Let the answer begin with words of the user, or ask for them."""
        self._attempt(lambda: self._begin(text))

    def _begin(self, text: str) -> None:
        message = self._target()
        if text.strip():
            self._begin_with(message, text)
            return
        question = next((m for m in reversed(self.session.branch(message.id)) if m.role == "user"), message)
        title = f"The answer to “{shortened(question.text, _TITLE)}” begins with"

        async def take(draft: Draft) -> bool:
            return self._attempt(lambda: self._begin_with(question, draft.expanded())) is not None

        self._write(BEGINNING + question.id, Editing(title, "goes on from there"), take)

    def _begin_with(self, message: Message, text: str) -> Message:
        answer = self.desk.branches.begin(self.session.id, message.id, text)
        self._ask_on()
        return answer

    # Deleting

    def action_delete_message(self) -> None:
        self._attempt(self._delete_message)

    def _delete_message(self) -> None:
        message = self._target()
        with self._screen.transcript.held():
            deletion = self.desk.branches.delete(self.session.id, message.id)
        way = "u brings it back" if len(deletion.messages) == 1 else "u brings them back"
        self._app.notify(f"Deleted {_messages(len(deletion.messages))}; /undo or {way}")

    def action_undo(self) -> None:
        self._attempt(self._undo)

    def _undo(self) -> None:
        deletion = self.desk.branches.undo(self.session.id)
        self._screen.transcript.bring(next(iter(deletion.messages)))

    def action_purge(self) -> None:
        """Drop what was deleted, once the user has said so."""
        from quantchat.ui.screens.dialogs import ConfirmScreen

        session = self.session
        count = sum(len(deletion.messages) for deletion in session.deleted)
        if not count:
            self._app.notify("Nothing was deleted from this session")
            return

        def purge(sure: bool | None) -> None:
            if sure:
                self._attempt(lambda: self.desk.branches.forget_deleted(session.id))

        question = (
            f"Forget the {_messages(count)} that {'was' if count == 1 else 'were'} deleted here? No way leads back."
        )
        self._app.push_screen(ConfirmScreen(question, "Forget", final=True), purge)

    # Forks

    def action_fork(self) -> None:
        self._attempt(self._fork)

    def _fork(self) -> None:
        screen = self._screen
        fork = self.desk.branches.fork(self.session.id, self._target().id)
        screen.open_session(fork)
        screen.set_focus(screen.prompt)
        self._app.notify("This is a session of its own now, with all that was said")

    # Run cards

    def action_card(self) -> None:
        self._attempt(self._card)

    def _card(self) -> None:
        from quantchat.domain.runcard import run_card
        from quantchat.ui.screens.card import CardScreen

        message = self._target("assistant")
        versions = [version.id for version in self.session.siblings(message.id)]
        sections = run_card(message, versions.index(message.id) + 1, len(versions))
        self._app.push_screen(CardScreen(shortened(message.text, _TITLE) or "Run card", sections))


def _place(which: str, here: int, count: int) -> int:
    """The number, from 0, of the version that is meant."""
    if which in ("<", ">"):
        return here + (1 if which == ">" else -1)
    if not which:
        return (here + 1) % count
    if not which.isdecimal() or not 1 <= int(which) <= count:
        raise UsageError(f"There are versions 1 to {count}")
    return int(which) - 1


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"
