"""Reading the chat: moving, finding, folding, copying."""

from __future__ import annotations

from quantchat.ui.screens.actions.part import ScreenPart


class ReadingActions(ScreenPart):
    """What is done with messages that stand there."""

    def action_transcript(self) -> None:
        self._screen.set_focus(self._screen.transcript)

    def action_copy_answer(self) -> None:
        from quantchat.ui import clipboard

        app = self._screen.app
        text = self._screen.transcript.source_of_last_answer()
        if not text:
            app.notify("There is no answer to copy yet", severity="warning")
            return
        clipboard.send(app, text, "the last answer")
