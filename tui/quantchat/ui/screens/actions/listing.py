"""What is done in the list of sessions: sorting, pins, tags, the archive, deleting; one session or many."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from quantchat.domain.tags import changed_tags, read_tags
from quantchat.errors import QuantchatError
from quantchat.ui.keys import show_keys
from quantchat.ui.screens.actions.part import ScreenPart
from quantchat.ui.sessionlist import ORDER_WORDS, ORDERS, Arrangement, SessionStates, Wanted, next_order
from quantchat.ui.widgets.sessions import SessionList

if TYPE_CHECKING:
    from quantchat.domain.chat import Session, SessionSummary

HINTS = {"session.pin": "pin", "session.tag": "tag", "session.archive": "archive", "session.mark": "mark"}
TOLD_EVERY = 20
"""Of many sessions that are changed, so many are done between two words about it."""


class ListingActions(ScreenPart):
    """What the session list and its keys do."""

    _archived = False
    _done: tuple[int, int] | None = None

    @cached_property
    def _arrangement(self) -> Arrangement:
        return Arrangement()

    @property
    def _list(self) -> SessionList:
        return self._screen.query_one(SessionList)

    def targets(self) -> tuple[str, ...]:
        """The sessions that a command is about: those of the list while it has the keyboard, else the one shown."""
        return self._list.targets if self._list.has_focus else (self.session.id,)

    # Drawing

    def draw_sessions(self) -> None:
        """Show the sessions that are wanted, in the order that is wanted."""
        screen, rows, arrangement = self._screen, self._list, self._arrangement
        order = self.desk.state.sessions_order
        arrangement.take(screen.summaries, Wanted(order, rows.filter, self._archived))
        conversation = self.desk.conversation
        rows.marked.intersection_update(arrangement.known)
        rows.empty = _empty(rows.filter, archived=self._archived)
        rows.show_subtitle(self._subtitle(rows, arrangement))
        rows.show(
            arrangement.rows,
            arrangement.ids,
            self.session.id,
            SessionStates(conversation.streaming, screen.unread, conversation.warm),
            order=order,
            heading=_heading(arrangement, archived=self._archived),
        )

    def _subtitle(self, rows: SessionList, arrangement: Arrangement) -> str:
        """How many are shown and marked, what they are sorted by, and the keys that nobody would guess."""
        order = self.desk.state.sessions_order
        whole = arrangement.archived if self._archived else arrangement.total
        progress = self.desk.archive.listing.progress
        parts = (
            "reading {:,} of {:,}".format(*progress) if progress else "",
            "writing {:,} of {:,}".format(*self._done) if self._done else "",
            f"{len(arrangement.ids):,} of {whole:,}" if rows.filter else "",
            f"{len(rows.marked):,} marked" if rows.marked else "",
            "" if order == "changed" else ORDER_WORDS[order],
        )
        hint = rows.has_focus and not any(parts) and bool(arrangement.ids)
        return _hint(self._app.key_map) if hint else "  ".join(filter(None, parts))

    def on_session_list_changed(self, event: SessionList.Changed) -> None:
        event.stop()
        self._screen.draw("sessions")

    def on_session_list_asked(self, event: SessionList.Asked) -> None:
        event.stop()
        runs: dict[str, Callable[[tuple[str, ...]], None]] = {
            "sort": lambda _: self.action_sort_sessions(),
            "archived": lambda _: self.action_archived(),
            "pin": self._pin,
            "tag": self._ask_tags,
            "archive": self._archive,
            "delete": self._ask_delete,
            "export": self._screen.export_sessions,
        }
        runs[event.what](event.ids)

    def end_listing(self) -> bool:
        """Take back, one at a time, what was asked of the list: the filter, the marks, the view of the archive."""
        rows = self._list
        if not rows.has_focus:
            return False
        if rows.end_filter() or rows.clear_marks():
            return True
        if self._archived:
            self.action_archived()
            return True
        return False

    # Order and views

    def action_sort_sessions(self, order: str = "") -> None:
        """Sort the list of sessions by what is named, else the next way."""
        named = next((known for known in ORDERS if known == order.strip().casefold()), None)
        if order.strip() and named is None:
            self._app.notify(f"Sessions are sorted by {', '.join(ORDERS)}", severity="warning")
            return
        wanted = named or next_order(self.desk.state.sessions_order)
        self.desk.remember(sessions_order=wanted)
        self._screen.draw("sessions")
        if self._list.region:
            # The row under the cursor may stand far down now, and what was asked for stands above.
            self._list.action_first()
        else:
            self._app.notify(f"Sessions: {ORDER_WORDS[wanted]}")

    def action_archived(self) -> None:
        """Show the archived sessions in place of the others, or the others again."""
        self._archived = not self._archived
        self._list.marked.clear()
        self._screen.draw("sessions")
        if not self._list.has_focus:
            self._focus_list("sessions")
        self._list.action_first()

    # Pins, tags, the archive

    def action_pin(self) -> None:
        self._pin(self.targets())

    def _pin(self, ids: tuple[str, ...]) -> None:
        """Pin sessions, or if all are pinned let them go."""
        on = not all(row.pinned for row in self._rows_of(ids))
        self._foresee(ids, lambda row: msgspec.structs.replace(row, pinned=on))
        self._amend(ids, lambda session: setattr(session, "pinned", on))

    def action_archive(self) -> None:
        self._archive(self.targets())

    def _archive(self, ids: tuple[str, ...]) -> None:
        """Archive sessions, or if all are archived take them back."""
        on = not all(row.archived for row in self._rows_of(ids))
        self._list.clear_marks()
        done = "Archived" if on else "Restored"
        keys = show_keys(self._app.key_map["session.archived"].partition(",")[0])
        way = f"; {keys} in the list shows the archive" if on and keys else ""
        self._foresee(ids, lambda row: msgspec.structs.replace(row, archived=on))
        self._amend(ids, lambda session: setattr(session, "archived", on), f"{done} {_counted(ids)}{way}")

    def action_tag(self, tags: str = "") -> None:
        """Give sessions tags; words behind a minus take tags away. Without words, ask."""
        if tags.strip():
            self._tag(self.targets(), lambda old: changed_tags(old, tags))
        else:
            self._ask_tags(self.targets())

    def _ask_tags(self, ids: tuple[str, ...]) -> None:
        from quantchat.ui.screens.tags import TagScreen

        rows, alone = self._rows_of(ids), len(ids) == 1
        known = sorted({tag for row in self._screen.summaries for tag in row.tags}, key=str.casefold)

        def tag(words: str | None) -> None:
            if words is not None:
                self._tag(ids, lambda old: read_tags(words) if alone else changed_tags(old, words))

        old = rows[0].tags if alone and rows else ()
        self._app.push_screen(TagScreen(old, known, count=len(ids)), tag)

    def _tag(self, ids: tuple[str, ...], new: Callable[[Iterable[str]], list[str]]) -> None:
        def change(session: Session) -> None:
            session.tags = new(session.tags)

        self._foresee(ids, lambda row: msgspec.structs.replace(row, tags=tuple(new(row.tags))))
        self._amend(ids, change, f"Tagged {_counted(ids)}" if len(ids) > 1 else "")

    def _rows_of(self, ids: Collection[str]) -> list[SessionSummary]:
        wanted = set(ids)
        return [row for row in self._screen.summaries if row.id in wanted]

    def _amend(self, ids: tuple[str, ...], change: Callable[[Session], None], done: str = "") -> None:
        """Change sessions one after the other."""
        self.desk.run(self._each(ids, lambda one: self.desk.archive.amend(one, change), done))

    def _foresee(self, ids: Collection[str], seen: Callable[[SessionSummary], SessionSummary]) -> None:
        """Show at once what the disk takes its time for."""
        screen, wanted = self._screen, set(ids)
        screen.summaries = [seen(row) if row.id in wanted else row for row in screen.summaries]
        screen.draw("sessions")

    async def _each(self, ids: Sequence[str], work: Callable[[str], Awaitable[None]], done: str) -> None:
        """Do something to each session; what is refused is told together, and the list read anew."""
        refused: list[QuantchatError] = []
        for number, session_id in enumerate(ids):
            if self._app.leaving:
                return
            if number and not number % TOLD_EVERY:
                self._done = number, len(ids)
                self._screen.later("sessions")
            try:
                await work(session_id)
            except QuantchatError as error:
                refused.append(error)
        self._done = None
        if refused:
            more = f" ({len(refused):,} of {len(ids):,} sessions)" if len(ids) > 1 else ""
            self._app.notify(f"{refused[0]}{more}", severity="error", markup=False)
        elif done:
            self._app.notify(done)
        self._screen.reload_sessions()

    # Deleting

    def action_delete(self) -> None:
        self._ask_delete(self.targets())

    def _ask_delete(self, ids: tuple[str, ...]) -> None:
        from quantchat.ui.screens.dialogs import ConfirmScreen

        def delete(sure: bool | None) -> None:
            if sure:
                self.desk.run(self._delete_all(ids))

        if len(ids) == 1:
            question = f"Delete “{self._screen.title_of(ids[0])}”? Its file moves to the trash folder."
        else:
            question = f"Delete {_counted(ids)}? Their files move to the trash folder."
        self._app.push_screen(ConfirmScreen(question, "Delete"), delete)

    async def _delete_all(self, ids: tuple[str, ...]) -> None:
        archive = self.desk.archive
        if len(ids) == 1:
            # Before anything else: a session that stays keeps its row and what is written in the prompt.
            archive.require_writable(ids[0])
            self._let_go(ids)
            await archive.delete(ids[0])
            return
        self._list.clear_marks()
        self._let_go([session_id for session_id in ids if self._is_writable(session_id)])
        await self._each(ids, archive.delete, f"{_counted(ids)} moved to the trash folder")

    def _is_writable(self, session_id: str) -> bool:
        archive = self.desk.archive
        if archive.open_here(session_id) is None:
            # Asked, not taken: thousands of locks would be more open files than a process may have.
            return not archive.locks.is_locked(session_id)
        with contextlib.suppress(QuantchatError):
            archive.require_writable(session_id)
            return True
        return False

    def _let_go(self, ids: Collection[str]) -> None:
        """Take sessions off the screen, at once: Enter on a row that is being deleted would find no session."""
        screen, gone = self._screen, set(ids)
        for session_id in ids:
            self.desk.conversation.forget(session_id)
        screen.summaries = [summary for summary in screen.summaries if summary.id not in gone]
        screen.draw("sessions")
        if self.session.id in gone:
            screen.prompt.load("")
            screen.open_session(self.desk.archive.new())


def _heading(arrangement: Arrangement, *, archived: bool) -> str:
    count = arrangement.archived if archived else arrangement.total
    return f"{'Archived' if archived else 'Sessions'} {count:,}" if count else "Archived" if archived else "Sessions"


def _empty(words: str, *, archived: bool) -> str:
    if words:
        return "No session has that. Esc shows all"
    return "No session is archived. Esc goes back" if archived else "No sessions yet"


def _counted(ids: Collection[str]) -> str:
    return "1 session" if len(ids) == 1 else f"{len(ids):,} sessions"


def _hint(keys: dict[str, str]) -> str:
    return "  ".join(f"{show_keys(keys[name])} {word}" for name, word in HINTS.items() if keys[name])
