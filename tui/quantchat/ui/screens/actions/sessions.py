"""Opening, making, naming, deleting sessions."""

from __future__ import annotations

from quantchat.errors import QuantchatError
from quantchat.ui.screens.actions.part import ScreenPart
from quantchat.ui.widgets.rows import RowList


class SessionActions(ScreenPart):
    """What the session list and its keys do."""

    def action_sessions(self) -> None:
        self._focus_list("sessions")

    async def action_new_session(self) -> None:
        screen = self._screen
        await screen.typed()
        screen.remove_class("-sidebar-over")
        if self.session.messages or self.session.queued:
            screen.open_session(self.desk.archive.new())
        screen.set_focus(screen.prompt)

    def choose_session(self, session_id: str) -> None:
        """Open a session of the list."""
        screen, archive = self._screen, self.desk.archive
        stale = session_id == self.session.id and archive.why_read_only(session_id) is not None
        try:
            if stale:
                screen.keep_draft()
            session = archive.open(session_id)
        except QuantchatError as error:
            self._app.show_error(error.report)
            screen.reload_sessions()
            return
        screen.remove_class("-sidebar-over")
        if stale and archive.why_read_only(session_id) is None:
            # The draft that was written here stays in its own session.
            screen.drafts.elsewhere.pop(session_id, None)
            screen.open_session(session)
        elif stale:
            screen.sync_transcript()
        elif session is not self.session:
            screen.open_session(session)
        screen.set_focus(screen.prompt)

    def action_rename(self, title: str = "") -> None:
        """Give this session a title, or ask for one."""
        from quantchat.ui.screens.dialogs import TitleScreen

        session = self.session

        def rename(wanted: str | None) -> None:
            if wanted and wanted.strip():
                self._try(lambda: self.desk.archive.rename(session.id, wanted.strip()))

        if title.strip():
            rename(title)
        else:
            self._app.push_screen(TitleScreen(session.title), rename)

    def action_delete(self) -> None:
        from quantchat.ui.screens.dialogs import ConfirmScreen

        screen = self._screen
        sessions = screen.query_one("#sessions", RowList)
        session_id = (sessions.highlighted_id if sessions.has_focus else None) or self.session.id
        title = next((s.title for s in screen.summaries if s.id == session_id), self.session.title)

        def delete(sure: bool | None) -> None:
            if sure:
                screen.desk.run(self._delete(session_id))

        question = f"Delete “{title}”? Its file moves to the trash folder."
        screen.app.push_screen(ConfirmScreen(question, "Delete"), delete)

    async def _delete(self, session_id: str) -> None:
        screen = self._screen
        # Before anything else: a session that stays keeps its row and what is written in the prompt.
        self.desk.archive.require_writable(session_id)
        self.desk.conversation.forget(session_id)
        # At once: Enter on a row that is being deleted would find no session.
        screen.summaries = [summary for summary in screen.summaries if summary.id != session_id]
        screen.draw("sessions")
        if session_id == self.session.id:
            screen.prompt.load("")
            screen.open_session(self.desk.archive.new())
        await self.desk.archive.delete(session_id)

    def _try(self, work: object) -> None:
        assert callable(work)
        try:
            work()
        except QuantchatError as error:
            self._screen.app.notify(str(error), severity="error", markup=False)
