"""What the commands of the main screen do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.actions import SkipAction

from quantchat.domain.chat import Session
from quantchat.errors import QuantchatError
from quantchat.ui.screens.dialogs import ConfirmScreen, ErrorScreen, TitleScreen
from quantchat.ui.widgets.rows import RowList

if TYPE_CHECKING:
    from quantchat.services.desk import Desk
    from quantchat.ui.screens.chat import ChatScreen


class ChatActions:
    """Mixin of `ChatScreen`: one method per command of the table."""

    if TYPE_CHECKING:
        desk: Desk
        session: Session

    @property
    def _screen(self: object) -> ChatScreen:
        from quantchat.ui.screens.chat import ChatScreen

        assert isinstance(self, ChatScreen)
        return self

    # Turns

    def send(self, text: str) -> None:
        """Send a prompt; when it cannot be sent it stays in the prompt."""
        screen = self._screen
        try:
            self.desk.conversation.send(self.session.id, text)
        except QuantchatError as error:
            screen.app.notify(str(error), severity="warning", markup=False)
            return
        self.desk.remember(last_session=self.session.id)
        screen.prompt.load("")
        screen.transcript.action_scroll_end()

    async def action_stop(self) -> None:
        screen = self._screen
        await screen.typed()
        screen.app.clear_notifications()
        if screen.has_class("-sidebar-over"):
            screen.remove_class("-sidebar-over")
            screen.set_focus(screen.prompt)
            return
        if self.desk.conversation.stop(self.session.id):
            return
        if self.desk.library.loading is not None:
            self.action_unload()
        else:
            screen.set_focus(screen.prompt)

    async def action_interrupt(self) -> None:
        """Ctrl+C copies when text is selected, else it stops; it never quits."""
        if self._screen.get_selected_text():
            raise SkipAction
        await self.action_stop()

    def action_regenerate(self) -> None:
        try:
            self.desk.conversation.regenerate(self.session.id)
        except QuantchatError as error:
            self._screen.app.notify(str(error), severity="warning", markup=False)

    def action_copy_answer(self) -> None:
        app = self._screen.app
        text = self._screen.transcript.source_of_last_answer()
        if not text:
            app.notify("There is no answer to copy yet", severity="warning")
            return
        app.copy_to_clipboard(text)
        app.notify(f"Sent {len(text)} characters to the terminal's clipboard (OSC 52)")

    # Models

    def action_models(self) -> None:
        self._focus_list("models")

    def choose_model(self, path: str) -> None:
        """Load a model, or say why it cannot be loaded."""
        screen = self._screen
        model = self.desk.find(path)
        if model is None:
            return
        screen.remove_class("-sidebar-over")
        screen.set_focus(screen.prompt)
        report = self.desk.library.loaded
        if report is not None and report.path == path:
            screen.app.notify(f"{model.name} is loaded", markup=False)
            return
        self.desk.load(model)

    def action_unload(self) -> None:
        self.desk.unload()

    def action_rescan(self) -> None:
        self.desk.run(self.desk.library.scan())
        self._screen.later("models")

    # Sessions

    def action_sessions(self) -> None:
        self._focus_list("sessions")

    def _focus_list(self, name: str) -> None:
        screen = self._screen
        screen.remove_class("-sidebar-off")
        if screen.has_class("-narrow"):
            screen.add_class("-sidebar-over")
        rows = screen.query_one(f"#{name}", RowList)
        report = self.desk.library.loaded
        rows.go_to(self.session.id if name == "sessions" else report.path if report else None)
        # Not `focus()`, which takes effect later: keys that arrive in the same packet would still go to the prompt.
        screen.set_focus(rows)

    async def action_new_session(self) -> None:
        screen = self._screen
        await screen.typed()
        screen.remove_class("-sidebar-over")
        if self.session.messages or self.session.queued:
            screen.open_session(self.desk.archive.new())
        screen.set_focus(screen.prompt)

    def choose_session(self, session_id: str) -> None:
        """Open a session of the list."""
        screen = self._screen
        try:
            session = self.desk.archive.open(session_id)
        except QuantchatError as error:
            screen.app.push_screen(ErrorScreen(error.report))
            screen.reload_sessions()
            return
        screen.remove_class("-sidebar-over")
        if session is not self.session:
            screen.open_session(session)
        screen.set_focus(screen.prompt)

    def action_rename(self) -> None:
        session = self.session

        def rename(title: str | None) -> None:
            if title:
                self._try(lambda: self.desk.archive.rename(session.id, title))

        self._screen.app.push_screen(TitleScreen(session.title), rename)

    def action_delete(self) -> None:
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
        self.desk.conversation.forget(session_id)
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

    # The screen itself

    def action_transcript(self) -> None:
        self._screen.set_focus(self._screen.transcript)

    def action_toggle_sidebar(self) -> None:
        screen = self._screen
        if screen.has_class("-narrow"):
            screen.toggle_class("-sidebar-over")
        else:
            screen.toggle_class("-sidebar-off")
        screen.set_focus(screen.prompt)

    def action_next_theme(self) -> None:
        from quantchat.ui.app import QuantchatApp

        app = self._screen.app
        assert isinstance(app, QuantchatApp)
        app.next_theme()

    def action_palette(self) -> None:
        self._screen.app.action_command_palette()

    def action_help(self) -> None:
        from quantchat.ui.screens.help import HelpScreen

        self._screen.app.push_screen(HelpScreen())

    async def action_quit(self) -> None:
        await self._screen.app.action_quit()
