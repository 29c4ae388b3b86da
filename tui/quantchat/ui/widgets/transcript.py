"""The conversation: one widget that draws every message as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from quantchat.ui.transcript.document import START, Document, Place
from quantchat.ui.transcript.entry import BAR
from quantchat.ui.transcript.messages import MessageView
from quantchat.ui.transcript.palette import CODE_THEMES, Palette

__all__ = ["MessageView", "Transcript"]

# Selections name a line as message * _LINES + line: heights above it may be corrected while text is selected.
_LINES = 1 << 20
_NEAR = 4
_SURFACES = ("user", "code")
_PARTS = (*_SURFACES, "user-bar", "label", "dim", "error", "heading", "link")


class Transcript(ScrollView, can_focus=True):
    """Messages as lines; follows the end until the reader scrolls away."""

    ALLOW_SELECT = True

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"transcript--{part}" for part in _PARTS}

    DEFAULT_CSS = """
    Transcript {
        background: $background;
        color: $foreground;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size-vertical: 1;
        & > .transcript--user { background: $surface; }
        & > .transcript--user-bar { color: $primary; text-style: bold; }
        & > .transcript--label { color: $text-secondary; text-style: bold; }
        & > .transcript--dim { color: $text-muted; }
        &:ansi > .transcript--dim { text-style: dim; }
        & > .transcript--error { color: $text-error; }
        & > .transcript--heading { color: $text-primary; text-style: bold; }
        & > .transcript--code { background: $surface; }
        & > .transcript--link { color: $text-accent; text-style: underline; }
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "Line up", show=False),
        Binding("down,j", "scroll_down", "Line down", show=False),
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("pagedown", "page_down", "Page down", show=False),
        Binding("home,g", "scroll_home", "First message", show=False),
        Binding("end,G", "scroll_end", "Last message", show=False),
    ]

    class FollowChanged(Message):
        """The transcript began or ceased to follow the end."""

        def __init__(self, transcript: Transcript, following: bool) -> None:
            super().__init__()
            self.transcript = transcript
            self.following = following

        @property
        def control(self) -> Transcript:
            return self.transcript

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        # Mouse motion over a line-API widget repaints it whole while it looks for links.
        self.auto_links = False
        self._document = Document()
        self._palette: Palette | None = None
        self._place = START
        self._following = True
        self._placing = False

    @property
    def following(self) -> bool:
        """Whether new text moves the view; setting it goes to the end."""
        return self._following

    @following.setter
    def following(self, following: bool) -> None:
        self._follow(following)
        self._lay_out()

    def show(self, messages: Sequence[MessageView]) -> None:
        """Replace everything and go to the end."""
        self._document.load(messages)
        self._place = START
        self._follow(True)
        self._lay_out()
        self.refresh()

    def append(self, message: MessageView) -> None:
        self._document.append(message)
        self._lay_out(changed=len(self._document.entries) - 1)

    def replace(self, message: MessageView) -> None:
        """Give a message new text, footer or tone; an unknown one is not shown and so left alone."""
        if (number := self._document.find(message.id)) is not None:
            self._document.entries[number].replace(message)
            self._lay_out(changed=number)

    def extend(self, message_id: str, text: str) -> None:
        """Add streamed text to a message; an unknown one belongs to another session and is left alone."""
        if text and (number := self._document.find(message_id)) is not None:
            self._document.entries[number].extend(text)
            self._lay_out(changed=number)

    def discard(self, message_id: str) -> None:
        """Take a message away; `remove` is Textual's word for taking the widget away."""
        if (number := self._document.find(message_id)) is None:
            return
        self._document.remove(number)
        if number < self._place.entry:
            self._place = self._place._replace(entry=self._place.entry - 1)
        elif number == self._place.entry:
            self._place = Place(min(number, max(0, len(self._document.entries) - 1)), 0)
        self._lay_out()
        self.refresh()

    def refresh_theme(self) -> None:
        """Draw again in the colours of the theme that is now in force."""
        self._palette = None
        self._lay_out()
        self.refresh()

    def source_of_last_answer(self) -> str | None:
        """Return the last answer as the model wrote it."""
        answers = (entry for entry in reversed(self._document.entries) if entry.message.role == "assistant")
        return next((entry.source for entry in answers if entry.source), None)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._palette = None
        if self.is_mounted:
            self.call_next(self._lay_out)

    def on_resize(self, _event: events.Resize) -> None:
        self._lay_out()

    def on_show(self) -> None:
        self._lay_out()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        distance = round(new_value) - round(old_value)
        if distance and not self._placing:
            near = abs(distance) <= _NEAR * self._rows
            self._go(self._walk(distance) if near else self._document.locate(round(new_value)))

    def action_scroll_up(self) -> None:
        self._go(self._walk(-1))

    def action_scroll_down(self) -> None:
        self._go(self._walk(1))

    def action_page_up(self) -> None:
        self._go(self._walk(1 - self._rows))

    def action_page_down(self) -> None:
        self._go(self._walk(self._rows - 1))

    def action_scroll_home(self) -> None:
        self._go(START)

    def action_scroll_end(self) -> None:
        self.following = True

    def render_line(self, y: int) -> Strip:
        width, style = self._columns, self.rich_style
        found = self._document.line(self.scroll_offset.y + y) if self._ready else None
        if found is None:
            return Strip.blank(width, style)
        place, strip = found
        strip = self._selected(strip.apply_style(style).crop_extend(0, width, style), place)
        return strip.apply_offsets(0, _row(place))

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Return what is selected: everything as it was written, or some lines as they are shown."""
        entries = self._document.entries
        if not entries or not self._ready:
            return None
        if selection.start is None and selection.end is None:
            return "\n\n".join(entry.source for entry in entries), "\n"
        last = len(entries) - 1
        first_row = selection.start.y if selection.start else 0
        last_row = selection.end.y if selection.end else _row(Place(last, _LINES - 1))
        lines = []
        for number in range(first_row // _LINES, min(last, last_row // _LINES) + 1):
            self._document.paint(number)
            for line in range(len(entries[number].lines)):
                span = selection.get_span(_row(Place(number, line)))
                if span is not None:
                    lines.append(_cut(entries[number].lines[line].text, *span))
        return "\n".join(lines), "\n"

    @property
    def _columns(self) -> int:
        return self.scrollable_content_region.width

    @property
    def _rows(self) -> int:
        return max(1, self.scrollable_content_region.height)

    @property
    def _ready(self) -> bool:
        return self._columns > BAR and self._format()

    def _format(self) -> bool:
        if self._palette is None:
            self._palette = self._read_palette()
        if self._document.set_format(self._columns, self._palette):
            self.refresh()
        return True

    def _lay_out(self, changed: int | None = None) -> None:
        """Paint what is in view and put it where the reader was, or at the end."""
        if changed is not None:
            self._document.touch(changed)
        if not self._ready:
            return
        first = self._document.paint(changed) if changed is not None and self._in_view(changed) else None
        self._place = self._document.end(self._rows) if self._following else self._covered(self._place)
        moved = self._apply()
        if first is not None and changed is not None and not moved:
            self._refresh_from(self._document.y_of(Place(changed, first)))

    def _in_view(self, number: int) -> bool:
        return self._following or self._place.entry <= number <= self._document.locate(self._bottom).entry

    @property
    def _bottom(self) -> int:
        return self._document.y_of(self._place) + self._rows - 1

    def _covered(self, place: Place) -> Place:
        return self._document.cover(place, self._rows)

    def _walk(self, lines: int) -> Place:
        return self._document.walk(self._place, lines) if self._ready else START

    def _go(self, place: Place) -> None:
        """Show what the reader asked for; at the end, follow it."""
        if not self._ready:
            return
        self._place = self._covered(place)
        self._follow(self._bottom >= self._document.total - 1)
        self._apply()

    def _apply(self) -> bool:
        """Tell Textual the size and the position; return whether the view moved."""
        y = self._document.y_of(self._place)
        moved = y != self.scroll_offset.y
        self._placing = True
        try:
            self.virtual_size = Size(self._columns, self._document.total)
            self.scroll_target_y = self.scroll_y = y
        finally:
            self._placing = False
        return moved

    def _refresh_from(self, y: int) -> None:
        top = max(0, y - self.scroll_offset.y)
        if top < self._rows:
            self.refresh(Region(0, top, self._columns, self._rows - top))

    def _follow(self, following: bool) -> None:
        if following != self._following:
            self._following = following
            self.post_message(self.FollowChanged(self, following))

    def _selected(self, strip: Strip, place: Place) -> Strip:
        selection = self.text_selection
        span = selection.get_span(_row(place)) if selection is not None else None
        if span is None:
            return strip
        text = strip.text
        start, end = (cell_len(text[: len(text) if x == -1 else x]) for x in span)
        style = self.screen.get_component_rich_style("screen--selection")
        middle = strip.crop(start, end)
        return Strip.join([strip.crop(0, start), _over(middle, style), strip.crop(end)])

    def _read_palette(self) -> Palette:
        theme = self.app.current_theme
        styles = {part: self.get_component_rich_style(f"transcript--{part}") for part in _PARTS}
        words = {part.replace("-", "_"): _words(style) for part, style in styles.items() if part not in _SURFACES}
        surfaces = {part: Style(bgcolor=styles[part].bgcolor) for part in _SURFACES}
        return Palette(**words, **surfaces, base=Style(), code_theme=CODE_THEMES[theme.dark, theme.ansi])


def _words(style: Style) -> Style:
    """A style without its background, which the line it stands on gives."""
    return style.without_color + Style(color=style.color)


def _row(place: Place) -> int:
    return place.entry * _LINES + place.line


def _over(strip: Strip, style: Style) -> Strip:
    return Strip([segment._replace(style=(segment.style or Style()) + style) for segment in strip], strip.cell_length)


def _cut(text: str, start: int, end: int) -> str:
    return text[max(BAR, start) : None if end == -1 else max(BAR, end)].rstrip()
