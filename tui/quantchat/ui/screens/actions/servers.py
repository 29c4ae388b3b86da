"""Servers whose models are used: what the sidebar, the status bar and the commands do about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantchat.domain.servers import host_of, split_path
from quantchat.domain.text import clean
from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from quantchat.domain.models import ModelInfo
    from quantchat.domain.sections import Row


class ServerActions(ScreenPart):
    """The list of servers, and the form for one."""

    def action_servers(self, words: str = "") -> None:
        """Show the servers; with a name the form for that one, a new one with the URL behind the name."""
        from quantchat.ui.screens.serverform import ServerForm
        from quantchat.ui.screens.servers import ServersScreen

        name, _, url = words.strip().partition(" ")
        if not name:
            self._app.push_screen(ServersScreen(self.desk.servers))
        elif name in self.desk.servers.given:
            self._app.notify(f"{name} was started for this run, and ends with it", severity="warning")
        else:
            self._app.push_screen(ServerForm(self.desk.servers, name, url.strip()))

    def choose_server(self, path: str) -> None:
        """Ask a server again whose row was chosen, and say why it gave no models."""
        name = (split_path(path) or ("", ""))[0]
        server = self.desk.servers.find(name)
        if server is None:
            return
        if server.error is not None:
            self._app.notify(clean(f"{name}: {server.error.sentence()}"), severity="warning")
        self.desk.run(self.desk.servers.ask([name]))

    def server_rows(self, model: ModelInfo) -> tuple[Row, ...]:
        """What the info panel says of the server of a model."""
        from quantchat.services.servers import server_rows

        server = self.desk.servers.find(model.server)
        return () if server is None else server_rows(server.name, server.spec, server.listing)

    # The server of the loaded model

    @property
    def _host(self) -> str:
        """Where the loaded model is, if it is on a server."""
        model = self.desk.library.model
        return host_of(model.root) if model is not None and model.server else ""

    def server_texts(self) -> tuple[str, ...]:
        """What the status bar says of the server of the loaded model; nothing if it has none."""
        from quantchat.ui.status import server_texts

        host = self._host
        return server_texts(host, self.desk.library.server_state, self.desk.memory.latest) if host else ()

    def server_line(self) -> str:
        """What the line above the prompt says of a server that does not answer, or lets wait."""
        state, model = self.desk.library.server_state, self.desk.library.model
        if state is None or model is None or (state.healthy and not state.detail):
            return ""
        silent = "" if state.healthy else " does not answer"
        why = f": {state.detail}" if state.detail else ""
        return clean(f"{model.server}{silent}{why}", newlines=False)
