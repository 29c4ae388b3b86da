"""The form of a quantization: its settings, and beside them what it takes on this machine, at every change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Static
from textual.worker import Worker

from quantchat.domain.text import clean
from quantchat.errors import QuantchatError
from quantchat.services.quantizing.plan import Plan, Preflight
from quantchat.ui.jobs import preflight_content
from quantchat.ui.recipe import SETTINGS, Setting, find_setting
from quantchat.ui.screens.dialogs import Panel
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import Row, RowList
from quantchat.ui.workshop import Workshop

START = "start"
SETTLE_SECONDS = 0.15
"""Settings that are changed one after the other are examined at once."""
HINT, SHORT_HINT = "←→ Enter change  s starts  {}Esc closes", "←→ Enter  s starts  {}Esc"
HINTS = {"memory-held": "u unloads the chat model  ", "room": "f in spite of it  "}
ROOM = frozenset({"memory", "memory-held", "disk"})
"""Problems that are only estimated, which the user may know better."""
WIDE = 76


class QuantizeScreen(ModalScreen[Preflight | None]):
    """Closes with what was started, or with nothing.

    Args:
        plan: What stands there at first.
        workshop: Where sources and calibration sets come from, and jobs are begun.
        keep: Told each plan, which stands there the next time.
    """

    CSS_PATH = ["dialogs.tcss", "quantize.tcss"]  # noqa: RUF012 - Textual declares it so
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012
    AUTO_FOCUS = "#settings"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "close", "Close"),
        Binding("right,space", "move(1)", "Next value"),
        Binding("left", "move(-1)", "Value before"),
        Binding("s", "start", "Start"),
        Binding("u", "unload", "Unload the chat model"),
        Binding("f", "force", "In spite of too little room"),
    ]

    def __init__(self, plan: Plan, workshop: Workshop, keep: Callable[[Plan], None]) -> None:
        super().__init__()
        self.plan, self._workshop, self._keep = plan, workshop, keep
        self.preflight: Preflight | None = None
        self._timer: Timer | None = None
        self._starting = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -quantize") as frame:
            frame.border_title = "Quantize a model"
            with Container(id="quantize-body"):
                yield RowList(id="settings", empty="")
                with Panel(id="preflight"):
                    yield Static(markup=False)
            yield Line(id="meaning")

    def on_mount(self) -> None:
        self.call_after_refresh(self._draw)
        self._examine()

    # What is shown

    @property
    def _rows(self) -> RowList:
        return self.query_one("#settings", RowList)

    def _fill(self) -> None:
        width = self._rows.scrollable_content_region.width
        rows = [setting.row(self.plan, width) for setting in SETTINGS]
        possible = self.preflight is not None and self.preflight.possible
        start = Row(START, "Start", mark="▶", style="$success" if possible else "dim", strong=possible)
        self._rows.show([*rows, start])
        offered = HINTS["memory-held"] * self._crowded + HINTS["room"] * self._short
        hint = SHORT_HINT if self.size.width < WIDE else HINT
        self.query_one(".dialog").border_subtitle = hint.format(offered)

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        # A dialog that is being closed loses its widgets first.
        with contextlib.suppress(NoMatches):
            self._fill()
            if self.preflight is not None:
                width = self.query_one("#preflight", Panel).scrollable_content_region.width
                self._show(preflight_content(self.preflight, width))

    def _show(self, content: Content) -> None:
        with contextlib.suppress(NoMatches):
            self.query_one("#preflight Static", Static).update(content)

    @property
    def _crowded(self) -> bool:
        """Whether the job would have room if the chat's model gave its memory back."""
        codes = {problem.code for problem in self.preflight.problems} if self.preflight else set()
        return "memory-held" in codes and self._workshop.has_model

    @property
    def _short(self) -> bool:
        """Whether nothing but room stands against it."""
        found = self.preflight
        return found is not None and not found.possible and {problem.code for problem in found.errors} <= ROOM

    @on(RowList.OptionHighlighted)
    def _on_highlighted(self, event: RowList.OptionHighlighted) -> None:
        setting = find_setting(event.option_id)
        self._say(setting.meaning if setting else "Begin; the chat goes on meanwhile")

    def _say(self, words: str, style: str = "") -> None:
        self.query_one("#meaning", Line).show(Content.styled(clean(words, newlines=False), style))

    # Changing

    @property
    def _setting(self) -> Setting | None:
        return find_setting(self._rows.highlighted_id)

    def action_move(self, step: int) -> None:
        """Take the next value of the setting under the cursor."""
        if self._setting is not None:
            self._put(self._setting.moved(self.plan, step))

    @on(RowList.OptionSelected)
    def _on_selected(self, event: RowList.OptionSelected) -> None:
        setting = find_setting(event.option_id)
        if setting is None:
            self.action_start()
        elif setting.name == "source":
            self._workshop.choose_source(self.plan, self._put)
        elif setting.name == "calibration":
            self._workshop.choose_calibration(self.plan, self._put)
        elif setting.typed is not None:
            self._ask(setting)
        else:
            self.action_move(1)

    def _ask(self, setting: Setting) -> None:
        from quantchat.ui.screens.words import AskScreen

        def take(typed: str | None) -> None:
            if typed is not None and setting.typed is not None:
                try:
                    self._put(setting.typed(self.plan, typed))
                except QuantchatError as error:
                    self._say(str(error), "$error")

        self.app.push_screen(AskScreen(setting.label, setting.written(self.plan), setting.meaning), take)

    def _put(self, plan: Plan) -> None:
        if plan != self.plan:
            self.plan = plan
            self._keep(msgspec.structs.replace(plan, force=False))
            self.preflight, self._starting = None, False
            self._draw()
            self._examine_soon()

    # Examining

    def _examine_soon(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(SETTLE_SECONDS, self._examine)

    def _examine(self) -> None:
        work = partial(self._look, self.plan)
        _: Worker[None] = self.run_worker(work, exclusive=True, group="preflight")

    async def _look(self, plan: Plan) -> None:
        try:
            found = await self._workshop.examine(plan)
        except QuantchatError as error:
            self._show(Content.styled(clean(str(error)), "$error"))
            return
        # Meanwhile another value may have been chosen, or the dialog closed.
        if plan == self.plan:
            self._examined(found)

    def _examined(self, found: Preflight | None) -> None:
        self.preflight = found
        self._draw()
        if found is None:
            self._show(Content("Enter chooses a model"))
        elif self._starting:
            self.action_start()

    # Starting

    def action_start(self) -> None:
        """Begin, or say what stands against it."""
        found = self.preflight
        self._starting = found is None and bool(self.plan.source)
        if found is None:
            self._say("It begins once it is examined …" if self._starting else "Choose a model first", "$warning")
            return
        try:
            self._workshop.start(found)
        except QuantchatError as error:
            self._say(str(error), "$error")
        else:
            self.dismiss(found)

    def action_unload(self) -> None:
        if self._crowded:
            self._workshop.unload(self._examine)

    def action_force(self) -> None:
        """Begin also where room seems to be short."""
        if self._short:
            self._put(msgspec.structs.replace(self.plan, force=True))

    def action_close(self) -> None:
        self.dismiss(None)
