"""Fetching models from the hub."""

from __future__ import annotations

from quantchat.ui.screens.actions.part import ScreenPart


class PullActions(ScreenPart):
    """The dialog of downloads; they run on behind the chat when it is closed."""

    def action_pull(self, name: str = "") -> None:
        """Look a repository up, or show what is being downloaded."""
        from quantchat.ui.screens.pull import PullScreen

        self._app.push_screen(PullScreen(self.desk.pulls, self.desk.memory, name.strip()))
