"""A quantization under way or ended: how far it is, what each matrix lost, what was logged, what came of it."""

from __future__ import annotations

import contextlib
from typing import ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat.domain.text import clean
from quantchat.services.quantizing.job import QuantizeJob
from quantchat.services.quantizing.plan import Ended
from quantchat.services.quantizing.running import Quantizations
from quantchat.ui import jobs as words
from quantchat.ui.screens.dialogs import ConfirmScreen, Panel
from quantchat.ui.widgets.lazy import LazyRows
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.modules import LogList, ModuleList

Next = Literal["load", "evaluate", "again"]
"""What the user wants to do with the end of a job."""

BAR_CELLS = 30
HINTS: dict[Ended, str] = {
    "": "x cancels  l log  S worst first  Esc lets it go on",
    "done": "Enter loads it  e measures it  l log  Esc closes",
    "failed": "r begins again  c copies what failed  l log  Esc closes",
    "cancelled": "r begins again  l log  Esc closes",
}
NARROW = 64
SHORT_HINTS: dict[Ended, str] = {
    "": "x cancels  l log  Esc goes on",
    "done": "Enter loads it  e measures  Esc",
    "failed": "r again  c copies  l log  Esc",
    "cancelled": "r begins again  l log  Esc",
}


class JobScreen(ModalScreen[Next | None]):
    """Watches a job; Esc leaves it running.

    Args:
        interval: Seconds after which one that moves on is drawn anew, however many matrices it has done.
    """

    CSS_PATH = ["dialogs.tcss", "quantize.tcss"]  # noqa: RUF012 - Textual declares it so
    AUTO_FOCUS = "#modules"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "close", "Close"),
        Binding("x", "cancel_job", "Cancel the job"),
        Binding("l", "log", "Log"),
        Binding("e", "choose('evaluate')", "Measure"),
        Binding("r", "choose('again')", "Begin again"),
        Binding("enter", "choose('load')", "Load"),
        Binding("c,ctrl+o", "copy", "Copy"),
    ]

    def __init__(self, jobs: Quantizations, job: QuantizeJob, interval: float) -> None:
        super().__init__()
        self._jobs, self.job, self._interval = jobs, job, interval

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -job") as frame:
            frame.border_title = Content(job_title(self.job))
            yield Line(id="share")
            yield Line(id="stage")
            yield Line(id="worst")
            yield Line(id="calibration")
            with Panel(id="ending"):
                yield Static(markup=False)
            yield ModuleList(id="modules")
            yield LogList(id="log")

    def on_mount(self) -> None:
        self._jobs.watchers.add(self._on_job)
        self.set_interval(self._interval, self._draw_running)
        self.call_after_refresh(self._draw)

    def on_unmount(self) -> None:
        self._jobs.watchers.discard(self._on_job)

    # Drawing

    def _on_job(self, job: QuantizeJob) -> None:
        if job is self.job and job.state.ended:
            self._draw()

    def _draw_running(self) -> None:
        if not self.job.state.ended:
            self._draw()

    def _draw(self) -> None:
        state = self.job.state
        # A dialog that is being closed loses its widgets first.
        with contextlib.suppress(NoMatches):
            self.set_class(bool(state.ended), "-ended")
            hints = SHORT_HINTS if self.size.width < NARROW else HINTS
            self.query_one(".dialog").border_subtitle = hints[state.ended]
            self._line("share", words.progress_content(state, min(BAR_CELLS, self.size.width // 3)))
            self._line("stage", words.stage_content(state))
            self._line("worst", words.worst_content(state))
            self._line("calibration", words.calibration_content(state.calibration))
            self.query_one("#ending Static", Static).update(words.ending_content(state))
            self.query_one(ModuleList).show(state.modules)
            self.query_one(LogList).show(state.log)

    def _line(self, name: str, content: Content) -> None:
        self.query_one(f"#{name}", Line).show(content)

    # Keys

    def action_log(self) -> None:
        """Show what was logged in place of the matrices, or these again."""
        self.toggle_class("-log")
        self.set_focus(self.query_one(LogList if self.has_class("-log") else ModuleList))

    @on(LazyRows.Chosen)
    def _on_chosen(self) -> None:
        self.action_choose("load")

    def action_choose(self, wanted: Next) -> None:
        """Go on with the result, or begin again where there is none."""
        ended = self.job.state.ended
        if ended == "done" if wanted != "again" else ended in ("failed", "cancelled"):
            self.dismiss(wanted)

    def action_cancel_job(self) -> None:
        if self.job.state.ended:
            return

        def cancel(sure: bool | None) -> None:
            if sure:
                self._jobs.cancel()

        question = f"It is {words.percent(self.job.state.share)} done. Nothing of it is kept: the next one begins anew."
        self.app.push_screen(ConfirmScreen(question, "Cancel the job", final=True), cancel)

    def action_copy(self) -> None:
        from quantchat.ui import clipboard

        state = self.job.state
        text = "\n".join(filter(None, (words.ending_content(state).plain, *state.log)))
        clipboard.send(self.app, text, "what the job said")

    def action_close(self) -> None:
        self.dismiss(None)


def job_title(job: QuantizeJob) -> str:
    """What is made of what."""
    found = job.preflight
    source = found.model.name if found.model is not None else found.plan.source
    return clean(f"{source} → {found.plan.recipe.label()}", newlines=False)
