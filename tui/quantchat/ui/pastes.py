"""Pastes in one piece, whatever they hold.

Textual's parser looks for the sequences of keys inside a paste as well: up to 32 characters behind an ESC come out as
keys, an Enter among them would send the prompt, and a megabyte takes it most of a second. Here a paste is cut out of
what the terminal sends before that parser sees it. Bytes that are no UTF-8 would end its thread; they are replaced.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Callable, Generator, Iterable
from functools import partial
from time import monotonic

from textual import constants
from textual._xterm_parser import BRACKETED_PASTE_END, BRACKETED_PASTE_START, XTermParser
from textual.events import Paste
from textual.message import Message

START, END = BRACKETED_PASTE_START, BRACKETED_PASTE_END
HELD_SECONDS = constants.ESCAPE_DELAY
"""What may be the beginning of a mark at the end of a read, or the Esc key, waits so long for the rest."""
_BEGINNINGS = tuple(START[:length] for length in range(len(START) - 1, 0, -1))


class PasteParser(XTermParser):
    """Textual's parser with pastes taken out first."""

    def __init__(self, debug: bool = False) -> None:
        self._pasted: list[str] | None = None
        self._held = ""
        self._held_until = 0.0
        super().__init__(debug)

    def feed(self, data: str) -> Iterable[Message]:
        if not data:
            yield from super().feed(data)
            return
        data, self._held = self._held + data, ""
        while data:
            if self._pasted is None:
                data = yield from self._feed_keys(data)
            else:
                data = yield from self._feed_paste(data)

    def tick(self) -> Iterable[Message]:
        if self._held and monotonic() >= self._held_until:
            held, self._held = self._held, ""
            yield from super().feed(held)
            # It has waited already.
            self._timeout_time = 0.0
        yield from super().tick()

    def _feed_keys(self, data: str) -> Generator[Message, None, str]:
        keys, start, rest = data.partition(START)
        if start:
            self._pasted = []
        elif data.endswith(_BEGINNINGS):
            self._held = next(part for part in _BEGINNINGS if data.endswith(part))
            self._held_until = monotonic() + HELD_SECONDS
            keys = data.removesuffix(self._held)
        if keys:
            yield from super().feed(keys)
        return rest

    def _feed_paste(self, data: str) -> Generator[Message, None, str]:
        assert self._pasted is not None
        # The mark may have come in two reads.
        data = (self._pasted.pop() if self._pasted else "") + data
        first = data.find(END)
        if first < 0:
            keep = len(END) - 1
            self._pasted += [data[:-keep], data[-keep:]]
            return ""
        # A paste may itself hold an end mark: nobody typed what stands between it and another one.
        begun = data.find(START, first)
        end = data.rfind(END, first, begun if begun >= 0 else None)
        text = "".join([*self._pasted, data[:end]])
        self._pasted = None
        yield Paste(text.replace(END, "").replace(START, "").replace("\0", ""))
        return data[end + len(END) :]


def take_pastes_whole() -> None:
    """Let Textual's terminal driver use this parser; without effect on a driver that is built otherwise."""
    from textual.drivers import linux_driver

    if getattr(linux_driver, "XTermParser", None) is XTermParser:
        setattr(linux_driver, "XTermParser", PasteParser)  # noqa: B010 - it is no public name
    if getattr(linux_driver, "getincrementaldecoder", None) is getincrementaldecoder:
        setattr(linux_driver, "getincrementaldecoder", _forgiving_decoder)  # noqa: B010


def _forgiving_decoder(encoding: str) -> Callable[[], object]:
    return partial(getincrementaldecoder(encoding), errors="replace")
