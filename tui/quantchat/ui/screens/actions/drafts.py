"""What stands in the prompt is kept with its session: on leaving it, and while it is written."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import TYPE_CHECKING

from quantchat.domain.attachments import Draft
from quantchat.errors import QuantchatError
from quantchat.ui.commands import QUIT_WORDS, find_slash, is_mistyped
from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from textual.timer import Timer

    from quantchat.domain.chat import Session

PAUSE_SECONDS = 2.0
"""A draft is saved after so long without a key."""
LONGEST_SECONDS = 10.0
"""And after so long in any case."""
WRITING_SECONDS = 1.5
"""Somebody whose last key in the prompt is no older than this is writing."""


class Drafts:
    """What is known of the drafts of one run.

    Attributes:
        mirrored: The draft of the session that is shown, as the prompt gave it last.
        found: That draft as it was when the session was opened.
        elsewhere: Sessions that hold the drafts of sessions which cannot be written.
        sending: Prompts whose files are being read, with their sessions; they are drafts until they are sent.
        since: What was written meanwhile, by session.
        in_order: Held while the files of one prompt are read, so that no later one overtakes it.
    """

    def __init__(self) -> None:
        self.mirrored = ""
        self.found = ""
        self.elsewhere: dict[str, Session] = {}
        self.sending: list[tuple[str, Draft]] = []
        self.since: dict[str, Draft] = {}
        self.in_order = asyncio.Lock()
        self.changed = self.first_change = 0.0
        self.timer: Timer | None = None


class DraftActions(ScreenPart):
    """Keeping and showing drafts."""

    if TYPE_CHECKING:
        drafts: Drafts

    def show_draft(self) -> None:
        """Put the session's draft into the prompt."""
        session = self.session
        sending = any(session.id == waiting for waiting, _ in self.drafts.sending)
        self._screen.prompt.load_draft(self.drafts.since.get(session.id, Draft()) if sending else session.written())
        self.drafts.mirrored = self.drafts.found = session.draft

    def take_draft(self) -> None:
        """A prompt that was taken back stands behind the session's draft; put it into the prompt too."""
        session, drafts = self.session, self.drafts
        added = session.draft.removeprefix(drafts.mirrored).lstrip("\n")
        drafts.mirrored = session.draft
        if added:
            prompt = self._screen.prompt
            prompt.load_draft(prompt.draft.joined(Draft.folded(added)))

    def keep_draft(self) -> None:
        """Save what stands in the prompt with its session."""
        session = self.session
        if self._mirror() or session.draft or session.messages:
            self._save_draft()

    def give_back(self, session: Session, draft: Draft) -> None:
        """Put a prompt that could not be sent before what was written since."""
        if session is self.session:
            self._screen.prompt.load_draft(draft.joined(self._screen.prompt.draft))
            self._mirror()
        elif draft.expanded() not in session.draft:
            session.write(draft.joined(session.written()))
        with contextlib.suppress(QuantchatError):
            self.desk.archive.save(session)

    def _mirror(self) -> bool:
        """Note the prompt in its session; say whether it differs from before."""
        session, drafts = self.session, self.drafts
        before = session.draft, session.draft_words
        drafts.since[session.id] = self._screen.prompt.draft
        session.write(self.unsent(session))
        drafts.mirrored = session.draft
        return (session.draft, session.draft_words) != before

    def unsent(self, session: Session) -> Draft:
        """Return the prompts that wait for their files, and behind them what was written since."""
        draft = self._screen.prompt.draft if session is self.session else self.drafts.since.get(session.id, Draft())
        for waiting, sent in reversed(self.drafts.sending):
            if waiting == session.id:
                draft = sent.joined(draft)
        return draft

    def to_be_sent(self) -> str:
        """Return what Enter would send to the model now."""
        prompt = self._screen.prompt
        return "" if _is_command(prompt.text.strip()) else prompt.draft.expanded()

    def _save_draft(self) -> None:
        session = self.session
        if self.desk.archive.is_bare(session):
            self.desk.archive.drop_empty(session)
            return
        try:
            self.desk.archive.save(session)
        except QuantchatError:
            self._keep_elsewhere()

    def _keep_elsewhere(self) -> None:
        """A session that another program holds keeps its draft there; what was written here gets one of its own."""
        session, elsewhere = self.session, self.drafts.elsewhere
        if session.draft in ("", self.drafts.found):
            self.drop_elsewhere()
            return
        if session.id not in elsewhere:
            elsewhere[session.id] = self.desk.archive.new()
        other = elsewhere[session.id]
        other.title = f"Draft for {session.title}"
        other.draft, other.draft_words = session.draft, session.draft_words
        self.desk.archive.save(other)

    def drop_elsewhere(self) -> None:
        """Take away the copy of the draft that another session holds: it was sent, or is nothing new."""
        other = self.drafts.elsewhere.pop(self.session.id, None)
        if other is not None:
            self.desk.archive.drop_empty(other)

    # While it is written

    def seconds_to_pause(self) -> float:
        """Return how long from now the user counts as writing, unless there is another key."""
        written = bool(self._screen.prompt.text)
        return max(self.drafts.changed + WRITING_SECONDS - monotonic(), 0.0) if written else 0.0

    def draft_changed(self) -> None:
        """Save the draft when the user pauses."""
        drafts = self.drafts
        drafts.changed = monotonic()
        if drafts.timer is None:
            drafts.first_change = drafts.changed
            drafts.timer = self._screen.set_timer(PAUSE_SECONDS, self._on_pause)

    def _on_pause(self) -> None:
        drafts, now = self.drafts, monotonic()
        rest = min(drafts.changed + PAUSE_SECONDS, drafts.first_change + LONGEST_SECONDS) - now
        if rest > 0:
            drafts.timer = self._screen.set_timer(rest, self._on_pause)
            return
        drafts.timer = None
        if not _is_command(self._screen.prompt.text.strip()) and self._mirror():
            self._save_draft()


def _is_command(text: str) -> bool:
    """Whether Enter would run it; paths at the start of a question are part of the question."""
    named = text.startswith("/") and "\n" not in text and find_slash(text) is not None
    return named or text == "/" or is_mistyped(text) or text.lower() in QUIT_WORDS
