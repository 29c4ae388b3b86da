"""Looking at the exact prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantchat.domain.attachments import Draft
from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from quantchat.services.inspecting import Inspected


class InspectActions(ScreenPart):
    """What the model is asked with, to the last token."""

    async def action_inspect(self, text: str = "") -> None:
        """Show what this session would send now, with `text` or what stands in the prompt as the question."""
        from quantchat.ui.screens.inspector import InspectorScreen

        screen, session = self._screen, self.session
        await screen.typed()
        draft = Draft(text) if text else screen.prompt.draft
        whole = await screen.with_files(draft) if text or screen.to_be_sent() else Draft()
        if whole is None:
            return

        async def ask() -> Inspected:
            return await self.desk.inspector.inspect(session, whole.expanded())

        self._app.push_screen(InspectorScreen(ask))
