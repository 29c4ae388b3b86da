"""Side by side: one prompt, two columns that stream, the first token that differs marked in both."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget

from quantchat.domain.attachments import Draft
from quantchat.domain.chat import Message, Session
from quantchat.domain.thinking import Channel
from quantchat.errors import QuantchatError
from quantchat.services.comparing import Change, Comparison, Question, Side, Spoke
from quantchat.services.facts import SessionsChanged
from quantchat.ui.screens.sides import Setup
from quantchat.ui.sides import figures_line, head_line, side_views, title_line, verdict_line
from quantchat.ui.transcript.messages import MessageView
from quantchat.ui.transcript.pointing import Pointer
from quantchat.ui.widgets.column import Answers, Column
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.prompt import Prompt
from quantchat.ui.widgets.rows import cut_end
from quantchat.ui.wire.compositor import ExactCompositor
from quantchat.ui.wire.link import Link
from quantchat.ui.wire.pace import Pace

if TYPE_CHECKING:
    from quantchat.ui.screens.chat import ChatScreen

SETTLE_SECONDS, KEYS_SECONDS = 0.05, 0.5
NARROW, LOW = 70, 20
PLACEHOLDER = "One prompt for both.  Enter asks, Ctrl+L chooses what answers"
HINT = " Enter asks  Esc {}  F1 help  Ctrl+L sides  F2 keeps A  F3 keeps B  Ctrl+R again  Ctrl+F difference  F8 swaps"
HELP = """\
Enter    ask both sides the same prompt, with the same seed
Ctrl+R   ask again, with another seed unless one is set; at first: the last question of the session
Esc      stop both answers; when nothing answers, back to the chat
Ctrl+L   choose models, kernels, sampling, order, seed, and whether both go on with the session
F8       swap the sides
F2, F3   keep what A or B said as a session; it opens when you leave
F7       unload the chat's model, when it leaves no room
Ctrl+F   go to the first token that differs, which is marked in both columns
Ctrl+T   show or hide what the models think first
Tab      prompt, column A, column B
In a column: arrows, j k g G move, y copies the answer, i shows its run card, d the difference.

Both answer at once where both models fit beside each other, else one after the other: the first is unloaded before \
the second is loaded. A model that the chat has loaded answers from the chat's engine, and two settings of one model \
share an engine and take turns, so that their numbers are rounded alike. Speeds are those of the run: both at once \
share the machine; Ctrl+L, Order lets each have it alone."""


class CompareScreen(Screen[Session | None]):
    """Left and right; dismissed with the session that was kept last, if any was."""

    CSS_PATH = "compare.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW, "-wide")]  # noqa: RUF012 - Textual declares it so
    VERTICAL_BREAKPOINTS = [(0, "-low"), (LOW, "-tall")]  # noqa: RUF012
    AUTO_FOCUS = "Prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop_or_leave", "Stop or close", priority=True),
        Binding("ctrl+c", "copy_or_stop", "Copy, stop or close", priority=True),
        Binding("ctrl+l,f4", "sides", "Sides", priority=True),
        Binding("ctrl+r", "again", "Again", priority=True),
        Binding("ctrl+f", "difference", "First difference", priority=True),
        Binding("ctrl+t", "thinking", "Thinking", priority=True),
        Binding("f1", "help", "Help", priority=True),
        Binding("f2", "keep(0)", "Keep A", priority=True),
        Binding("f3", "keep(1)", "Keep B", priority=True),
        Binding("f7", "unload", "Unload the chat's model", priority=True),
        Binding("f8", "swap", "Swap", priority=True),
        Binding("tab", "part(1)", "Next part", priority=True),
        Binding("shift+tab", "part(-1)", "Part before", priority=True),
    ]

    def __init__(self, chat: ChatScreen, setup: Setup, link: Link, lagging: Callable[[], bool]) -> None:
        super().__init__()
        self._compositor = ExactCompositor()
        self._chat, self.desk, self.base = chat, chat.desk, chat.session
        self.setup = setup
        self.comparison: Comparison = chat.desk.comparison
        self.kept: Session | None = None
        self._pace = Pace(link.flush_hz, self.set_timer, self._show_text, lagging)
        self._own = contextvars.copy_context()
        self._figures_seconds = 1 / link.status_hz
        self._stale, self._drawn = False, 0.0
        self._shown: dict[int, list[MessageView]] = {}
        self._take_setup()

    def compose(self) -> ComposeResult:
        yield Line(id="title")
        with Container(id="columns"):
            yield Column(id="left")
            yield Column(id="right")
        yield Prompt(id="prompt", placeholder=PLACEHOLDER)
        yield Line(id="hint")

    def on_mount(self) -> None:
        self._own = contextvars.copy_context()
        self._columns = self.query_one("#left", Column), self.query_one("#right", Column)
        self.prompt = self.query_one(Prompt)
        self.prompt.take_submit = self._submit
        self.prompt.begin_recall = self._chat.begin_recall
        self.prompt.load_draft(self.comparison.draft)
        self.comparison.watch = self._take
        self.call_after_refresh(self._draw)

    def on_unmount(self) -> None:
        self.comparison.watch = lambda _change: None
        self.desk.run(self.comparison.close())

    # What happens

    def _take(self, change: Change) -> None:
        """Take a change; it may come from a task that knows no app, and timers need one."""
        self._own.copy().run(self._handle, change)

    def _handle(self, change: Change) -> None:
        if not self.is_attached:
            return
        if isinstance(change, Spoke):
            self._pace.add((change.side, change.message, change.channel), change.text)
            # The figures need not run as fast as the text.
            if monotonic() - self._drawn < self._figures_seconds:
                return
        self._later()

    def _show_text(self, where: tuple[int, str, Channel], text: str) -> None:
        track, message, channel = where
        for side, column in zip(self.comparison.sides, self._columns, strict=False):
            if side.track == track:
                column.answers.extend(message, text, channel)

    def _later(self) -> None:
        if not self._stale:
            self._stale = True
            self.set_timer(SETTLE_SECONDS, self._draw)

    # Drawing

    def _draw(self) -> None:
        self._stale, self._drawn = False, monotonic()
        width = self.size.width
        goes_on = f"after {len(self.base.branch())} messages" if self._goes_on else ""
        self.query_one("#title", Line).show(title_line(self.comparison, goes_on, width))
        hint = HINT.format("stops" if self.comparison.busy else "closes")
        self.query_one("#hint", Line).show(Content(cut_end(hint, width)))
        for side, column, name in zip(self.comparison.sides, self._columns, "AB", strict=False):
            self._draw_column(side, column, name)

    def _draw_column(self, side: Side, column: Column, name: str) -> None:
        self._sync(side, column)
        width = column.scrollable_content_region.width
        column.say(
            head_line(side, name, width),
            figures_line(side, width),
            verdict_line(side, self.comparison.divergence, width),
        )
        place = side.place
        seen = place is not None and side.answer is not None and place.start < place.end
        pointer = Pointer(place.channel, place.start, place.end) if place is not None and seen else None
        column.answers.point(side.answer.id if side.answer is not None else "", pointer)

    def _sync(self, side: Side, column: Column) -> None:
        """Bring a column to the state of its side; what streams comes by itself."""
        views, old = side_views(side), self._shown.get(side.track)
        if old is not None and [view.id for view in old] == [view.id for view in views]:
            for before, now in zip(old, views, strict=True):
                if now != before and not (now.streaming and before.streaming):
                    self._pace.flush()
                    column.answers.replace(now)
        else:
            # What waits to be shown stands in the views already.
            self._pace.drop()
            column.answers.show(views)
        self._shown[side.track] = views

    def on_resize(self) -> None:
        self.call_after_refresh(self._later)

    def action_part(self, step: int) -> None:
        """Go to the next part of the screen; where only one column has room, that shows the other one."""
        parts = [self.prompt, *(column.answers for column in self._columns)]
        here = parts.index(self.focused) if self.focused in parts else 0
        target = parts[(here + step) % len(parts)]
        if target is not self.prompt:
            self.set_class(target is parts[2], "-right-in-front")
        if target.region:
            self.set_focus(target)
        else:
            self.call_after_refresh(self._bring, target)

    def _bring(self, part: Widget) -> None:
        self.set_focus(part)
        self._draw()

    # Asking

    @property
    def _goes_on(self) -> bool:
        return self.setup.goes_on and bool(self.base.messages)

    def _take_setup(self) -> None:
        """Let the comparison know what is chosen; what was said stays if the sides stay."""
        comparison, setup = self.comparison, self.setup
        comparison.one_by_one = setup.one_by_one
        if [side.choice for side in comparison.sides] != [setup.left, setup.right]:
            comparison.choose(setup.left, setup.right)
            self._shown.clear()

    def _submit(self, draft: Draft) -> None:
        if self.comparison.busy:
            self.app.notify("Both are still answering. Esc stops them", severity="warning")
            return
        self.prompt.load("")
        if not self._chat.desk.archive.is_temporary(self.base.id):
            self._chat.recall.add(draft)
        self._ask(draft.expanded(), self.base if self._goes_on else None)

    def _ask(self, prompt: str, base: Session | None) -> None:
        question = Question(prompt=prompt, base=base, system_prompt=self.base.system_prompt, seed=self.setup.seed)
        self.desk.run(self.comparison.ask(question))

    def action_again(self) -> None:
        """Ask the same once more; at first, what was asked last in the session."""
        question, last = self.comparison.question, self._last_question()
        if self.comparison.busy:
            return
        if question is not None:
            self._ask(question.prompt, question.base)
        elif last is not None:
            self._ask(last.text, self._before(last))
        else:
            self.app.notify("Type a prompt first")

    def _last_question(self) -> Message | None:
        return next((message for message in reversed(self.base.branch()) if message.role == "user"), None)

    def _before(self, question: Message) -> Session | None:
        """The session as it was when a question was asked."""
        from quantchat.domain import tree

        return tree.fork(self.base, question.parent) if question.parent in self.base.messages else None

    # Keys

    async def action_stop_or_leave(self) -> None:
        if self.comparison.busy:
            self.comparison.stop()
        else:
            await self.action_leave()

    async def action_copy_or_stop(self) -> None:
        if self.get_selected_text() or self.prompt.selected_text:
            raise SkipAction
        await self.action_stop_or_leave()

    async def action_leave(self) -> None:
        # Letters that came before this key may not have reached the prompt yet.
        taken = asyncio.Event()
        self.prompt.call_later(taken.set)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(taken.wait(), KEYS_SECONDS)
        self.comparison.draft = self.prompt.draft
        self.dismiss(self.kept)

    def action_sides(self) -> None:
        from quantchat.ui.screens.sides import SidesScreen

        if self.comparison.busy:
            self.app.notify("Esc stops the answers first", severity="warning")
            return
        own = (self.base.preset, self.base.sampling)
        self.app.push_screen(SidesScreen(self.desk, self.setup, len(self.base.branch()), own), self._set_up)

    def _set_up(self, setup: Setup | None) -> None:
        if setup is not None:
            self.setup = setup
            self._take_setup()
            self._later()

    def action_swap(self) -> None:
        from dataclasses import replace

        self.setup = replace(self.setup, left=self.setup.right, right=self.setup.left)
        self._pace.flush()
        self.comparison.swap()
        self._shown.clear()
        self._draw()

    def action_keep(self, place: int) -> None:
        """Make a session of what a side said."""
        sides = self.comparison.sides
        session = self.comparison.keep(sides[place]) if sides else None
        if session is None:
            self.app.notify("There is no answer to keep yet", severity="warning")
            return
        try:
            self.desk.archive.save(self.desk.archive.adopt(session))
        except QuantchatError as error:
            self.app.notify(str(error), severity="warning", markup=False)
            return
        self.kept = session
        self._chat.take(SessionsChanged())
        kind = ", as temporary as the session before it" if self.desk.archive.is_temporary(session.id) else ""
        self.app.notify(f"Kept as “{session.title}”{kind}. It opens when you leave", markup=False)

    def action_difference(self) -> None:
        found = self.comparison.divergence.found or ()
        if any(place.channel == "thinking" for place in found) and not self._columns[0].answers.thinking_shown:
            self.action_thinking()
        shown = [column.answers.go_to_mark() for column in self._columns]
        if not any(shown):
            self.app.notify("No difference is shown")

    def action_thinking(self) -> None:
        """Show or hide what the models think first, in both columns."""
        shown = not self._columns[0].answers.thinking_shown
        for column in self._columns:
            column.answers.thinking_shown = shown

    def on_transcript_copy_requested(self, event: Answers.CopyRequested) -> None:
        event.stop()
        if event.text:
            from quantchat.ui import clipboard

            clipboard.send(self.app, event.text, event.what)
        else:
            self.app.notify(f"There is no {event.what} to copy", severity="warning")

    def action_card(self) -> None:
        """Show all that is known of the answer in the column that has the keyboard."""
        from quantchat.domain.runcard import run_card
        from quantchat.ui.screens.card import CardScreen

        for side, column in zip(self.comparison.sides, self._columns, strict=False):
            if self.focused is column.answers and side.answer is not None and side.turn is None:
                self.app.push_screen(CardScreen(f"Run card: {side.choice.title}", run_card(side.answer)))

    def action_unload(self) -> None:
        model = self.desk.library.model
        if model is None:
            self.app.notify("The chat has no model loaded")
            return
        self.desk.unload()
        self.app.notify(f"{model.name} is unloaded from the chat", markup=False)

    def action_help(self) -> None:
        from quantchat.ui.screens.dialogs import TextScreen

        self.app.push_screen(TextScreen("Side by side", HELP))
