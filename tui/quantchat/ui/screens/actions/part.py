"""What all groups of actions of the main screen stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.scroll_view import ScrollView

from quantchat.ui.widgets.models import ModelList
from quantchat.ui.widgets.sessions import SessionList

if TYPE_CHECKING:
    from quantchat.domain.chat import Session
    from quantchat.services.desk import Desk
    from quantchat.ui.app import QuantchatApp
    from quantchat.ui.screens.chat import ChatScreen


class ScreenPart:
    """A mixin of `ChatScreen` that knows which screen it is part of."""

    if TYPE_CHECKING:
        desk: Desk
        session: Session

    @property
    def _screen(self: object) -> ChatScreen:
        from quantchat.ui.screens.chat import ChatScreen

        assert isinstance(self, ChatScreen)
        return self

    @property
    def _app(self) -> QuantchatApp:
        from quantchat.ui.app import QuantchatApp

        app = self._screen.app
        assert isinstance(app, QuantchatApp)
        return app

    def _focus_list(self, name: str) -> None:
        screen = self._screen
        screen.remove_class("-sidebar-off")
        if screen.has_class("-narrow"):
            screen.add_class("-sidebar-over")
        rows = screen.query_one(f"#{name}", ScrollView)
        report = self.desk.library.loaded
        if isinstance(rows, SessionList):
            rows.go_to(self.session.id)
        elif isinstance(rows, ModelList):
            rows.go_to(report.path if report else None)
        # Not `focus()`, which takes effect later: keys that arrive in the same packet would still go to the prompt.
        screen.set_focus(rows)
