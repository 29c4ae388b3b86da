"""Opening, making, naming sessions, and coming back to the place where one was read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantchat.errors import QuantchatError
from quantchat.services.amending import retitle
from quantchat.store.state import ReadingPlace
from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from quantchat.domain.found import Hit


class SessionActions(ScreenPart):
    """What is done with one session."""

    def action_sessions(self) -> None:
        self._focus_list("sessions")

    async def action_new_session(self) -> None:
        screen = self._screen
        await screen.typed()
        screen.remove_class("-sidebar-over")
        session = self.session
        used = session.messages or session.queued or session.deleted
        if used or self.desk.archive.is_temporary(session.id):
            screen.open_session(self.desk.archive.new())
        screen.set_focus(screen.prompt)

    def choose_session(self, session_id: str) -> bool:
        """Open a session of the list; say whether it is the one that is shown now."""
        screen, archive = self._screen, self.desk.archive
        stale = session_id == self.session.id and archive.why_read_only(session_id) is not None
        try:
            if stale:
                screen.keep_draft()
            session = archive.open(session_id)
        except QuantchatError as error:
            self._app.show_error(error.report)
            screen.reload_sessions()
            return False
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
        return True

    # Names

    def action_rename(self, title: str = "") -> None:
        """Give a session a title, or ask for one: the one under the cursor in the list, else the one that is shown."""
        from quantchat.ui.screens.dialogs import TitleScreen

        session_id = self._screen.targets()[:1] or (self.session.id,)

        def rename(wanted: str | None) -> None:
            if wanted and wanted.strip():
                self.desk.run(self._rename(session_id[0], wanted.strip()))

        if title.strip():
            rename(title)
        else:
            self._app.push_screen(TitleScreen(self.title_of(session_id[0])), rename)

    async def _rename(self, session_id: str, title: str) -> None:
        try:
            await self.desk.archive.amend(session_id, lambda session: retitle(session, title))
        except QuantchatError as error:
            self._app.notify(str(error), severity="error", markup=False)
        self._screen.reload_sessions()

    def title_of(self, session_id: str) -> str:
        """The title of a session of the list."""
        if session_id == self.session.id:
            return self.session.title
        return next((row.title for row in self._screen.summaries if row.id == session_id), "")

    def action_title(self) -> None:
        """Let the loaded model give this session a title, whoever gave it the one that it has."""
        try:
            self.desk.titles.ask(self.session.id)
        except QuantchatError as error:
            self._app.notify(str(error), severity="warning", markup=False)

    # Where it was read

    def keep_place(self) -> None:
        """Remember where the session that is shown was read; its end needs no remembering."""
        if self.desk.archive.is_temporary(self.session.id):
            return
        place, known = self._screen.transcript.reading_place, self.desk.state.places
        kept = None if place is None else ReadingPlace(*place)
        if known.get(self.session.id) != kept:
            self.desk.remember(places=self.desk.state.places_with(self.session.id, kept))

    def show_place(self) -> None:
        """Go to where the session that is shown was read last."""
        place = self.desk.state.places.get(self.session.id)
        if place is not None:
            self._screen.transcript.go_to_message(place.message, place.share)

    # Search

    def action_search(self, text: str = "") -> None:
        """Search all sessions, and open the one that is chosen where it says that."""
        from quantchat.ui.screens.search import Chosen, SearchScreen

        screen = self._screen

        async def open_it(chosen: Chosen | None) -> None:
            if chosen is not None:
                await self.open_hit(chosen.hit, chosen.text)

        screen.keep_draft()
        self._app.push_screen(SearchScreen(self.desk.finder, text or self._searched), open_it)

    _searched = ""

    async def open_hit(self, hit: Hit, text: str) -> None:
        """Open a session where it holds what was searched, on the branch that does, and mark it there."""
        screen = self._screen
        self._searched = text
        if not self.choose_session(hit.session.id):
            return
        if hit.message is None or hit.message not in self.session.messages:
            return
        self.desk.archive.turn(self.session.id, hit.message)
        screen.sync_transcript()
        transcript = screen.transcript
        transcript.go_to_message(hit.message)
        transcript.find_from(hit.message, text.lower())
        await screen.action_find(text.lower())
        screen.set_focus(transcript)
