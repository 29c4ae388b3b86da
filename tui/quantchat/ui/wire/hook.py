"""Where Textual's own drawing is replaced: the one module that knows its private parts.

Textual 8.2.8 has no public place between its compositor and its driver. `App._display` gets what the compositor
rendered; here it goes through a `Painter`, and from there to the driver. When Textual does not look as expected, or the
painter fails, Textual draws by itself for the rest of the run.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from rich.color import ColorSystem
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.app import App, ReturnType
from textual.drivers import _writer_thread
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Size
from textual.strip import Strip

from quantchat.ui.wire.link import Link, colors_for, erases_with_background
from quantchat.ui.wire.outlet import Outlet
from quantchat.ui.wire.painter import Painter

if TYPE_CHECKING:
    from textual.driver import Driver
    from textual.screen import Screen

TEXTUAL = "8.2.8"
SYNC_BEGIN, SYNC_END = "\x1b[?2026h", "\x1b[?2026l"
WHOLE = 256
"""A frame of fewer bytes comes in one piece anyway and needs no marks around it."""
LAG_SECONDS = 0.1
AWAY_SECONDS = 600.0
SETTLE_SECONDS = 0.2
"""A new size brings a new layout within this time, which draws everything by itself."""
ASKED = "asked for"
_RESTORE = "\x1b[m\x1b[r"


class WireDriver(LinuxDriver):
    """Textual's driver, writing through an `Outlet`."""

    def __init__(self, app: App[Any], **options: Any) -> None:
        super().__init__(app, **options)
        self.outlet = Outlet(cast(Any, self._file), self._on_free)
        self._file = cast(Any, self.outlet)

    def _on_free(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wired.catch_up)

    @property
    def _wired(self) -> WiredApp[Any]:
        return cast("WiredApp[Any]", self._app)

    def write(self, data: str) -> None:
        self.outlet.announce()
        super().write(data)

    def start_application_mode(self) -> None:
        self.outlet.restart()
        super().start_application_mode()  # type: ignore[no-untyped-call]
        # Also called by a signal handler, which may have interrupted the drawing.
        self._loop.call_soon_threadsafe(self._wired.redraw)

    def stop_application_mode(self) -> None:
        if self._writer_thread is not None:
            self.write(_RESTORE)
        super().stop_application_mode()


class WiredApp(App[ReturnType]):
    """An application whose terminal is sent only what it does not show yet.

    Attributes:
        plain_reason: Why Textual draws by itself, or None.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.plain_reason = ASKED if os.environ.get("QUANTCHAT_WIRE") == "plain" else why_plain()
        self._painter: Painter | None = None
        self._away_since: float | None = None
        super().__init__()

    def get_driver_class(self) -> type[Driver]:
        chosen = super().get_driver_class()
        return WireDriver if chosen is LinuxDriver and self.plain_reason is None else chosen

    @property
    def lagging(self) -> bool:
        """Whether the terminal is behind with what it was sent."""
        driver = self._driver
        return isinstance(driver, WireDriver) and max(driver.outlet.waiting, driver.outlet.lag) > LAG_SECONDS

    def redraw(self) -> None:
        """Write the whole screen anew, whatever the terminal shows."""
        if self._painter is not None:
            self._painter.forget()
            self.catch_up()
        elif self._running and self.screen_stack:
            self.screen.refresh()

    def catch_up(self) -> None:
        """Write what was held back while the terminal was busy, or while Textual gathered changes."""
        if self._painter is not None and self._can_draw:
            try:
                self._draw(self._painter)
            except Exception as error:  # noqa: BLE001 - whatever it is, Textual can still draw
                self._draw_plainly(error)

    def _end_batch(self) -> None:
        super()._end_batch()
        if not self._batch_count:
            self.catch_up()

    @property
    def _can_draw(self) -> bool:
        alive = self._running and not self._closed and not self._batch_count
        return alive and self.plain_reason is None and isinstance(self._driver, WireDriver)

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        if not (isinstance(renderable, ChopsUpdate | LayoutUpdate) and self._can_draw):
            super()._display(screen, renderable)
            return
        try:
            painter = self._painter = self._painter or self._make_painter()
            if not _take(painter, renderable, self.size):
                # Not at once: Textual believes to have drawn what it is drawing now.
                self.call_later(screen.refresh)
            self._draw(painter)
        except Exception as error:  # noqa: BLE001 - whatever it is, Textual can still draw
            self._draw_plainly(error)
        finally:
            self.post_display_hook()

    def _make_painter(self) -> Painter:
        found = self.console._color_system or ColorSystem.TRUECOLOR
        colors = colors_for(self.link, os.environ, found)
        return Painter(colors=colors, erases=erases_with_background(os.environ))

    def _draw(self, painter: Painter) -> None:
        driver = cast(WireDriver, self._driver)
        if not driver.outlet.is_free():
            return
        x, y = self.screen.outer_size.clamp_offset(self.cursor_position)
        text = painter.draw((y, x))
        if not text:
            return
        if self._sync_available and len(text) > WHOLE:
            text = f"{SYNC_BEGIN}{text}{SYNC_END}"
        driver.write(text)

    def _draw_plainly(self, error: Exception) -> None:
        """Leave the drawing to Textual from now on, and say so."""
        self._painter = None
        self.plain_reason = str(error) or type(error).__name__
        if self._driver is not None:
            self._driver.write(_RESTORE)
        self.log.error(f"drawing without the difference: {self.plain_reason}")
        self._say_plain()
        self.screen.refresh()

    def check_drawing(self) -> None:
        """Trust no Textual but the one that the tests know. Call it after the first frame: it reads from the disk."""
        import importlib.metadata

        found = importlib.metadata.version("textual")
        if self.plain_reason is not None:
            self._say_plain()
        elif found != TEXTUAL:
            self._draw_plainly(RuntimeError(f"Textual is {found}, not {TEXTUAL}"))

    def _say_plain(self) -> None:
        if self.plain_reason != ASKED:
            self.notify(f"The screen is drawn the plain way, with more bytes: {self.plain_reason}", severity="warning")

    def on_resize(self) -> None:
        # The terminal may have lost what it showed. A size that changed and changed back brings no new layout.
        if self._painter is not None:
            self._painter.forget()
            self.set_timer(SETTLE_SECONDS, self.catch_up)

    def on_app_blur(self) -> None:
        self._away_since = monotonic()

    def on_app_focus(self) -> None:
        """Draw anew after a long absence; tmux and screen redraw an attaching terminal from their own copy."""
        since, self._away_since = self._away_since, None
        if since is not None and monotonic() - since > AWAY_SECONDS:
            self.redraw()


def _take(painter: Painter, update: ChopsUpdate | LayoutUpdate, size: Size) -> bool:
    """Put on the frame what Textual would have written; false if the frame is a new one and lacks the rest.

    A size that changed and changed back while a part was drawn in between leaves a frame that no layout will fill.
    """
    fresh = painter.size != (size.width, size.height)
    if fresh:
        painter.resize(size.width, size.height)
    if isinstance(update, LayoutUpdate):
        for y, line in enumerate(update.strips, update.region.y):
            x = update.region.x
            for strip in line:
                x = painter.put(y, x, strip)
        return not fresh or update.region == size.region
    for y, x, strip in _chops(update):
        painter.put(y, x, strip)
    return not fresh


def _chops(update: ChopsUpdate) -> Iterator[tuple[int, int, Strip]]:
    for y, first, last in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is not None and x <= last and end > first:
                yield y, x, strip if first <= x < last and end <= last else strip.crop(0, min(end, last) - x)


def why_plain() -> str | None:
    """Return why this Textual cannot be drawn for, or None if it looks as expected."""
    for owner, name, wanted in _SHAPE:
        found = getattr(owner, name, None)
        if found is None:
            return f"Textual has no {owner.__name__}.{name}"
        if wanted is not None and list(inspect.signature(found).parameters) != wanted:
            return f"Textual's {owner.__name__}.{name} takes other arguments"
    if not issubclass(ChopsUpdate, CompositorUpdate) or not issubclass(LayoutUpdate, CompositorUpdate):
        return "Textual's updates have another base"
    return None


_SHAPE: list[tuple[Any, str, list[str] | None]] = [
    (App, "_display", ["self", "screen", "renderable"]),
    (App, "_begin_update", ["self"]),
    (App, "_end_batch", ["self"]),
    (App, "post_display_hook", ["self"]),
    (App, "get_driver_class", ["self"]),
    (ChopsUpdate, "__init__", ["self", "chops", "spans", "chop_ends"]),
    (LayoutUpdate, "__init__", ["self", "strips", "region"]),
    (LinuxDriver, "__init__", ["self", "app", "debug", "mouse", "size"]),
    (LinuxDriver, "write", ["self", "data"]),
    (LinuxDriver, "start_application_mode", ["self"]),
    (LinuxDriver, "stop_application_mode", ["self"]),
    (_writer_thread, "MAX_QUEUED_WRITES", None),
    (_writer_thread.WriterThread, "__init__", ["self", "file"]),
    (Strip, "crop", ["self", "start", "end"]),
]
