"""The modules that a quantization has done, as a table that is made where it is in view."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from textual.content import Content

from quantchat.domain.text import clean
from quantchat.engine.protocol import JobModule
from quantchat.ui.jobs import error_text, module_name
from quantchat.ui.widgets.lazy import LazyRows
from quantchat.ui.widgets.rows import cut_end, shorten

WORST = 3
"""So many modules of the largest error are marked."""
FROM = 2 * WORST
"""A worst among fewer says nothing."""


class ModuleRow(NamedTuple):
    """What a row shows."""

    module: JobModule
    worst: bool


class ModuleList(LazyRows):
    """Rows of modules, the last one done on top, or those of the largest error."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, empty="No matrix is quantized yet")
        self._modules: tuple[JobModule, ...] = ()
        self._order: list[int] = []
        self._worst: frozenset[int] = frozenset()
        self.worst_first = False

    def show(self, modules: tuple[JobModule, ...]) -> None:
        """Show these; who looks at the first row goes on to do so."""
        if modules is not self._modules:
            self._modules = modules
            self._arrange()

    def _arrange(self) -> None:
        following, modules = self._cursor in (None, 0), self._modules
        places = range(len(modules))
        known = [place for place in places if modules[place].error is not None]
        self._worst = frozenset(heapq.nlargest(WORST, known, key=self._error) if len(known) >= FROM else ())
        self._order = sorted(places, key=lambda place: (-self._error(place), place)) if self.worst_first else []
        self.show_ids([str(place) for place in self._order or reversed(places)])
        if following:
            self.action_first()

    def _error(self, place: int) -> float:
        error = self._modules[place].error
        return -1.0 if error is None else error

    def action_sort_rows(self) -> None:
        """Put the largest errors on top, or no longer."""
        self.worst_first = not self.worst_first
        self._arrange()
        self.action_first()

    def item(self, number: int) -> Hashable:
        place = int(self.ids[number])
        return ModuleRow(self._modules[place], place in self._worst)

    def lines_of(self, item: Hashable, width: int) -> Sequence[Content]:
        assert isinstance(item, ModuleRow)
        return (module_line(item, width),)


def module_line(row: ModuleRow, width: int) -> Content:
    """Lay a module out in `width` cells: its name, its error, and what it took."""
    seconds = f"{row.module.seconds:6.1f} s" if row.module.seconds else ""
    detail = f"{error_text(row.module):>9} {seconds}" if width >= 40 else error_text(row.module)
    space = max(width - 3 - cell_len(detail), 1)
    name = set_cell_size(shorten(module_name(row.module), space), space)
    style = "bold" if row.worst else ""
    mark = ("▲ ", "$warning") if row.worst else "  "
    return Content.assemble(mark, (name, style), " ", (detail, style or "dim"))


class LogList(LazyRows):
    """Lines of a log; the newest stays in view for who looks at it."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, empty="Nothing was logged")
        self._lines: Sequence[str] = ()

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines."""
        following = self._cursor is None or self._cursor >= len(self._lines) - 1
        self._lines = lines
        self.show_ids([str(place) for place in range(len(lines))])
        if following:
            self.action_last()

    def item(self, number: int) -> Hashable:
        return self._lines[number]

    def lines_of(self, item: Hashable, width: int) -> Sequence[Content]:
        return (Content(cut_end(clean(str(item), newlines=False), width)),)
