"""What is wrong with this machine: findings that appear one by one."""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.css.query import NoMatches
from textual.events import Resize
from textual.widgets import Static

from quantchat.services.doctor.checks import CHECKS, Check, examine
from quantchat.services.doctor.findings import Finding, Level, summary, text
from quantchat.ui.screens.dialogs import Frame, TextScreen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quantchat.services.doctor.machine import Machine

STYLES: dict[Level, str] = {"green": "$success", "yellow": "$warning", "red": "$error"}


HINT = "n next fault  c copies  r again  Esc closes"


def findings_content(findings: list[Finding], width: int) -> Content:
    """Lay findings out in some columns, their marks in colour."""
    lines = []
    for finding in findings:
        first, *more = finding.lines(width)
        lines += [Content.assemble((first[:1], f"bold {STYLES[finding.level]}"), first[1:]), *map(Content, more)]
    return Content("\n").join(lines)


class DoctorScreen(TextScreen):
    """The findings in the order of the table of checks; what still runs is named below."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("r", "again", "Look again"), Binding("n", "next", "Next fault")]

    def __init__(self, machine: Callable[[], Machine], checks: Sequence[Check] = CHECKS) -> None:
        """`machine` makes the facts of one examination."""
        super().__init__("Doctor", "Looking at this machine …")
        self._machine, self._checks = machine, checks
        self._found: dict[str, tuple[Finding, ...]] = {}

    @property
    def findings(self) -> list[Finding]:
        return [finding for check in self._checks for finding in self._found.get(check.id, ())]

    def on_mount(self) -> None:
        self.query_one(Frame).border_subtitle = HINT
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
        # A dialog that is being closed loses its widgets first.
        with suppress(NoMatches):
            self._draw_findings()

    def _draw_findings(self) -> None:
        frame = self.query_one(Frame)
        running = [check.title for check in self._checks if check.id not in self._found]
        last = f"Looking at {', '.join(running)} …" if running else summary(self.findings)
        width = frame.scrollable_content_region.width
        shown = findings_content(self.findings, width)
        # Also in sight of who has not scrolled to the end; Content, because a text would be taken for markup.
        frame.border_title = Content("looking …" if running else last)
        self.query_one(".body", Static).update(Content("\n\n").join([part for part in (shown, Content(last)) if part]))
        # Unbroken, as the lines stand in a file: a terminal may be narrower or wider than this one.
        self._parts["body"] = f"{text(self.findings)}\n\n{last}"

    def action_next(self) -> None:
        """Go to the next finding that is not green, behind the last one to the first."""
        frame, body = self.query_one(Frame), self.query_one(".body", Static)
        width = frame.scrollable_content_region.width
        above = body.virtual_region.y
        faults = [above + line for line in fault_lines(self.findings, width)]
        top = next((line for line in faults if line > frame.scroll_y), faults[0] if faults else 0)
        frame.scroll_to(y=top, animate=False)


def fault_lines(findings: Sequence[Finding], width: int) -> list[int]:
    """The lines at which the findings begin that are not green."""
    lines, line = [], 0
    for finding in findings:
        if finding.level != "green":
            lines.append(line)
        line += len(list(finding.lines(width)))
    return lines
