"""Search in all sessions, as somebody types: what was found, with its context, and the way there."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len, set_cell_size
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Input

from quantchat.domain.found import Found, Hit
from quantchat.domain.text import clean
from quantchat.errors import QuantchatError
from quantchat.ui.screens.typed import TypedScreen
from quantchat.ui.widgets.field import Field
from quantchat.ui.widgets.lazy import LazyRows
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import cut_end

if TYPE_CHECKING:
    from quantchat.services.finding import Finder

TYPING_SECONDS = 0.08
"""The search waits until this long after the last letter."""
PROGRESS_SECONDS = 0.5
LONGEST = 200
WORDS = {"question": "you", "answer": "answer"}
INDENT = 2
_LEAD = 12
"""Cells before a hit that stay where the beginning of its line finds no room."""


@dataclass(frozen=True)
class Chosen:
    """A hit that the reader goes to, and the text that was searched."""

    hit: Hit
    text: str


@dataclass(frozen=True)
class HitRow:
    """A hit as it is drawn; below another one of its session the title stands back."""

    hit: Hit
    below: bool


class HitList(LazyRows, can_focus=True):
    """Two lines per hit: where it is, and what it says."""

    ROW_LINES = 2

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, empty="")
        self.hits: tuple[Hit, ...] = ()

    def show(self, hits: tuple[Hit, ...]) -> None:
        """Show these; one that was under the cursor keeps it."""
        self.hits = hits
        self.show_ids(tuple(f"{hit.session.id}:{hit.place}:{hit.message}:{number}" for number, hit in enumerate(hits)))
        self.refresh()

    @property
    def highlighted(self) -> Hit | None:
        return None if self.highlighted_id is None else self.hits[self.ids.index(self.highlighted_id)]

    def item(self, number: int) -> HitRow:
        hit = self.hits[number]
        return HitRow(hit, below=number > 0 and self.hits[number - 1].session.id == hit.session.id)

    def lines_of(self, item: Hashable, width: int) -> Sequence[Content]:
        assert isinstance(item, HitRow)
        return heading(item, width), excerpt(item.hit, width)


def heading(row: HitRow, width: int) -> Content:
    """Title of the session, who said it, and when the session changed."""
    hit = row.hit
    count = f" ×{hit.count}" if hit.count > 1 else ""
    detail = f"{WORDS.get(hit.place, hit.place)}{count}  {hit.session.updated.astimezone():%Y-%m-%d}"
    space = max(width - cell_len(detail) - 1, 1)
    name = set_cell_size(cut_end(clean(hit.session.title, newlines=False), space), space)
    return Content.assemble((name, "dim" if row.below else "bold"), " ", (detail, "dim"))


def excerpt(hit: Hit, width: int) -> Content:
    """The line around the hit, which stays in view however narrow the list is."""
    before, match, after = hit.excerpt[: hit.start], hit.excerpt[hit.start : hit.end], hit.excerpt[hit.end :]
    room = max(width - INDENT, 1)
    if cell_len(before) + cell_len(match) > room and cell_len(before) > _LEAD:
        before = "…" + before[len(before) - _LEAD + 1 :]
    after = cut_end(after, max(room - cell_len(before) - cell_len(match), 1))
    return Content.assemble(" " * INDENT, before, (match, "bold $accent"), after)


class SearchScreen(TypedScreen[Chosen]):
    """A line to type in, and all places that hold what it says, the session that changed last first."""

    CSS_PATH = "search.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+f", "cancel", "Cancel", priority=True),
    ]
    ROWS = HitList

    def __init__(self, finder: Finder, text: str = "") -> None:
        super().__init__()
        self._finder = finder
        self._text = clean(text, newlines=False)[:LONGEST]
        self._timer: Timer | None = None
        self._found = Found(text="")
        self._words = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -search") as frame:
            frame.border_title = "Search all sessions"
            frame.border_subtitle = "Enter opens  Esc closes"
            yield Field(self._text, placeholder="Any part of a title, a tag or a message", max_length=LONGEST)
            yield HitList(id="hits")
            yield Line(id="count")

    def on_mount(self) -> None:
        self.query_one(Input).action_select_all()
        self._search()
        self.set_interval(PROGRESS_SECONDS, self._draw_count)

    @on(Input.Changed)
    def _on_changed(self, event: Input.Changed) -> None:
        self._stop_timer()
        if event.value != self._text:
            self._timer = self.set_timer(TYPING_SECONDS, self._search)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def _search(self) -> None:
        """Search for what is typed now; a search under way is broken off."""
        self._stop_timer()
        self._text = self.query_one(Input).value
        self.run_worker(self._find(self._text), exclusive=True, group="search")

    async def _find(self, text: str) -> None:
        self._tell("Searching …" if text.strip() else "")
        try:
            found = await self._finder.search(text)
        except QuantchatError as error:
            self._tell(clean(str(error), newlines=False))
            return
        # Meanwhile the reader may have gone to a hit, or away.
        for hits in self.query(HitList) if self.is_attached else ():
            self._found = found
            hits.show(found.hits)
            hits.action_first()
            self._tell(_counted(found))

    def _tell(self, words: str) -> None:
        self._words = words
        self._draw_count()

    def _draw_count(self) -> None:
        """Say what was found, and how far the index is that makes searches fast."""
        indexing = self._finder.indexing
        progress = f"indexing {indexing[0]:,} of {indexing[1]:,} sessions" if indexing is not None else ""
        for line in self.query(Line):
            line.show(Content("  ".join(filter(None, (self._words, progress)))))

    @on(Input.Submitted)
    def _on_submitted(self, event: Input.Submitted) -> None:
        """Go to the hit under the cursor; of a text that was not searched yet, find that first."""
        if event.value == self._found.text:
            self._choose()
        else:
            self._search()

    @on(LazyRows.Chosen)
    def _choose(self) -> None:
        hit = self.query_one(HitList).highlighted
        if hit is not None:
            self.dismiss(Chosen(hit, self._found.text))


def _counted(found: Found) -> str:
    if not found.text.strip():
        return ""
    if not found.hits:
        return "Nothing holds that"
    places = "1 place" if len(found.hits) == 1 else f"{len(found.hits):,} places"
    sessions = "1 session" if found.sessions == 1 else f"{found.sessions:,} sessions"
    least = "" if found.counted else "at least "
    return f"{places} in {sessions}" if found.complete else f"The first {places} of those in {least}{sessions}"
