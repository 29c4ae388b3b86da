"""The look of the screen, help, and the way out."""

from __future__ import annotations

from quantchat.ui.screens.actions.part import ScreenPart


class AppearanceActions(ScreenPart):
    """What concerns the screen as a whole."""

    def action_toggle_sidebar(self) -> None:
        screen = self._screen
        if screen.has_class("-narrow"):
            screen.toggle_class("-sidebar-over")
        else:
            screen.toggle_class("-sidebar-off")
        screen.set_focus(screen.prompt)

    def action_theme(self) -> None:
        self._app.next_theme()

    def action_palette(self) -> None:
        self._screen.app.action_command_palette()

    def action_help(self) -> None:
        from quantchat.ui.screens.help import HelpScreen

        self._screen.app.push_screen(HelpScreen())

    async def action_quit(self) -> None:
        await self._screen.app.action_quit()
