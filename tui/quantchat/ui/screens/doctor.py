"""What is wrong with this machine: findings that appear one by one."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Resize
from textual.widgets import Static

from quantchat.services.doctor.checks import CHECKS, Check, examine
from quantchat.services.doctor.findings import Finding, Level, summary, text
from quantchat.ui.screens.dialogs import Frame, TextScreen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quantchat.services.doctor.machine import Machine

STYLES: dict[Level, str] = {"green": "$success", "yellow": "$warning", "red": "$error"}


def findings_content(findings: list[Finding], width: int) -> Content:
    """Lay findings out in some columns, their marks in colour."""
    lines = []
    for finding in findings:
        first, *more = finding.lines(width)
        lines += [Content.assemble((first[:1], f"bold {STYLES[finding.level]}"), first[1:]), *map(Content, more)]
    return Content("\n").join(lines)


class DoctorScreen(TextScreen):
    """The findings in the order of the table of checks; what still runs is named below."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("r", "again", "Look again")]

    def __init__(self, machine: Callable[[], Machine], checks: Sequence[Check] = CHECKS) -> None:
        """`machine` makes the facts of one examination."""
        super().__init__("Doctor", "Looking at this machine …")
        self._machine, self._checks = machine, checks
        self._found: dict[str, tuple[Finding, ...]] = {}

    @property
    def findings(self) -> list[Finding]:
        return [finding for check in self._checks for finding in self._found.get(check.id, ())]

    def on_mount(self) -> None:
        self.query_one(Frame).border_subtitle = "Esc closes  c copies the text  r looks again"
        self.action_again()

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._draw)

    def action_again(self) -> None:
        self._found = {}
        self._draw()
        self.run_worker(self._examine(), group="doctor", exclusive=True)

    async def _examine(self) -> None:
        async with aclosing(examine(self._machine(), self._checks)) as all_done:
            async for check, findings in all_done:
                self._found[check.id] = findings
                self._draw()

    def _draw(self) -> None:
        frame = self.query_one(Frame)
        running = [check.title for check in self._checks if check.id not in self._found]
        last = f"Looking at {', '.join(running)} …" if running else summary(self.findings)
        shown = findings_content(self.findings, frame.scrollable_content_region.width)
        self.query_one(".body", Static).update(Content("\n\n").join([part for part in (shown, Content(last)) if part]))
        # Unbroken, as the lines stand in a file: a terminal may be narrower or wider than this one.
        self._parts["body"] = f"{text(self.findings)}\n\n{last}"
