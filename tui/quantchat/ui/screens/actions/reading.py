"""Reading the chat: moving, finding, folding, copying."""

from __future__ import annotations

from quantchat.ui.screens.actions.part import ScreenPart


class ReadingActions(ScreenPart):
    """What is done with messages that stand there."""

    def action_transcript(self) -> None:
        self._screen.set_focus(self._screen.transcript)

    def action_copy_answer(self) -> None:
        app = self._screen.app
        text = self._screen.transcript.source_of_last_answer()
        if not text:
            app.notify("There is no answer to copy yet", severity="warning")
            return
        app.copy_to_clipboard(text)
        app.notify(f"Sent {len(text)} characters to the terminal's clipboard (OSC 52)")
