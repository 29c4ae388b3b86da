"""Reading the chat: moving, finding, folding, copying."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from textual.widget import Widget

    from quantchat.ui.widgets.find import FindLine
    from quantchat.ui.widgets.transcript import Transcript


class ReadingActions(ScreenPart):
    """What is done with messages that stand there."""

    _find_line: FindLine | None = None
    _before_find: Widget | None = None

    # Going there and back

    def action_transcript(self) -> None:
        self._screen.set_focus(self._screen.transcript)

    def action_write(self) -> None:
        """Go back to the prompt."""
        self._screen.set_focus(self._screen.prompt)

    def action_previous_prompt(self) -> None:
        self._screen.transcript.go_to_prompt(-1)

    def action_next_prompt(self) -> None:
        self._screen.transcript.go_to_prompt(1)

    # Thinking

    def action_thinking(self) -> None:
        transcript = self._screen.transcript
        transcript.thinking_shown = not transcript.thinking_shown
        if not transcript.has_thinking:
            will = "be shown" if transcript.thinking_shown else "stay folded"
            self._screen.app.notify(f"No answer here has thinking; where one has, it will {will}")

    # Copying

    def action_copy_answer(self) -> None:
        text = self._screen.transcript.source_of_last_answer() or ""
        self._copy(text, "the last answer", "There is no answer to copy yet")

    def action_copy_code(self) -> None:
        self._screen.transcript.action_copy_code()

    def on_transcript_copy_requested(self, event: Transcript.CopyRequested) -> None:
        event.stop()
        self._copy(event.text, event.what, f"There is no {event.what} to copy")

    def _copy(self, text: str, what: str, nothing: str) -> None:
        if not text:
            self._screen.app.notify(nothing, severity="warning")
            return
        from quantchat.ui import clipboard

        clipboard.send(self._screen.app, text, what)

    # Finding

    async def prepare_find(self) -> None:
        """Make the find line, which the first frame does without."""
        from quantchat.ui.widgets.find import FindLine

        if self._find_line is None:
            self._find_line = FindLine(id="find")
            await self._screen.query_one("#chat").mount(self._find_line, after=self._screen.transcript)

    async def action_find(self, text: str = "") -> None:
        """Open the find line, or go into it if it is open."""
        screen = self._screen
        await self.prepare_find()
        line = self._find_line
        if line is None:
            return
        if not line.display:
            self._before_find = screen.focused
        line.open(text)

    def close_find(self) -> bool:
        """Take the find line and the marks away; return whether there were any."""
        screen, line = self._screen, self._find_line
        if line is None or not line.display:
            return False
        inside = screen.focused is line.field
        # First: who draws a widget again between a change of the layout and the layout hides that change from Textual.
        screen.transcript.end_search()
        line.close()
        if inside:
            screen.set_focus(self._before_find or screen.prompt)
        return True

    def on_find_line_typed(self, event: FindLine.Typed) -> None:
        event.stop()
        if self._find_line is not None and self._find_line.display:
            self._screen.transcript.find(event.text)

    def on_find_line_stepped(self, event: FindLine.Stepped) -> None:
        event.stop()
        self._screen.transcript.step_search(event.direction)

    def on_transcript_search_changed(self, event: Transcript.SearchChanged) -> None:
        event.stop()
        if self._find_line is not None:
            self._find_line.show_count(event.place, event.total)
