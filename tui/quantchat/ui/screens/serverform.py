"""The form for one server: where it is, what it is called, where its key comes from; tested before it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static
from textual.worker import Worker

from quantchat.domain.served import ServerListing
from quantchat.domain.servers import ServerSpec, ServerTarget, host_of
from quantchat.domain.text import clean, shortened
from quantchat.errors import QuantchatError, UsageError
from quantchat.services.serverlist import Servers
from quantchat.services.servers import (
    answer_words,
    checked_name,
    checked_variable,
    completed_url,
    key_of,
    suggested_name,
)
from quantchat.ui.screens.dialogs import Frame
from quantchat.ui.status import is_here
from quantchat.ui.widgets.field import Field

TEST, KEEP = "Enter tests it  Tab next field  Esc cancels", "Enter keeps it  Tab next field  Esc cancels"
ANYWAY = "Enter tests it again  Ctrl+K keeps it all the same  Esc cancels"
SHOWN_MODELS = 6


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What the form says.

    Attributes:
        key: To be written into the file of keys; empty takes one out, None leaves it.
    """

    name: str
    spec: ServerSpec
    key: str | None
    target: ServerTarget


class ServerForm(ModalScreen[None]):
    """Enter tests what is written, and a second Enter keeps what was tested.

    Args:
        name: Of a server that is there, or of a new one; empty is made from the URL.
    """

    CSS_PATH = ["dialogs.tcss", "servers.tcss"]  # noqa: RUF012 - Textual declares it so
    AUTO_FOCUS = "#url"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "cancel", "Cancel", priority=True),
        Binding("ctrl+k", "keep_anyway", "Keep it all the same", priority=True),
        # What is pasted right behind a Tab, such as a key, must not land in the field before.
        Binding("tab,down", "field(1)", "Next field", priority=True),
        Binding("shift+tab,up", "field(-1)", "Field before", priority=True),
    ]

    def __init__(self, servers: Servers, name: str = "", url: str = "") -> None:
        super().__init__()
        self._servers, self._server, self._given_url = servers, name, url
        self._old = servers.specs.get(name)
        self._tested: tuple[Draft, ServerListing] | None = None
        self._busy = False

    def compose(self) -> ComposeResult:
        old = self._old
        with Frame(TEST, classes="-server") as frame:
            frame.border_title = Content(f"Server {clean(self._server, newlines=False)}" if old else "Add a server")
            yield from _labelled(
                "URL", Field(self._given_url or (old.url if old else ""), id="url"), "http://box:8000/v1"
            )
            if old is None:
                yield from _labelled("Name", Field(self._server, id="name"), "made from the URL if empty")
            variable = Field(old.key_env if old else "", id="variable")
            yield from _labelled("Environment variable with its API key", variable, "none, or such as OPENAI_API_KEY")
            hint = "none, or the key itself; it goes into a file of keys that only you can read"
            yield from _labelled("API key", Field(id="key", password=True), "as it is" if old else hint)
            yield Static(id="result", markup=False)

    def on_mount(self) -> None:
        if self._given_url:
            self._submit()

    # What is written

    def _value(self, name: str) -> str:
        return self.query_one(f"#{name}", Input).value.strip()

    def _draft(self) -> Draft:
        """Read the form.

        Raises:
            UsageError: if something in it cannot be.
        """
        url, variable, typed = completed_url(self._value("url")), checked_variable(self._value("variable")), None
        if self._value("key"):
            from quantchat.store.keys import checked_key

            typed = checked_key(self._value("key"))
        if typed and variable:
            raise UsageError("The key comes from two places", remedy="Name a variable, or write the key")
        name = self._server if self._old else self._new_name(url)
        spec = msgspec.structs.replace(self._old or ServerSpec(url=url), url=url, key_env=variable)
        key = typed or ("" if variable or self._old is None else None)
        known = typed or (key_of(name, spec) if variable or self._old else "")
        if known and not typed and self._old is not None and host_of(url) != host_of(self._old.url):
            raise UsageError(f"The key was given for {host_of(self._old.url)}", remedy="Write the one for this place")
        return Draft(name=name, spec=spec, key=key, target=ServerTarget(name=name, url=url, model="", key=known))

    def _new_name(self, url: str) -> str:
        taken = self._servers.specs
        return checked_name(self._value("name"), taken) if self._value("name") else suggested_name(url, taken)

    @on(Input.Changed)
    def _on_changed(self) -> None:
        if not self._busy and self._tested is not None:
            self._tested = None
            self._hint(TEST)

    # Testing and keeping

    def _checked(self) -> Draft | None:
        """Read the form, or say what in it cannot be; None also while something else is under way."""
        if self._busy:
            return None
        try:
            return self._draft()
        except QuantchatError as error:
            self._show([str(error)], "$error")
            return None

    @on(Input.Submitted)
    def _on_submitted(self) -> None:
        self._submit()

    def _submit(self) -> None:
        draft = self._checked()
        if draft is None:
            return
        if self._tested is not None and self._tested[0] == draft and self._tested[1].error is None:
            self._keep(draft)
            return
        self._busy = True
        self._show([f"Asking {draft.spec.url} …"])
        _: Worker[None] = self.run_worker(self._test(draft))

    async def _test(self, draft: Draft) -> None:
        listing = await self._servers.test(draft.target)
        self._busy = False
        self._tested = draft, listing
        if self._old is None and not self._value("name"):
            with self.prevent(Input.Changed):
                self.query_one("#name", Input).value = draft.name
        self._show(list(_result(draft, listing)), "$error" if listing.error is not None else "")
        self._hint(KEEP if listing.error is None else ANYWAY)

    def action_keep_anyway(self) -> None:
        draft = self._checked()
        if draft is not None and self._tested is not None and self._tested[0] == draft:
            self._keep(draft)

    def _keep(self, draft: Draft) -> None:
        self._busy = True
        _: Worker[None] = self.run_worker(self._write(draft))

    async def _write(self, draft: Draft) -> None:
        try:
            await self._servers.keep(draft.name, draft.spec, draft.key)
        except QuantchatError as error:
            self._busy = False
            self._show([str(error)], "$error")
            return
        self.app.notify(f"The server {draft.name} is kept", markup=False)
        self.dismiss(None)

    def _show(self, lines: list[str], style: str = "") -> None:
        text = Content("\n").join(Content(clean(line, newlines=False)) for line in lines)
        self.query_one("#result", Static).update(text.stylize(style) if style else text)

    def _hint(self, words: str) -> None:
        self.query_one(Frame).border_subtitle = words

    def action_field(self, step: int) -> None:
        fields = list(self.query(Field))
        place = fields.index(self.focused) if isinstance(self.focused, Field) else -1
        self.set_focus(fields[(place + step) % len(fields)])

    def action_cancel(self) -> None:
        self.dismiss(None)


def _labelled(label: str, field: Field, placeholder: str) -> Iterator[Static | Field]:
    field.placeholder = placeholder
    yield Static(label, classes="label", markup=False)
    yield field


def _result(draft: Draft, listing: ServerListing) -> Iterator[str]:
    """Say what came back, and what is to be known before it is kept."""
    if listing.error is not None:
        yield listing.error.sentence()
    else:
        kind = shortened(listing.label or "It", 60)
        yield f"{kind} answered after {listing.seconds:.2f} s with {answer_words(listing)}"
        shown = [shortened(model.id, 60) for model in listing.models[:SHOWN_MODELS]]
        if shown:
            yield "  " + ", ".join([*shown, *(["…"] if len(listing.models) > SHOWN_MODELS else [])])
    if draft.target.key and draft.spec.url.startswith("http://") and not is_here(host_of(draft.spec.url)):
        yield "The key goes over the network as it is: this is http, not https"
