"""A field for the path of a folder, completed with Tab as after @ in the prompt."""

from __future__ import annotations

from functools import partial

from textual import events, on
from textual.widgets import Input
from textual.worker import Worker

from quantchat.services.background import in_background
from quantchat.services.files import Listing, list_folder, matching
from quantchat.ui.widgets.completion import CompletionList
from quantchat.ui.widgets.field import Field

MOST = 50


class FolderField(Field):
    """Offers the folders whose names begin as typed in a list that lies above it."""

    def __init__(self, shown: CompletionList, *, placeholder: str, id: str | None = None) -> None:
        super().__init__(placeholder=placeholder, id=id)
        self._shown = shown
        self._names: list[str] = []
        self._place = 0
        self._listing: Listing | None = None

    def close_completion(self) -> bool:
        """Close the list; say whether it was open."""
        was_open = bool(self._names)
        self._names = []
        self._shown.close()
        return was_open

    async def on_key(self, event: events.Key) -> None:
        if not self._names or event.key not in ("up", "down", "tab"):
            return
        event.stop()
        event.prevent_default()
        if event.key == "tab":
            self.choose(self._place)
        else:
            self._place = (self._place + (1 if event.key == "down" else -1)) % len(self._names)
            self._draw()

    def choose(self, place: int) -> None:
        """Put a name of the list in."""
        if place < len(self._names):
            folder, slash, _ = self.value.rpartition("/")
            self.value = folder + slash + self._names[place]
            self.cursor_position = len(self.value)

    @on(Input.Changed)
    def _on_changed(self) -> None:
        folder, slash, prefix = self.value.rpartition("/")
        if not slash:
            self.close_completion()
        elif self._listing is not None and self._listing.serves(folder + slash, prefix):
            self._offer(self._listing, prefix)
        else:
            # Not the coroutine itself: one that is replaced before it began would be complained about.
            work = partial(self._list, folder + slash, prefix)
            _: Worker[None] = self.run_worker(work, group="completion", exclusive=True)

    async def _list(self, folder: str, prefix: str) -> None:
        self._listing = await in_background(list_folder, folder, prefix)
        if self.value == folder + prefix:
            self._offer(self._listing, prefix)

    def _offer(self, listing: Listing, prefix: str) -> None:
        found = matching(listing, prefix, MOST)
        self._names, self._place = [name for name in found if name.endswith("/")], 0
        if self._names:
            self._draw()
        else:
            self.close_completion()

    def _draw(self) -> None:
        space = self.region.width, max(self.region.y, 1)
        self._shown.show([(name, "") for name in self._names], self._place, space)
