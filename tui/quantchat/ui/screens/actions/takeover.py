"""A session that another program writes: reading along, and taking it over when that program is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantchat.domain.chat import Session
from quantchat.errors import QuantchatError, SessionLocked, SessionNewer, StorageError
from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from quantchat.ui.screens.actions.drafts import Drafts


class TakeOverActions(ScreenPart):
    """What happens when a session that could only be read can be written."""

    if TYPE_CHECKING:
        drafts: Drafts

    def access_note(self) -> str:
        """Say in the header why this session cannot be written, or that it has not been."""
        archive, session_id = self.desk.archive, self.session.id
        unsaved = "  NOT SAVED" if archive.unsaved(session_id) else ""
        why = archive.why_read_only(session_id)
        if why is None:
            return unsaved
        if isinstance(why, SessionNewer):
            return f"  read only: written by a later quantchat{unsaved}"
        return f"  read only: open in another quantchat, /takeover{unsaved}"

    def followed_line(self) -> str:
        """Say that an answer which grows here is written elsewhere."""
        session = self.session
        last = session.messages.get(session.head or "")
        runs = last is not None and last.role == "assistant" and last.finish is None
        followed = runs and isinstance(self.desk.archive.why_read_only(session.id), SessionLocked)
        return "Another quantchat is answering" if followed else ""

    def action_takeover(self) -> None:
        """Write this session here, if its holder is gone or the user says so."""
        archive, session_id = self.desk.archive, self.session.id
        why = archive.why_read_only(session_id)
        if why is None:
            self._app.notify("This session can be written here already")
            return
        quiet = archive.locks.sign_age(session_id) if isinstance(why, SessionLocked) else None
        if quiet is not None:
            self._ask_to_break(session_id, why, quiet)
        elif not self.take_over(session_id):
            self._app.show_error((archive.why_read_only(session_id) or why).report)

    def _ask_to_break(self, session_id: str, why: StorageError, quiet: float) -> None:
        """Nothing here can tell whether a process of another machine still runs."""
        from quantchat.ui.screens.dialogs import ConfirmScreen

        def take(sure: bool | None) -> None:
            if sure:
                self._break(session_id)

        seconds = f"{quiet:,.0f} s" if quiet < 120 else f"{quiet / 60:,.0f} min"
        question = f"{why.report.detail}; its last sign of life came {seconds} ago. Is that program gone for good?"
        self._app.push_screen(ConfirmScreen(question, "Take over"), take)

    def _break(self, session_id: str) -> None:
        try:
            self.desk.archive.locks.break_lock(session_id)
        except QuantchatError as error:
            self._app.show_error(error.report)
            return
        self.take_over(session_id)

    def take_over(self, session_id: str) -> bool:
        """Take the lock of the session on the screen, with what is on the disk now; say whether it can be written."""
        archive = self.desk.archive
        if session_id != self.session.id or archive.why_read_only(session_id) is None:
            return False
        try:
            session = archive.open(session_id)
        except QuantchatError as error:
            self._app.notify(error.report.sentence(), severity="warning")
            return False
        if archive.why_read_only(session_id) is not None:
            return False
        self._join_drafts(session)
        screen = self._screen
        screen.sync_transcript()
        screen.draw("header", "activity", "status", "mark")
        screen.reload_sessions()
        self._app.notify("The other quantchat has left this session: it can be written here now")
        return True

    def _join_drafts(self, session: Session) -> None:
        """What was written here stays in the prompt, behind what the other program left there, if that is new."""
        screen, drafts = self._screen, self.drafts
        mine, theirs = screen.prompt.draft, session.written()
        written = mine.expanded() not in ("", drafts.found)
        left = theirs.expanded() not in ("", drafts.found, mine.expanded())
        joined = (theirs.joined(mine) if left else mine) if written else theirs
        if joined != mine:
            screen.prompt.load_draft(joined)
        screen.drop_elsewhere()
        session.write(joined)
        drafts.mirrored = drafts.found = session.draft
