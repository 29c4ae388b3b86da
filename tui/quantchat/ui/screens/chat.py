"""The main screen: sidebar, transcript, prompt, status bar, and how facts of the services reach them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.worker import Worker

from quantchat.domain.chat import Session, SessionSummary
from quantchat.domain.memory import Fit
from quantchat.domain.models import ModelInfo
from quantchat.domain.thinking import Channel
from quantchat.services import facts
from quantchat.services.turns import Turn
from quantchat.ui import status
from quantchat.ui.keys import bindings
from quantchat.ui.screens.actions import ChatActions
from quantchat.ui.screens.actions.drafts import Drafts
from quantchat.ui.transcript.messages import MessageView
from quantchat.ui.views import message_views
from quantchat.ui.widgets.completion import CompletionList
from quantchat.ui.widgets.lazy import LazyRows
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.models import ModelList
from quantchat.ui.widgets.prompt import Prompt
from quantchat.ui.widgets.rows import RowList
from quantchat.ui.widgets.sessions import SessionList
from quantchat.ui.widgets.transcript import Transcript
from quantchat.ui.wire.compositor import ExactCompositor
from quantchat.ui.wire.link import Link
from quantchat.ui.wire.pace import Pace

if TYPE_CHECKING:
    from quantchat.services.desk import Desk
    from quantchat.services.recall import Recall

SETTLE_SECONDS = 0.05
"""Changes of the sidebar, header and activity line are gathered for this long and drawn once."""
KEYS_SECONDS = 0.5
NARROW, WIDE = "-narrow", "-wide"
WIDE_COLUMNS = 100
FEW = 8
"""More messages than these are exchanged at once, as when another branch is shown: one by one, each is laid out."""
STALE: Mapping[type[facts.Fact], tuple[str, ...]] = {
    facts.ModelsChanged: ("models", "status", "activity"),
    facts.ServersChanged: ("models", "status", "activity"),
    facts.PullChanged: ("models", "status", "activity"),
    facts.QuantizeChanged: ("status", "activity"),
    facts.QualityChanged: ("models", "status", "activity"),
    facts.WarmChanged: ("sessions",),
}
"""What has to be drawn again and nothing else to be done."""
PLACEHOLDER = "Ask something.  F1 help, Ctrl+L models, Enter sends"


class ChatScreen(ChatActions, Screen[None]):
    """Models and sessions left, the chat right, one status bar below."""

    HORIZONTAL_BREAKPOINTS = [(0, NARROW), (WIDE_COLUMNS, WIDE)]  # noqa: RUF012 - Textual declares it so
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (10, "-low"), (20, "-tall")]  # noqa: RUF012
    AUTO_FOCUS = "#prompt"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings()]

    def __init__(self, desk: Desk, session: Session, link: Link, lagging: Callable[[], bool]) -> None:
        super().__init__()
        self._compositor = ExactCompositor()
        self.desk = desk
        self.session = session
        self.summaries: list[SessionSummary] = []
        self.drafts = Drafts()
        self.unread: set[str] = set()
        self._views: list[MessageView] = []
        self._pace = Pace(link.flush_hz, self.set_timer, self._show_text, lagging)
        self._figures_seconds = 1 / link.status_hz
        self._figures_drawn = 0.0
        self._stale: set[str] = set()
        self._reloading = self._reload_again = False

    def compose(self) -> ComposeResult:
        with Horizontal(id="body"):
            with Vertical(id="sidebar"):
                yield ModelList(id="models")
                yield SessionList(id="sessions")
            with Vertical(id="chat"):
                yield Line(id="header")
                yield Transcript(id="transcript")
                yield Line(id="activity")
                yield CompletionList(id="completions")
                yield Prompt(id="prompt", placeholder=PLACEHOLDER)
        yield Line(id="status")

    def on_mount(self) -> None:
        self.transcript = self.query_one(Transcript)
        self.prompt = self.query_one(Prompt)
        self.prompt.take_submit = self.submit
        self.prompt.begin_recall = self.begin_recall
        self.desk.following.on_free = self.take_over
        self.desk.following.show(self.session.id)
        self.desk.context.shown = lambda: (self.session, self.to_be_sent())
        self.call_after_refresh(self.prepare_completion)
        self.call_after_refresh(self.prepare_find)
        self.draw("header", "status")

    # Facts

    def take(self, fact: facts.Fact) -> None:
        """Take what happened; every change is drawn within a twentieth of a second, together with its neighbours."""
        match fact:
            case facts.TextArrived(session=session, message=message, text=text, channel=channel):
                if session == self.session.id:
                    self._pace.add((message, channel), text)
            case facts.SessionChanged(session=session, answered=answered):
                self._on_session_changed(session, answered)
            case facts.SessionsChanged():
                self.reload_sessions()
            case facts.EngineChanged():
                self.desk.context.touch()
                self.later("models", "sessions", "header", "activity", "status", "mark")
            case facts.TurnProgress(session=session) if session == self.session.id:
                self.later("activity", "mark")
            case facts.ContextMeasured(session=session) if session == self.session.id:
                self.later("activity", "status", "mark")
            case _:
                if isinstance(fact, facts.ModelsChanged):
                    self.desk.quality.read()
                self.later(*STALE.get(type(fact), ()))

    def _on_session_changed(self, session_id: str, answered: bool) -> None:
        if session_id == self.session.id:
            self._pace.flush()
            self.sync_transcript()
            self.take_draft()
            self.desk.context.touch()
        elif answered:
            self.unread.add(session_id)
        if all(summary.id != session_id for summary in self.summaries):
            # A first prompt that waits behind another session: its session could not be found again.
            self.reload_sessions()
        self.later("activity", "status", "sessions", "header", "mark")

    # Streaming

    def _show_text(self, where: tuple[str, Channel], text: str) -> None:
        """Hand what has streamed in to the transcript; the figures beside it need not run as fast."""
        message, channel = where
        self.transcript.extend(message, text, channel)
        if monotonic() - self._figures_drawn > self._figures_seconds:
            self._figures_drawn = monotonic()
            self.draw("status", "activity")

    # Drawing

    def later(self, *parts: str) -> None:
        """Draw parts of the screen soon, once for many changes."""
        if parts and not self._stale:
            self.set_timer(SETTLE_SECONDS, self._draw_stale)
        self._stale.update(parts)

    def _draw_stale(self) -> None:
        parts, self._stale = self._stale, set()
        self.draw(*parts)

    def draw(self, *parts: str) -> None:
        """Draw parts of the screen now; what did not change costs nothing."""
        for part in parts:
            getattr(self, f"_draw_{part}")()

    def draw_memory(self) -> None:
        """Draw what a look at the memory may have changed, unless the screen has begun to lose its widgets."""
        with contextlib.suppress(NoMatches):
            self.draw("status", "models", "activity")
            if self.shows_models:
                self.desk.watch_models()

    @cached_property
    def recall(self) -> Recall:
        """The prompts that were sent before, in all sessions."""
        from quantchat.services.recall import Recall

        return Recall()

    @property
    def own_turn(self) -> Turn | None:
        """The running turn if it is of the session that is shown."""
        return self.desk.conversation.turn_of(self.session.id)

    @property
    def others(self) -> int:
        """How many other sessions are being answered."""
        return len(self.desk.conversation.streaming - {self.session.id})

    def judge(self, model: ModelInfo) -> Fit | None:
        view = self.desk.memory.latest
        return view.fit(model) if view is not None else (None if model.loadable else "broken")

    def _draw_models(self) -> None:
        self.draw_models()

    @property
    def shows_models(self) -> bool:
        """Whether the user sees the list of models."""
        return self.is_current and bool(self.query_one(ModelList).region)

    def _draw_sessions(self) -> None:
        self.draw_sessions()

    def _draw_header(self) -> None:
        note = self.access_note()
        header = self.query_one("#header", Line)
        width = header.size.width or self.size.width
        if self.desk.archive.is_temporary(self.session.id):
            note = "  temporary: never written"
        report, asking = self.desk.library.loaded, self.settings_label()
        header.show(status.header_line(self.session.title, report, note, width, asking))

    def _draw_activity(self) -> None:
        conversation, loading = self.desk.conversation, self.desk.library.loading
        waiting = conversation.waiting_for(self.session.id)
        if loading is not None:
            line = status.load_line(loading)
        else:
            line = (
                status.with_note(status.turn_line(self.own_turn, waiting, self.others), self.server_line())
                or status.note_line(self.followed_line())
                or status.refusal_line(self.desk.context.of(self.session))
                or status.note_line(self._behind())
                or status.note_line(self.reading_hint())
            )
        self.query_one("#activity", Line).show(line)

    def _behind(self) -> str:
        """What goes on behind the chat."""
        desk = self.desk
        server = self.server_line() or desk.library.note
        return server or desk.wait_line() or desk.pull_line() or self.job_line() or self.evaluation_line()

    def _draw_status(self) -> None:
        library = self.desk.library
        report = library.loaded
        model = status.model_text(report) if report else ""
        context = self.desk.context.of(self.session)
        figures = status.turn_text(self.own_turn, self.session, report, self.others, context)
        memory = self.server_texts() or status.memory_texts(self.desk.memory.latest)
        line = status.status_line(memory, model, figures, self.size.width, self.job_texts() or self.evaluation_texts())
        self.query_one("#status", Line).show(line)

    def _draw_mark(self) -> None:
        self.transcript.mark_unseen(self.desk.context.unseen(self.session))

    def on_resize(self) -> None:
        self.later("status", "header")

    def sync_transcript(self) -> None:
        """Bring the transcript to the state of the session with the fewest changes."""
        busy = self.desk.conversation.is_busy(self.session.id)
        views = message_views(self.session, self.own_turn, busy)
        old, self._views = self._views, views
        common = 0
        while common < min(len(old), len(views)) and old[common].id == views[common].id:
            common += 1
        many = max(len(old), len(views)) - common > FEW
        for gone in () if many else old[common:]:
            self.transcript.discard(gone.id)
        for before, now in zip(old[:common], views[:common], strict=True):
            if now != before and not (now.streaming and before.streaming):
                self.transcript.replace(now)
        if many:
            self.transcript.exchange(common, views[common:])
        for new in () if many else views[common:]:
            self.transcript.append(new)

    # Sessions

    def reload_sessions(self) -> None:
        """Read the list anew; while it is being read, once more after that."""
        self._reload_again = self._reloading
        if not self._reloading:
            self._reloading = True
            _: Worker[None] = self.run_worker(self._reload, group="sessions")

    async def _reload(self) -> None:
        try:
            await self.refresh_sessions()
        finally:
            self._reloading = False
        if self._reload_again:
            self.reload_sessions()

    async def refresh_sessions(self) -> None:
        self.summaries = await self.desk.archive.summaries()
        # As in `draw_memory`: the program may have begun to end while the files were read.
        with contextlib.suppress(NoMatches):
            self.draw("sessions")

    def open_session(self, session: Session) -> None:
        """Show another session; a streaming one goes on streaming."""
        if session is not self.session:
            self.keep_draft()
            self.keep_place()
        self._pace.drop()
        self.session = session
        self.unread.discard(session.id)
        self.desk.remember(last_session=session.id)
        self.desk.following.show(session.id)
        busy = self.desk.conversation.is_busy(session.id)
        self._views = message_views(session, self.own_turn, busy)
        self.transcript.show(self._views)
        self.show_place()
        self.show_draft()
        self.desk.context.touch()
        self.draw("header", "activity", "status", "sessions", "mark")

    async def typed(self) -> None:
        """Wait until the prompt has taken the keys that came before this one; commands overtake them."""
        taken = asyncio.Event()
        self.prompt.call_later(taken.set)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(taken.wait(), KEYS_SECONDS)

    # Events of the widgets

    @on(Prompt.Changed, "#prompt")
    def _on_prompt_changed(self) -> None:
        self.draft_changed()
        self.desk.context.touch(written=True)

    @on(CompletionList.Chosen)
    def _on_completion_chosen(self, event: CompletionList.Chosen) -> None:
        if self.prompt.completer is not None:
            self.prompt.completer.choose(event.place)

    @on(RowList.OptionSelected, "#models")
    def _on_model_chosen(self, event: RowList.OptionSelected) -> None:
        self.choose_model(event.option_id or "")

    @on(LazyRows.Chosen, "#sessions")
    def _on_session_chosen(self, event: LazyRows.Chosen) -> None:
        self.choose_session(event.row_id)
