"""Asking, stopping, asking again."""

from __future__ import annotations

from collections.abc import Callable

from textual.actions import SkipAction

from quantchat.errors import QuantchatError
from quantchat.ui.screens.actions.part import ScreenPart


class TurnActions(ScreenPart):
    """What is asked of the engine."""

    async def action_stop(self) -> None:
        screen = self._screen
        await screen.typed()
        if screen.prompt.dismiss_completion() or screen.close_find() or screen.end_filter():
            return
        screen.app.clear_notifications()
        if screen.has_class("-sidebar-over"):
            screen.remove_class("-sidebar-over")
            screen.set_focus(screen.prompt)
            return
        if self.desk.conversation.stop(self.session.id):
            return
        if self.desk.library.loading is not None:
            self.desk.unload()
        else:
            screen.set_focus(screen.prompt)

    async def action_interrupt(self) -> None:
        """Ctrl+C copies when text is selected, else it stops; it never quits."""
        screen = self._screen
        if screen.focused is screen.prompt and screen.prompt.selected_text:
            raise SkipAction
        if screen.get_selected_text():
            screen.action_copy_text()
        else:
            await self.action_stop()

    def action_stop_all(self) -> None:
        if not self.desk.conversation.stop_all():
            self._screen.app.notify("No session is being answered")

    def action_regenerate(self, focused: bool = False) -> None:
        """Answer the last question again, or that of the message that is focused."""
        if focused:
            self._screen.answer_again()
        else:
            self._try_turn(self.desk.conversation.regenerate)

    def action_continue(self) -> None:
        self._try_turn(self.desk.conversation.resume)

    def _try_turn(self, begin: Callable[[str], None]) -> None:
        try:
            begin(self.session.id)
        except QuantchatError as error:
            self._screen.app.notify(str(error), severity="warning", markup=False)
