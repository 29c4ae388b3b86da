"""What stands in the prompt is kept with its session: on leaving it, and while it is written."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import TYPE_CHECKING

from quantchat.domain.attachments import Draft
from quantchat.domain.chat import UNTITLED
from quantchat.errors import QuantchatError
from quantchat.ui.commands import QUIT_WORDS
from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from textual.timer import Timer

    from quantchat.domain.chat import Session

PAUSE_SECONDS = 2.0
"""A draft is saved after so long without a key."""
LONGEST_SECONDS = 10.0
"""And after so long in any case."""


class Drafts:
    """What is known of the drafts of one run.

    Attributes:
        mirrored: The draft of the session that is shown, as the prompt gave it last.
        found: That draft as it was when the session was opened.
        exact: Drafts by session with their tokens where the user put them.
        elsewhere: Sessions that hold the drafts of sessions which cannot be written.
        sending: Sessions with a prompt whose files are being read.
        in_order: Held while the files of one prompt are read, so that no later one overtakes it.
    """

    def __init__(self) -> None:
        self.mirrored = ""
        self.found = ""
        self.exact: dict[str, Draft] = {}
        self.elsewhere: dict[str, Session] = {}
        self.sending: list[str] = []
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
        exact = self.drafts.exact.get(session.id, Draft())
        self._screen.prompt.load_draft(exact if exact.expanded() == session.draft else Draft.folded(session.draft))
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
            try:
                self._save_draft()
            except QuantchatError:
                self._keep_elsewhere()

    def give_back(self, session: Session, draft: Draft) -> None:
        """Put a prompt that could not be sent before what was written since."""
        if session is self.session:
            self._screen.prompt.load_draft(draft.joined(self._screen.prompt.draft))
            self._mirror()
        elif draft.expanded() not in session.draft:
            session.draft = draft.joined(Draft.folded(session.draft)).expanded()
        with contextlib.suppress(QuantchatError):
            self.desk.archive.save(session)

    def _mirror(self) -> bool:
        """Note the prompt in its session; say whether it differs from before."""
        session, draft, drafts = self.session, self._screen.prompt.draft, self.drafts
        if session.id in drafts.sending and not draft.text:
            # The prompt that waits for its files stands there until it is sent.
            return False
        text = draft.expanded()
        changed = text != session.draft
        session.draft = drafts.mirrored = text
        drafts.exact[session.id] = draft
        return changed

    def _save_draft(self) -> None:
        session = self.session
        written = session.draft or session.messages or session.queued or session.system_prompt
        if written or session.title != UNTITLED:
            self.desk.archive.save(session)
        else:
            self.desk.archive.drop_empty(session)

    def _keep_elsewhere(self) -> None:
        """A session that another program holds keeps its draft there; what was written here gets one of its own."""
        session = self.session
        if session.draft in ("", self.drafts.found):
            return
        other = self.drafts.elsewhere.setdefault(session.id, self.desk.archive.new())
        other.title = f"Draft for {session.title}"
        other.draft = session.draft
        self.desk.archive.save(other)

    # While it is written

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
        text = self._screen.prompt.text
        if not text.startswith("/") and text.strip().lower() not in QUIT_WORDS and self._mirror():
            # One that another program holds is kept elsewhere when it is left.
            with contextlib.suppress(QuantchatError):
                self._save_draft()
