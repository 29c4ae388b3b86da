"""The look of the screen, help, and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantchat.errors import QuantchatError
from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from quantchat.ui.screens.palette import Entry


class AppearanceActions(ScreenPart):
    """What concerns the screen as a whole."""

    def action_toggle_sidebar(self) -> None:
        screen = self._screen
        if screen.has_class("-narrow"):
            screen.toggle_class("-sidebar-over")
        else:
            screen.toggle_class("-sidebar-off")
        screen.set_focus(screen.prompt)

    async def action_theme(self, name: str = "") -> None:
        """Use a theme, or let the user choose one."""
        from quantchat.ui.screens.themes import ThemeScreen

        await self._app.themes.ready()
        if name:
            self._use_theme(name.strip())
        else:
            self._app.push_screen(ThemeScreen(self._app.themes), self._keep_theme)

    def _use_theme(self, name: str) -> None:
        themes = self._app.themes
        if name in (file.name for file in themes.files):
            self._keep_theme(name)
            return
        near = ", ".join(themes.near(name))
        remedy = f"Did you mean {near}?" if near else "/theme alone shows them all"
        self._app.notify(f"There is no theme {name}. {remedy}", severity="warning")

    def _keep_theme(self, name: str | None) -> None:
        if name:
            self._screen.run_worker(self._store_theme(name), group="theme")

    async def _store_theme(self, name: str) -> None:
        try:
            await self._app.themes.keep(name)
        except QuantchatError as error:
            self._app.notify(f"{name} is used until you leave. {error}", severity="warning", timeout=10)

    async def action_palette(self) -> None:
        from quantchat.domain.presets import describe_preset
        from quantchat.ui.screens.palette import PaletteScreen, entries

        app = self._app
        await app.themes.ready()
        presets = {name: describe_preset(values) for name, values in self.desk.presets.items()}
        offered = entries(app.key_map, (file.name for file in app.themes.files), presets)
        app.push_screen(PaletteScreen(offered), self._run_entry)

    async def _run_entry(self, entry: Entry | None) -> None:
        from quantchat.ui.commands import find_command

        if entry is None:
            return
        if entry.kind == "theme":
            self._keep_theme(entry.name)
        elif entry.kind == "preset":
            self._screen.use_preset(entry.name)
        else:
            await self._screen.run_action(find_command(entry.name).action)

    def action_help(self) -> None:
        from quantchat.ui.screens.help import HelpScreen

        self._app.push_screen(HelpScreen())

    def action_redraw(self) -> None:
        self._app.redraw()

    async def action_quit(self) -> None:
        await self._app.action_quit()
