"""The application: settings, themes, services, signals, and the main screen."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from textual.binding import BindingType
from textual.content import Content
from textual.filter import LineFilter

from quantchat.domain.servers import ServerSpec
from quantchat.domain.text import clean
from quantchat.errors import ErrorReport, QuantchatError, StorageError
from quantchat.services.desk import Desk
from quantchat.services.engine import expected_engine
from quantchat.services.facts import Beside, Fact, Notice
from quantchat.store.settings import load_settings
from quantchat.ui.hangup import HangUp
from quantchat.ui.keys import bindings, key_map, textual_keymap
from quantchat.ui.notices import TellingApp
from quantchat.ui.pastes import take_pastes_whole
from quantchat.ui.screens.chat import NARROW, WIDE_COLUMNS, ChatScreen
from quantchat.ui.theming import Themes
from quantchat.ui.wire.link import choose_link

LOOK_SECONDS = 1.0


class QuantchatApp(TellingApp, inherit_bindings=False):
    """The full-screen program.

    Args:
        models_dirs: Folders to scan beside the usual ones.
        model: Name or path of the model to load at the start.
        session: Id of the session to open at the start.
        resume: Open the session that was shown last.
        temporary: Begin with a session that is never written.
        theme, kernel, device: What wins over the settings of these names.
        servers: Servers of this run beside those of the settings.
        slow_link: Send as little as can be, whatever the setting says.
        beside: Runs with it.
    """

    TITLE = "quantchat"
    # The default screen's own CSS_PATH is not read by Textual, so the main screen's sheet hangs here.
    CSS_PATH = "screens/chat.tcss"
    # The main screen has its own; Textual's would also open over dialogs.
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [binding for binding in bindings() if binding.id == "quit"]

    def __init__(
        self,
        *,
        models_dirs: Sequence[Path] = (),
        model: str | None = None,
        session: str | None = None,
        resume: bool = False,
        temporary: bool = False,
        theme: str | None = None,
        kernel: str | None = None,
        device: str | None = None,
        servers: Mapping[str, ServerSpec] | None = None,
        slow_link: bool = False,
        beside: Beside | None = None,
    ) -> None:
        self._beside = beside
        self._chat: ChatScreen | None = None
        take_pastes_whole()
        settings, problems = load_settings()
        super().__init__(choose_link("slow" if slow_link else settings.link, os.environ))
        self.animation_level = "none"
        self._no_colour = self._without_colours()
        self.key_map, key_problems = key_map(settings.keys)
        self.set_keymap(textual_keymap(self.key_map))
        self._problems = [*problems, *key_problems]
        self.themes = Themes(self)
        few_colours = self.link.few_colors or self.console.color_system == "standard"
        self.themes.begin(settings.theme, theme, few_colours=few_colours)
        self.desk = Desk(settings, self._take, models_dirs=models_dirs, kernel=kernel, device=device, servers=servers)
        self._wanted_model = model
        self._wanted_session = session
        self._resume = (resume or settings.reopen) and not temporary
        self._temporary = temporary
        self.leaving = False
        self._taking = False
        self._own: contextvars.Context | None = None
        self._hang_up: HangUp | None = None

    def _without_colours(self) -> Sequence[LineFilter]:
        """Return the filter that NO_COLOR asks for."""
        if not self.no_color:
            return ()
        from quantchat.ui.nocolour import NoColour

        return (NoColour(),)

    # Start

    def get_default_screen(self) -> ChatScreen:
        session = self.desk.archive.new(temporary=self._temporary)
        self._chat = chat = ChatScreen(self.desk, session, self.link, lambda: self.lagging)
        # Textual sets the class at the first resize, after a frame with the sidebar was sent.
        chat.set_class(shutil.get_terminal_size().columns < WIDE_COLUMNS, NARROW)
        return chat

    def on_mount(self) -> None:
        self._own = contextvars.copy_context()
        self._hang_up = HangUp(lambda: self.run_worker(self.leave()))
        self.call_after_refresh(self._after_first_frame)

    def on_unmount(self) -> None:
        if self._hang_up is not None:
            self._hang_up.remove()

    def _after_first_frame(self) -> None:
        gc.freeze()
        gc.enable()
        self.run_worker(self._start(), name="start")
        if self._beside is not None:
            self.run_worker(self._beside(self._take), name="beside")

    async def _start(self) -> None:
        chat = self.chat
        self.check_drawing()
        engine = asyncio.create_task(self._start_engine())
        self.desk.run(self.desk.servers.ask())
        self.show_problems([*self._problems, *await self.themes.look()])
        recovered = await self.desk.archive.recover()
        if recovered:
            self.notify(f"Recovered {len(recovered)} interrupted answer{'s' * (len(recovered) > 1)}", markup=False)
        await chat.refresh_sessions()
        self._open_wanted_session()
        self.set_interval(LOOK_SECONDS, self._look)
        await self._look()
        await self.desk.library.scan()
        await engine
        await self._load_wanted_model()
        self.desk.run(self.desk.finder.keep_index())

    async def _start_engine(self) -> None:
        desk = self.desk
        wanted = self._wanted_model or desk.state.last_model
        try:
            await desk.library.start_engine(expected_engine(wanted, desk.settings.engine, desk.servers.specs))
        except QuantchatError as error:
            self.show_notice(Notice(report=error.report, dialog=True))

    def _open_wanted_session(self) -> None:
        wanted = self._wanted_session or (self._last_session() if self._resume else None)
        if wanted is None:
            return
        try:
            self.chat.open_session(self.desk.archive.open(wanted))
        except QuantchatError as error:
            self.show_notice(Notice(report=error.report, dialog=True))

    def _last_session(self) -> str | None:
        """The session that was shown last; if that is gone, the one that changed last."""
        last = self.desk.state.last_session
        # The list may not be whole yet.
        if last and self.desk.archive.store.is_stored(last):
            return last
        return next((summary.id for summary in self.chat.summaries if not summary.archived), None)

    async def _load_wanted_model(self) -> None:
        if self._wanted_model is None:
            return
        try:
            model = await self.desk.servers.named(self._wanted_model, self.desk.library.models)
            # Who has chosen another while a server was waited for wants this one no more.
            if self.desk.library.last_model is None:
                self.desk.load(model)
        except QuantchatError as error:
            self.show_notice(Notice(report=error.report, dialog=True))

    @property
    def chat(self) -> ChatScreen:
        assert self._chat is not None
        return self._chat

    # While it runs

    def _take(self, fact: Fact) -> None:
        """Take a fact in the app's own context: it may come from a task that knows no app, and timers need one."""
        if self.leaving or self._own is None:
            return
        if self._taking:
            self._handle(fact)
            return
        self._taking = True
        try:
            self._own.run(self._handle, fact)
        finally:
            self._taking = False

    def _handle(self, fact: Fact) -> None:
        if isinstance(fact, Notice):
            self.show_notice(fact)
        else:
            self.chat.take(fact)

    def copy_to_clipboard(self, text: str) -> None:
        """Take what Textual's own keys copy the way of all copies."""
        from quantchat.ui import clipboard

        clipboard.send(self, text, "the selection")

    def seconds_to_pause(self) -> float:
        return self._chat.seconds_to_pause() if self._chat is not None else 0.0

    async def _look(self) -> None:
        await self.desk.look()
        if not self.leaving:
            self.chat.draw_memory()
        for problem in await self.themes.look():
            self.show_notice(Notice(report=problem, severity="warning"))

    def get_line_filters(self) -> Sequence[LineFilter]:
        return self._no_colour or super().get_line_filters()

    def watch_theme(self) -> None:
        if self._chat is not None and self._chat.is_mounted:
            self._chat.transcript.refresh_theme()

    # End

    async def action_quit(self) -> None:
        """Leave; what would be lost is asked about first."""
        if not self.chat.ask_to_quit():
            await self.leave()

    async def leave(self) -> None:
        """Keep what streams, write everything, end the engine, leave."""
        if self.leaving:
            return
        self.leaving = True
        await self.chat.typed()
        self.chat.keep_draft()
        self.chat.keep_place()
        self.chat.query_one("#status").show(Content(" Saving and leaving …"))  # type: ignore[attr-defined]
        unsaved: list[ErrorReport] = []
        try:
            unsaved = await self.desk.close()
        finally:
            # Shown on the terminal that the screen has left.
            lost = "\n".join(clean(f"quantchat: not saved: {report.sentence()}") for report in unsaved)
            self.exit(return_code=StorageError.exit_code if lost else 0, message=Content(lost) if lost else None)
