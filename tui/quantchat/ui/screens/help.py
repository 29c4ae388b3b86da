"""The help screen, made from the command table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from quantchat import paths
from quantchat.domain.text import clean
from quantchat.ui.commands import COMMANDS, FIND_KEYS, LIST_KEYS, PROMPT_KEYS, READING_KEYS, Scope, commands
from quantchat.ui.keys import show_keys
from quantchat.ui.screens.dialogs import Panel
from quantchat.ui.widgets.field import Field

if TYPE_CHECKING:
    from quantchat.ui.app import QuantchatApp

Rows = list[tuple[str, ...]]
"""Keys or a name, what they do, and further words by which they are found."""
WARM = ("warm parked", "the session's KV cache is kept, on the device or in host memory: its next answer starts sooner")
_LEFT = 25
_NARROW = 56
"""Below this the meaning of a key stands under it."""


def sections(keys: Mapping[str, str]) -> Iterator[tuple[str, Rows]]:
    """All keys and commands by part of the screen, with the user's own keys in their place."""

    def of(scope: Scope) -> Rows:
        return [(show_keys(keys[c.id]), c.help, c.title, *c.slashes) for c in commands(scope) if keys[c.id]]

    def fixed(rows: Iterable[tuple[str, str]]) -> Rows:
        return [(show_keys(key), words) for key, words in rows]

    yield "In the prompt", fixed(PROMPT_KEYS) + of("prompt")
    yield "Everywhere", of("everywhere")
    yield "Typed as a prompt", [(f"/{c.slashes[0]} {c.argument}", c.help) for c in COMMANDS if c.slashes]
    yield "In the transcript", of("reading") + fixed(READING_KEYS)
    yield "In the line of a search", fixed(FIND_KEYS)
    yield "In lists", fixed(LIST_KEYS) + of("list")
    yield "In the list of sessions", of("session")
    yield (
        "Marks",
        [
            ("✓ ~ ✗ !", "a model fits, is tight, is too big, is broken"),
            ("● * +", "loaded, streaming, answered unseen"),
            ("◆ ~ x", "a session is pinned, is temporary, is marked for what comes next"),
            WARM,
        ],
    )
    yield (
        "Files",
        [
            ("models", f"{paths.models_dir()}, the hub cache, models_dirs in config.toml"),
            ("sessions", str(paths.sessions_dir())),
            ("settings", str(paths.config_file())),
            ("themes", str(paths.user_themes_dir())),
            ("presets, prompts", f"{paths.presets_dir()}, {paths.prompts_dir()}"),
            ("logs", str(paths.logs_dir())),
        ],
    )
    yield "Names for [keys] in config.toml", [(command.id, command.title) for command in COMMANDS]


def help_text(keys: Mapping[str, str], width: int, query: str = "") -> Content:
    """Lay the help out in some columns; only what the query finds, if there is one."""
    wanted = query.strip().lower()
    lines: list[Content] = []
    for title, rows in sections(keys):
        found = [row for row in rows if wanted in " ".join(row).lower()]
        if found:
            lines.append(Content.styled(title, "bold $primary"))
            lines.extend(line for left, right, *_ in found for line in _row(left, clean(right), width))
            lines.append(Content())
    return Content("\n").join(lines) if lines else Content.styled("Nothing of that name", "dim")


def _row(left: str, right: str, width: int) -> Iterator[Content]:
    indent = 4 if width < _NARROW else _LEFT
    # Paths are longer than a narrow screen; they are cut rather than lost.
    words = textwrap.wrap(right, max(width - indent, 8)) or [""]
    label = (f"  {left:<{_LEFT - 3}} ", "$accent")
    if width < _NARROW or len(left) > _LEFT - 3:
        yield Content.assemble((f"  {left}", "$accent"))
    else:
        yield Content.assemble(label, words.pop(0))
    yield from (Content(" " * indent + more) for more in words)


class HelpScreen(ModalScreen[None]):
    """Keys, commands, and where things are; `/` shows only what holds a word."""

    CSS_PATH = "dialogs.tcss"
    AUTO_FOCUS = "Panel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,ctrl+c", "back", "Close", priority=True),
        Binding("q", "back", "Close"),
        # First of all, so that letters which come in the same packet go to the line that it opens.
        Binding("slash", "filter", "Filter", priority=True),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -help") as frame:
            frame.border_title = "Help"
            frame.border_subtitle = "/ finds  j k move  Esc closes"
            query = Field(placeholder="Show lines that hold …")
            query.display = False
            yield query
            with Panel():
                yield Static(id="help")

    def on_mount(self) -> None:
        self.call_after_refresh(self._draw)

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        app: QuantchatApp = self.app  # type: ignore[assignment]
        width = self.query_one(Panel).scrollable_content_region.width
        self.query_one("#help", Static).update(help_text(app.key_map, width, self.query_one(Input).value))

    def action_filter(self) -> None:
        query = self.query_one(Input)
        if query.has_focus:
            raise SkipAction
        query.display = True
        self.set_focus(query)

    @on(Input.Changed)
    def _on_changed(self) -> None:
        self._draw()
        self.query_one(Panel).scroll_home(animate=False)

    @on(Input.Submitted)
    def _on_submitted(self) -> None:
        self.set_focus(self.query_one(Panel))

    def action_back(self) -> None:
        """Leave the filter first, then the screen."""
        query = self.query_one(Input)
        if not query.display:
            self.dismiss(None)
            return
        query.value = ""
        query.display = False
        self.set_focus(self.query_one(Panel))
