"""The list of sessions: filtered by typing, with marks for what is done to several at once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.content import Content
from textual.message import Message

from quantchat.domain.chat import SessionSummary
from quantchat.store.state import SessionsOrder
from quantchat.ui.keys import bindings
from quantchat.ui.sessionlist import SessionStates, session_row
from quantchat.ui.widgets.filtering import Filtering
from quantchat.ui.widgets.lazy import LazyRows
from quantchat.ui.widgets.rows import Row, fit_row


class SessionList(Filtering, LazyRows, can_focus=True):
    """Rows of sessions; the filter stands in the upper edge, order and keys in the lower one."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings("session")]

    class Changed(Message):
        """The filter is another, or the user comes or goes."""

    class Asked(Message):
        """The user wants something of some sessions: those that are marked, or the one under the cursor.

        Attributes:
            what: Which command of the screen it is.
        """

        def __init__(self, what: str, ids: tuple[str, ...]) -> None:
            super().__init__()
            self.what = what
            self.ids = ids

    def __init__(self, *, id: str) -> None:
        super().__init__("Sessions", id=id, empty="No sessions yet")
        self._summaries: Sequence[SessionSummary] = ()
        self._states = SessionStates()
        self._shown = ""
        self._order: SessionsOrder = "changed"
        self._heading = "Sessions"
        self._said = ""
        self.marked: set[str] = set()

    @property
    def targets(self) -> tuple[str, ...]:
        """What a command is about: the marked rows in their order, else the one under the cursor."""
        if self.marked:
            hidden = sorted(self.marked.difference(self.ids))
            return (*(row_id for row_id in self.ids if row_id in self.marked), *hidden)
        return () if self.highlighted_id is None else (self.highlighted_id,)

    @property
    def heading(self) -> str:
        return self._heading

    def show(
        self,
        summaries: Sequence[SessionSummary],
        ids: Sequence[str],
        shown: str,
        states: SessionStates,
        *,
        order: SessionsOrder = "changed",
        heading: str = "Sessions",
    ) -> None:
        """Show these sessions in this order; `shown` is the one whose chat stands beside them."""
        self._summaries, self._states, self._shown, self._order = summaries, states, shown, order
        self._heading = heading
        self.show_heading()
        self.show_ids(ids, follow=shown)

    def show_subtitle(self, words: str) -> None:
        """Say something in the lower edge."""
        if words != self._said:
            self._said = words
            self.border_subtitle = Content(words)

    @property
    def rows(self) -> list[Row]:
        """All rows as they are drawn."""
        return [self.item(number) for number in range(len(self.ids))]

    def item(self, number: int) -> Row:
        summary = self._summaries[number]
        return session_row(summary, self._shown, self._states, order=self._order, marked=summary.id in self.marked)

    def lines_of(self, item: Hashable, width: int) -> Sequence[Content]:
        assert isinstance(item, Row)
        return (fit_row(item, width),)

    def filter_changed(self) -> None:
        self.post_message(self.Changed())

    # Keys

    def _ask(self, what: str) -> None:
        # With the rows as they are now: keys behind this one may move the cursor before anybody looks.
        if self.targets:
            self.post_message(self.Asked(what, self.targets))

    def action_sort_rows(self) -> None:
        self.post_message(self.Asked("sort", ()))

    def action_show_archived(self) -> None:
        self.post_message(self.Asked("archived", ()))

    def action_delete_row(self) -> None:
        self._ask("delete")

    def action_pin_rows(self) -> None:
        self._ask("pin")

    def action_tag_rows(self) -> None:
        self._ask("tag")

    def action_archive_rows(self) -> None:
        self._ask("archive")

    def action_export_rows(self) -> None:
        self._ask("export")

    def action_mark_row(self) -> None:
        """Mark the row under the cursor, or take its mark away, and go on to the next."""
        if self.highlighted_id is not None:
            self.marked ^= {self.highlighted_id}
            self._refresh_changed()
            self.action_cursor_down()
            self.filter_changed()

    def action_mark_all(self) -> None:
        """Mark all rows that are shown, or if they are take all marks away."""
        self.marked = set() if self.marked.issuperset(self.ids) else self.marked | set(self.ids)
        self._refresh_changed()
        self.filter_changed()

    def clear_marks(self) -> bool:
        """Take all marks away; say whether there were any."""
        had, self.marked = bool(self.marked), set()
        if had:
            self._refresh_changed()
            self.filter_changed()
        return had
