"""Sessions that leave no trace, until they are wanted after all."""

from __future__ import annotations

from quantchat.domain.text import clean
from quantchat.errors import QuantchatError
from quantchat.ui.screens.actions.part import ScreenPart


class TemporaryActions(ScreenPart):
    """Beginning and keeping temporary sessions."""

    async def action_temporary(self) -> None:
        """Begin a session that is never written."""
        screen, archive = self._screen, self.desk.archive
        await screen.typed()
        screen.remove_class("-sidebar-over")
        if archive.is_temporary(self.session.id) and archive.is_bare(self.session):
            self._app.notify("This session is temporary", markup=False)
        else:
            screen.open_session(archive.new(temporary=True))
        screen.set_focus(screen.prompt)

    async def action_keep(self) -> None:
        """Write this session from now on, with all that was said in it."""
        screen, session = self._screen, self.session
        if not self.desk.archive.is_temporary(session.id):
            self._app.notify("This session is kept already", markup=False)
            return
        await screen.typed()
        screen.keep_draft()
        try:
            self.desk.conversation.keep(session.id)
        except QuantchatError as error:
            self._app.notify(clean(str(error)), severity="error", markup=False)
            return
        self.desk.remember(last_session=session.id)
        self._app.notify("This session is kept from now on", markup=False)
