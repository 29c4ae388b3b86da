"""What the application tells of itself: toasts, and dialogs that wait for a pause in the typing."""

from __future__ import annotations

from typing import Any

from quantchat.domain.text import clean
from quantchat.errors import ErrorReport
from quantchat.services.facts import Notice
from quantchat.ui.wire.hook import WiredApp


class TellingApp(WiredApp[None], inherit_bindings=False):
    """An application whose notices hold other people's words, and never take a letter of the prompt."""

    def seconds_to_pause(self) -> float:
        """How long the user will probably go on typing."""
        return 0.0

    def notify(self, message: str, *, markup: bool = False, **options: Any) -> None:
        """Show a toast, once; what it says may hold file names and other people's words."""
        words = clean(message)
        if all(shown.message != words for shown in self._notifications):
            super().notify(words, markup=markup, **options)

    def show_notice(self, notice: Notice) -> None:
        """Show a toast, or a dialog for what needs reading."""
        if notice.dialog:
            self._show_at_a_pause(notice.report)
        else:
            self.notify(notice.report.sentence(), severity=notice.severity, timeout=10, markup=False)

    def _show_at_a_pause(self, report: ErrorReport) -> None:
        """Show a dialog that nobody asked for, which would take the letters of a prompt that is being written."""
        rest = self.seconds_to_pause()
        if rest > 0:
            self.set_timer(rest, lambda: self._show_at_a_pause(report))
        else:
            self.show_error(report)

    def show_error(self, report: ErrorReport) -> None:
        """Show what needs reading in a dialog."""
        from quantchat.ui.screens.dialogs import ErrorScreen

        self.push_screen(ErrorScreen(report))

    def show_problems(self, problems: list[ErrorReport]) -> None:
        """Tell what is wrong with settings, keys and themes: one thing in a toast, more in one dialog."""
        if len(problems) == 1:
            self.show_notice(Notice(report=problems[0], severity="warning"))
        elif problems:
            from quantchat.ui.screens.dialogs import gathered

            self.show_error(gathered(problems))
