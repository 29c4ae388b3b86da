"""The command palette: every command, preset and theme, found by a few letters of its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.fuzzy import Matcher
from textual.widgets import Input

from quantchat.domain.text import clean
from quantchat.ui.commands import Command, commands
from quantchat.ui.keys import show_keys
from quantchat.ui.screens.typed import TypedScreen
from quantchat.ui.widgets.field import Field
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import Row, RowList


@dataclass(frozen=True)
class Entry:
    """Something that can be run: a command by its id, or a preset or theme by its name."""

    kind: Literal["command", "preset", "theme"]
    name: str
    title: str
    help: str
    detail: str
    words: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.name}"

    def score(self, matcher: Matcher, query: str) -> float:
        """How well a query fits; 0 if not at all. What begins with it comes first, other words count least."""
        title = matcher.match(self.title) + 10 * self.title.lower().startswith(query)
        return title or max(map(matcher.match, self.words), default=0) / 10 or float(query in self.help.lower()) / 100


def entries(keys: Mapping[str, str], themes: Iterable[str], presets: Mapping[str, str] | None = None) -> list[Entry]:
    """Everything that the palette offers: commands in the order of their table, presets with their meaning, themes."""
    offered = [_entry(command, keys) for command in commands("everywhere") if command.offered]
    offered += [
        Entry("preset", name, f"Preset: {clean(name, newlines=False)}", meaning, "")
        for name, meaning in (presets or {}).items()
    ]
    return offered + [
        Entry("theme", name, f"Theme: {name}", "Use this theme from now on", "") for name in map(clean, themes)
    ]


def _entry(command: Command, keys: Mapping[str, str]) -> Entry:
    slash = tuple(f"/{name}" for name in command.slashes)
    detail = show_keys(keys[command.id]) or "".join(slash[:1])
    return Entry("command", command.id, command.title, command.help, detail, (command.id, *slash))


def search(offered: Sequence[Entry], query: str) -> list[Entry]:
    """The entries that fit a query, best first; all of them when there is none."""
    if not query.strip():
        return list(offered)
    wanted = query.strip().lower()
    matcher = Matcher(wanted)
    scored = [(entry.score(matcher, wanted), entry) for entry in offered]
    return [entry for score, entry in sorted(scored, key=lambda pair: -pair[0]) if score > 0]


class PaletteScreen(TypedScreen[Entry]):
    """A line to type in, and what fits it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+p", "cancel", "Cancel", priority=True),
    ]

    def __init__(self, offered: Sequence[Entry]) -> None:
        super().__init__()
        self._offered = {entry.id: entry for entry in offered}

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -choice") as frame:
            frame.border_title = "Commands"
            frame.border_subtitle = "Enter runs  Esc closes"
            yield Field(placeholder="Type a part of its name")
            yield RowList(id="entries", empty="Nothing of that name")
            yield Line(id="meaning")

    def on_mount(self) -> None:
        self._fill("")

    @on(Input.Changed)
    def _on_changed(self, event: Input.Changed) -> None:
        self._fill(event.value)

    def _fill(self, query: str) -> None:
        rows = self.query_one(RowList)
        rows.show([Row(e.id, e.title, e.detail) for e in search(list(self._offered.values()), query)])
        rows.action_first()

    @on(RowList.OptionHighlighted)
    def _on_highlighted(self, event: RowList.OptionHighlighted) -> None:
        entry = self._offered.get(event.option_id or "")
        self.query_one("#meaning", Line).show(Content(entry.help if entry else ""))

    @on(Input.Submitted)
    def _on_submitted(self) -> None:
        self._choose(self.query_one(RowList).highlighted_id)

    @on(RowList.OptionSelected)
    def _on_selected(self, event: RowList.OptionSelected) -> None:
        self._choose(event.option_id)

    def _choose(self, entry_id: str | None) -> None:
        if entry_id in self._offered:
            self.dismiss(self._offered[entry_id])
