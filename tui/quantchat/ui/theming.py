"""Theme files become Textual themes, and stay in step with their files while the program runs."""

from __future__ import annotations

import asyncio
import difflib
from typing import TYPE_CHECKING

import msgspec
from textual.app import App
from textual.theme import Theme

from quantchat import paths
from quantchat.errors import ErrorReport
from quantchat.store.themes import ThemeFile, ThemeFolders, is_theme_name, read_theme, unusable

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_THEME = "quantchat-dark"
TERMINAL_THEME = "terminal"
"""The theme that uses the terminal's own 16 colours and no other."""

_NATIVE = dict.fromkeys(("ansi-background", "ansi-foreground", "surface-active", "foreground-disabled"), "ansi_default")
"""What style sheets ask for and Textual leaves out of themes that are drawn in the terminal's own colours."""


def textual_theme(file: ThemeFile) -> Theme:
    """Make a Textual theme of a validated theme file."""
    fields = msgspec.structs.asdict(file)
    if file.native:
        fields["variables"] = _NATIVE | file.variables
    return Theme(**fields, ansi=file.native)


class Themes:
    """The themes that can be chosen.

    Attributes:
        kept: The theme that stays when a preview ends.
    """

    def __init__(self, app: App[None]) -> None:
        self._app = app
        self._folders = ThemeFolders(paths.shipped_themes_dir(), paths.user_themes_dir())
        self._told: list[ErrorReport] = []
        self._looking = False
        self._first_look = asyncio.Event()
        self._wanted = self.kept = DEFAULT_THEME

    @property
    def files(self) -> list[ThemeFile]:
        """All themes, the program's own first."""
        own = "quantchat-"
        return sorted(self._folders.themes.values(), key=lambda file: (not file.name.startswith(own), file.name))

    def begin(self, setting: str, told: str | None = None, *, few_colours: bool = False) -> None:
        """Show the theme of the command line, or else of the settings.

        The first frame waits for it, so it reads no more files than that takes; a theme that is not there is named by
        the first `look`. With `few_colours`, which are 16 or fewer, the default gives way to the terminal's own: they
        can be read there, and the nearest to other colours perhaps not.
        """
        fitting = TERMINAL_THEME if few_colours and setting == DEFAULT_THEME else setting
        self._wanted = wanted = told or fitting
        user = ThemeFolders(paths.user_themes_dir())
        user.look()
        for name in (wanted, DEFAULT_THEME):
            file = user.themes.get(name) or _shipped(name)
            if file is not None:
                self._app.register_theme(textual_theme(file))
                self._app.theme = self.kept = name
                return

    async def ready(self) -> None:
        """Wait until all themes have been read, which happens right after the first frame."""
        await self._first_look.wait()

    async def look(self) -> list[ErrorReport]:
        """Take over what has changed in theme files; return problems that were not there before."""
        if self._looking:
            return []
        before, self._looking = self._folders.themes, True
        try:
            changed = await asyncio.to_thread(self._folders.look)
        finally:
            self._looking = False
            self._first_look.set()
        if not changed:
            return []
        self._register(file for name, file in self._folders.themes.items() if before.get(name) != file)
        problems = [*self._folders.problems, *self._missing()]
        new = [problem for problem in problems if problem not in self._told]
        self._told = problems
        return new

    def _register(self, files: Iterable[ThemeFile]) -> None:
        for file in files:
            theme = textual_theme(file)
            same = self._app.available_themes.get(file.name) == theme
            self._app.register_theme(theme)
            if file.name == self._wanted != self.kept:
                self.kept = file.name
                self.show(file.name)
            elif file.name == self._app.theme and not same:
                self._app.mutate_reactive(App.theme)

    def _missing(self) -> list[ErrorReport]:
        broken = any(problem.title == unusable(self._wanted) for problem in self._folders.problems)
        if self._wanted in self._folders.themes or broken:
            return []
        gone = self.kept == self._wanted
        report = ErrorReport(
            code="theme",
            title=f"There is no theme {self._wanted!r}{' any more' if gone else ''}",
            detail="Its colours stay until you leave" if gone else f"{self.kept} is used",
            remedy=f"Known themes: {', '.join(file.name for file in self.files)}",
        )
        return [report]

    def show(self, name: str) -> None:
        """Draw the screen in a theme, for now."""
        if name in self._app.available_themes and name != self._app.theme:
            self._app.theme = name

    def restore(self) -> None:
        """End a preview."""
        self.show(self.kept)

    async def keep(self, name: str) -> None:
        """Use a theme from now on, also after the next start.

        Raises:
            UsageError: if the settings file does not parse.
            StorageError: if the disk refuses.
        """
        from quantchat.store.settings import update_settings

        self._wanted = self.kept = name
        self.show(name)
        await asyncio.to_thread(update_settings, theme=name)

    def near(self, name: str) -> list[str]:
        """Names that were perhaps meant."""
        return difflib.get_close_matches(name, [file.name for file in self.files], n=3, cutoff=0.4)


def _shipped(name: str) -> ThemeFile | None:
    return read_theme(paths.shipped_themes_dir() / f"{name}.toml")[0] if is_theme_name(name) else None
