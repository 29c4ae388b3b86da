"""What was measured of models: a table and a chart for each reference, and the evaluation that runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat.domain.models import ModelInfo
from quantchat.domain.text import clean, shortened
from quantchat.services.background import in_background
from quantchat.services.evaluations import Evaluation, QualityDesk
from quantchat.services.quality import LEGEND, Measured, all_measured, chart, families, ruler_text, table
from quantchat.ui.screens.dialogs import Panel
from quantchat.ui.status import meter
from quantchat.ui.widgets.line import Line

BAR_CELLS = 24
CHART_WIDTH, LEAST_HEIGHT, MOST_HEIGHT = 84, 8, 16
NOTHING = "Nothing was measured yet. /evaluate measures a model"
RUNNING_HINT, HINT = "x cancels  Esc lets it go on", "c copies all  Esc closes"


class QualityScreen(ModalScreen[None]):
    """All measurements; Esc leaves an evaluation running.

    Args:
        quality: The evaluation of this program.
        models: Gives the models that are there now.
    """

    CSS_PATH = ["dialogs.tcss", "quality.tcss"]  # noqa: RUF012 - Textual declares it so
    AUTO_FOCUS = "Panel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,ctrl+c", "close", "Close"),
        Binding("x", "stop", "Cancel"),
        Binding("c,y,ctrl+o", "copy", "Copy"),
    ]

    def __init__(self, quality: QualityDesk, models: Callable[[], Sequence[ModelInfo]]) -> None:
        super().__init__()
        self._quality, self._models = quality, models
        self._known: list[list[Measured]] | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -quality") as frame:
            frame.border_title = "Quality"
            yield Line(id="quality-progress")
            with Panel():
                yield Static(id="quality")

    def on_mount(self) -> None:
        self._quality.watchers.add(self._on_evaluation)
        self.run_worker(self._read())
        self.call_after_refresh(self._draw)

    def on_unmount(self) -> None:
        self._quality.watchers.discard(self._on_evaluation)

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._draw)

    async def _read(self) -> None:
        self._known = families(await in_background(all_measured, self._models()))
        self._draw()

    def _on_evaluation(self, evaluation: Evaluation) -> None:
        if evaluation.ended:
            self.run_worker(self._read())
        # A dialog that is being closed loses its widgets first.
        with contextlib.suppress(NoMatches):
            self._draw_progress()

    def _draw(self) -> None:
        with contextlib.suppress(NoMatches):
            region = self.query_one(Panel).scrollable_content_region
            self.query_one("#quality", Static).update(self._content(region.width, region.height))
            self._draw_progress()

    def _draw_progress(self) -> None:
        last = self._quality.last
        running = last is not None and not last.ended
        self.query_one(".dialog").border_subtitle = RUNNING_HINT if running else HINT
        self.query_one("#quality-progress", Line).show(progress_content(last) if last is not None else Content())

    def _content(self, width: int, height: int) -> Content:
        if self._known is None:
            return Content("Looking at what was measured …")
        lines = [line for group in self._known for line in (*group_content(group, width, height), Content())]
        return Content("\n").join(lines[:-1]) if lines else Content.styled(NOTHING, "dim")

    def action_stop(self) -> None:
        self._quality.cancel()

    def action_copy(self) -> None:
        from quantchat.ui import clipboard

        clipboard.send(self.app, self._content(120, MOST_HEIGHT * 2).plain, "what was measured")

    def action_close(self) -> None:
        self.dismiss(None)


def group_content(group: Sequence[Measured], width: int, height: int) -> Iterator[Content]:
    """The table and the chart of what can be compared."""
    yield Content.styled(shortened(ruler_text(group[0].quality), width), "bold $primary")
    head, *rows = table(group, width)
    yield Content.styled(head, "dim")
    yield from map(Content, rows)
    tall = min(max(height - len(rows) - 5, LEAST_HEIGHT), MOST_HEIGHT)
    drawn = chart(group, min(width, CHART_WIDTH), tall)
    if drawn:
        title, *lines = drawn
        yield Content()
        yield Content.styled(shortened(title, width), "$accent")
        yield from map(Content, lines)
        yield Content.styled(LEGEND if len(LEGEND) <= width else "", "dim")


def progress_content(evaluation: Evaluation) -> Content:
    """How far an evaluation is, or how it ended."""
    if evaluation.ended:
        words = {"done": "", "cancelled": "Cancelled"}.get(evaluation.ended, "")
        failures = evaluation.failures
        text = clean(failures[0].sentence(), newlines=False) if failures else words
        return Content.styled(text, "$error" if failures else "$warning")
    step = evaluation.progress
    words = clean(f"{step.model}: {step.stage}", newlines=False) if step is not None else "starting"
    return Content.assemble((meter(evaluation.share, BAR_CELLS), "$primary"), f" {evaluation.share:.0%}  {words}")
