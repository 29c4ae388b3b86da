"""The servers whose models are used: what each last said; they are added, changed and taken out here."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.worker import Worker

from quantchat.domain.text import clean, shortened
from quantchat.errors import QuantchatError
from quantchat.services.serverlist import Known, Servers
from quantchat.services.servers import answer_words, key_words
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import Row, RowList

HINT = "Enter changes  a adds  r asks again  Delete takes out  Esc closes"


class ServersScreen(ModalScreen[None]):
    """The line below says all that is known of the server under the cursor."""

    CSS_PATH = ["dialogs.tcss", "servers.tcss"]  # noqa: RUF012 - Textual declares it so
    AUTO_FOCUS = "RowList"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "close", "Close"),
        Binding("a", "add", "Add"),
        Binding("r", "ask", "Ask again"),
    ]

    def __init__(self, servers: Servers) -> None:
        super().__init__()
        self._servers = servers

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -servers") as frame:
            frame.border_title = "Servers"
            frame.border_subtitle = HINT
            yield RowList(id="servers", empty="No servers yet: a adds one")
            yield Line(id="meaning")

    def on_mount(self) -> None:
        self._servers.watchers.add(self._fill)
        self._fill()

    def on_unmount(self) -> None:
        self._servers.watchers.discard(self._fill)

    @property
    def _rows(self) -> RowList:
        return self.query_one(RowList)

    @property
    def _chosen(self) -> Known | None:
        return self._servers.find(self._rows.highlighted_id or "")

    def _fill(self) -> None:
        self._rows.show([self._row(server) for server in self._servers.known])
        self._describe()

    def _row(self, server: Known) -> Row:
        if server.name in self._servers.asking:
            return Row(server.name, server.name, "asking …")
        if server.listing is None:
            return Row(server.name, server.name, "not asked yet")
        if server.error is not None:
            return Row(server.name, server.name, shortened(server.error.title, 60), "!", "$error")
        kind = f"{shortened(server.listing.label, 40)}, " if server.listing.label else ""
        return Row(server.name, server.name, kind + answer_words(server.listing), "✓", "$success")

    def _describe(self) -> None:
        server = self._chosen
        if server is None:
            self._say("")
            return
        what = server.error.sentence() if server.error is not None else f"Key: {key_words(server.name, server.spec)}"
        given = "  for this run alone" if server.name in self._servers.given else ""
        self._say(f"{server.spec.url}  {what}{given}", "$error" if server.error is not None else "")

    def _say(self, words: str, style: str = "") -> None:
        self.query_one("#meaning", Line).show(Content.styled(clean(words, newlines=False), style))

    @on(RowList.OptionHighlighted)
    def _on_highlighted(self) -> None:
        self._describe()

    @on(RowList.OptionSelected)
    def _on_selected(self, event: RowList.OptionSelected) -> None:
        name = event.option_id or ""
        if name in self._servers.given:
            self._say(f"{name} was started for this run, and ends with it", "$warning")
        else:
            self._open(name)

    def action_add(self) -> None:
        self._open("")

    def _open(self, name: str) -> None:
        from quantchat.ui.screens.serverform import ServerForm

        self.app.push_screen(ServerForm(self._servers, name))

    def action_ask(self) -> None:
        _: Worker[None] = self.run_worker(self._servers.refresh())

    @on(RowList.DeleteRequested)
    def _on_delete_requested(self, event: RowList.DeleteRequested) -> None:
        from quantchat.ui.screens.dialogs import ConfirmScreen

        name = event.row_id

        def take_out(sure: bool | None) -> None:
            if sure:
                _: Worker[None] = self.run_worker(self._take_out(name))

        question = f"Take out the server {name}? Its key goes too; its models are there no more."
        self.app.push_screen(ConfirmScreen(question, "Take out"), take_out)

    async def _take_out(self, name: str) -> None:
        try:
            await self._servers.take_out(name)
        except QuantchatError as error:
            self._say(str(error), "$error")

    def action_close(self) -> None:
        self.dismiss(None)
