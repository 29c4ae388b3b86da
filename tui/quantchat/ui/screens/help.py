"""The help screen, made from the command table."""

from __future__ import annotations

import textwrap
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat import paths
from quantchat.ui.commands import COMMANDS, LIST_KEYS, PROMPT_KEYS, commands, show_keys

TEXT_COLUMNS = 44
"""What 80 columns leave beside the keys."""


def help_text(keys: dict[str, str]) -> Content:
    """Lay out all keys and commands, with the user's own keys in their place."""
    lines: list[Content] = []

    def section(title: str, rows: list[tuple[str, str]]) -> None:
        lines.append(Content.styled(title, "bold $primary"))
        for left, right in rows:
            first, *rest = textwrap.wrap(right, TEXT_COLUMNS) or [""]
            lines.append(Content.assemble((f"  {left:<18}", "$accent"), first))
            lines.extend(Content(" " * 20 + more) for more in rest)
        lines.append(Content())

    section("In the prompt", [(show_keys(key), words) for key, words in PROMPT_KEYS])
    section("Everywhere", [(show_keys(keys[c.id]), c.help) for c in commands("everywhere") if keys[c.id]])
    section("In lists", list(LIST_KEYS))
    section("Typed as a prompt", [(f"/{c.slashes[0]}", c.help) for c in COMMANDS if c.slashes])
    section(
        "Marks",
        [("✓ ~ ✗ !", "a model fits, is tight, is too big, is broken"), ("● * +", "loaded, streaming, answered unseen")],
    )
    section(
        "Files",
        [
            ("models", f"{paths.models_dir()}, the hub cache, models_dirs in config.toml"),
            ("sessions", str(paths.sessions_dir())),
            ("settings", str(paths.config_file())),
            ("logs", str(paths.logs_dir())),
        ],
    )
    return Content("\n").join(lines)


class HelpScreen(ModalScreen[None]):
    """Keys, commands, and where things are."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f1,ctrl+c", "close", "Close"),
        Binding("j", "scroll('down')"),
        Binding("k", "scroll('up')"),
    ]

    def compose(self) -> ComposeResult:
        from quantchat.ui.app import QuantchatApp

        app = self.app
        assert isinstance(app, QuantchatApp)
        with Vertical(classes="dialog"):
            with VerticalScroll(classes="body"):
                yield Static(help_text(app.key_map))
            yield Static("Esc closes    j k and Page Down move", classes="hint")

    def action_scroll(self, where: str) -> None:
        body = self.query_one(VerticalScroll)
        body.scroll_relative(y=1 if where == "down" else -1, animate=False)

    def action_close(self) -> None:
        self.dismiss(None)
