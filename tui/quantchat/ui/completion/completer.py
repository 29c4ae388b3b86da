"""Completion in the prompt: when the list opens, and what keys do while it is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from textual.worker import Worker

from quantchat.services.background import in_background
from quantchat.services.files import Listing, list_folder, matching
from quantchat.ui.completion.queries import (
    Candidate,
    Query,
    command_candidates,
    find_query,
    path_candidates,
    word_candidates,
)
from quantchat.ui.widgets.completion import CompletionList
from quantchat.ui.widgets.prompt import Prompt

MOST = 50


class Completer:
    """Watches a prompt and drives the list above it.

    Args:
        known: Gives the words that can stand behind a command, by their kind, each with its meaning.
    """

    def __init__(self, prompt: Prompt, shown: CompletionList, known: Callable[[str], Mapping[str, str]]) -> None:
        self._prompt = prompt
        self._shown = shown
        self._known = known
        self._query: Query | None = None
        self._candidates: list[Candidate] = []
        self._place = 0
        self._listing: Listing | None = None
        self._wanted: tuple[str, str] | None = None
        self._dismissed: int | None = None

    @property
    def open(self) -> bool:
        return bool(self._candidates)

    def close(self) -> bool:
        """Close the list; say whether it was open."""
        was_open = self.open
        self._query, self._candidates, self._listing, self._wanted = None, [], None, None
        self._shown.close()
        return was_open

    # What the prompt tells

    def edited(self) -> None:
        """The text was changed by the user."""
        query = self._find()
        if query is None or query.start != self._dismissed:
            self._dismissed = None
            self._look(query)

    def moved(self) -> None:
        """The cursor went elsewhere."""
        if self.open:
            self._look(self._find())

    def take_key(self, key: str) -> bool:
        """Take a key that means something to the list; say whether it did."""
        if key == "tab" and not self.open:
            self._dismissed = None
            self._look(self._find())
            return self.open or self._wanted is not None
        if not self.open or key not in ("up", "down", "tab", "enter", "escape"):
            return False
        if key == "escape":
            self.dismiss()
        elif key == "enter":
            return self._enter()
        elif key == "tab":
            self._put(self._candidates[self._place])
        else:
            self._place = (self._place + (1 if key == "down" else -1)) % len(self._candidates)
            self._draw()
        return True

    def dismiss(self) -> bool:
        """Close the list until another word is begun; say whether it was open."""
        self._dismissed = self._query.start if self._query else None
        return self.close()

    def choose(self, place: int) -> None:
        """Take the row that was clicked."""
        if place < len(self._candidates):
            self._put(self._candidates[place])

    # Looking

    def _find(self) -> Query | None:
        start, end = self._prompt.selection
        if start != end or self._prompt.read_only:
            return None
        row, column = end
        line = self._prompt.document.get_line(row)
        return find_query(row, line[:column], line[column:])

    def _look(self, query: Query | None) -> None:
        if query is None:
            self.close()
        elif query != self._query or not self.open:
            self._query = query
            self._offer(query)

    def _offer(self, query: Query) -> None:
        if query.kind == "command":
            self._show(command_candidates(query))
        elif query.kind != "path":
            self._show(word_candidates(query, self._known(query.kind)))
        elif self._listing is not None and self._listing.serves(query.folder, query.prefix):
            self._show(path_candidates(query, matching(self._listing, query.prefix, MOST)))
        elif self._wanted != (query.folder, query.prefix):
            self._wanted = query.folder, query.prefix
            # What stands there answers another word: Enter and Tab must not put it.
            self._show([])
            # Not the coroutine itself: one that is replaced before it began would be complained about.
            listing = partial(self._list, query.folder, query.prefix)
            _: Worker[None] = self._prompt.run_worker(listing, group="completion", exclusive=True)

    async def _list(self, folder: str, prefix: str) -> None:
        listing = await in_background(list_folder, folder, prefix)
        if self._query is not None and self._wanted == (folder, prefix):
            self._listing, self._wanted = listing, None
            self._offer(self._query)

    def _show(self, candidates: list[Candidate]) -> None:
        self._candidates, self._place = candidates, 0
        if candidates:
            self._draw()
        else:
            self._shown.close()

    def _draw(self) -> None:
        region = self._prompt.region
        rows = [(candidate.label, candidate.detail) for candidate in self._candidates]
        self._shown.show(rows, self._place, (region.width, max(region.y - 1, 1)))

    # Choosing

    def _enter(self) -> bool:
        chosen, query = self._candidates[self._place], self._query
        assert query is not None
        if chosen.insert.rstrip() in (self._word(query), f'{self._word(query)}"'):
            # It stands there already: Enter sends.
            self.close()
            return False
        self._put(chosen)
        if not chosen.runs:
            return True
        self.close()
        return False

    def _word(self, query: Query) -> str:
        return f"/{query.prefix}" if query.kind == "command" else f"{query.lead}{query.folder}{query.prefix}"

    def _put(self, candidate: Candidate) -> None:
        query = self._query
        if query is None:
            return
        row, column = self._prompt.cursor_location
        self._dismissed = None
        self.close()
        self._prompt.replace(candidate.insert, (row, query.start), (row, column), maintain_selection_offset=False)
