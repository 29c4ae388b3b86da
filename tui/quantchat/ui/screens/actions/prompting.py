"""Writing a prompt by other means than typing it."""

from __future__ import annotations

from quantchat.ui.screens.actions.part import ScreenPart


class PromptActions(ScreenPart):
    """Editor and attachments."""
