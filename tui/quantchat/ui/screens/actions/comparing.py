"""One prompt to two models, kernels or settings, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantchat.domain.chat import Session
from quantchat.errors import QuantchatError
from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from quantchat.ui.screens.compare import CompareScreen
    from quantchat.ui.screens.sides import Setup


class CompareActions(ScreenPart):
    """The screen with two columns; its engines end when it is left."""

    _compared: Setup | None = None

    def action_compare(self, name: str = "") -> None:
        """Put the loaded model beside the named one, or the one before; without a name what was compared last."""
        from quantchat.ui.screens.compare import CompareScreen

        try:
            setup = self._sides_to_compare(name.strip())
        except QuantchatError as error:
            self._app.notify(str(error), severity="warning", markup=False)
            return
        if setup is None:
            self._app.notify("There is no model yet that can be loaded", severity="warning")
            return
        screen = CompareScreen(self._screen, setup, self._app.link, lambda: self._app.lagging)
        self._app.push_screen(screen, lambda session: self._leave_comparison(screen, session))

    def _sides_to_compare(self, name: str) -> Setup | None:
        from quantchat.ui.screens.sides import first_setup

        last, loaded = self._compared, self.desk.library.model
        if last is not None and not name:
            paths = {last.left.model.path, last.right.model.path}
            if all(map(self.desk.find, paths)) and (loaded is None or loaded.path in paths):
                return last
        return first_setup(self.desk, (self.session.preset, self.session.sampling), name)

    def _leave_comparison(self, screen: CompareScreen, session: Session | None) -> None:
        self._compared = screen.setup
        if session is not None:
            self._screen.open_session(session)
