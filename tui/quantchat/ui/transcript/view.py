"""A column of messages, of which the part that the reader looks at is drawn."""

from __future__ import annotations

from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from quantchat.ui.transcript.document import START, Document, Place
from quantchat.ui.transcript.drawing import Drawing, Over
from quantchat.ui.transcript.entry import BAR
from quantchat.ui.transcript.palette import Palette, read_marks, read_palette
from quantchat.ui.transcript.selection import reaches, selected_part, selected_text, with_offsets

_NEAR = 4


class DocumentView(ScrollView):
    """Lines of a document; follows the end until the reader scrolls away."""

    ALLOW_SELECT = True

    class FollowChanged(Message, namespace="transcript"):
        """The view began or ceased to follow the end."""

        def __init__(self, view: DocumentView, following: bool) -> None:
            super().__init__()
            self.view = view
            self.following = following

        @property
        def control(self) -> DocumentView:
            return self.view

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        # Mouse motion over a line-API widget repaints it whole while it looks for links.
        self.auto_links = False
        self._document = Document()
        self._palette: Palette | None = None
        self._drawing: Drawing | None = None
        self._place = START
        self._following = True
        self._unseen = False
        self._placing = False

    @property
    def following(self) -> bool:
        """Whether new text moves the view; setting it goes to the end."""
        return self._following

    @following.setter
    def following(self, following: bool) -> None:
        self._follow(following)
        self._lay_out()

    @property
    def unseen(self) -> bool:
        """Whether text has come below what is in view since the reader scrolled away."""
        return self._unseen

    def refresh_theme(self) -> None:
        """Draw again in the colours of the theme that is now in force."""
        self._palette = self._drawing = None
        self._lay_out()
        self.refresh()

    # What Textual tells and asks

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._palette = self._drawing = None
        if self.is_mounted:
            self.call_next(self._lay_out)

    def on_resize(self, _event: events.Resize) -> None:
        self._drawing = None
        self._lay_out()

    def on_show(self) -> None:
        self._lay_out()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        distance = round(new_value) - round(old_value)
        if distance and not self._placing:
            near = abs(distance) <= _NEAR * self._rows
            self._go(self._walk(distance) if near else self._document.locate(round(new_value)))

    def render_lines(self, crop: Region) -> list[Strip]:
        # Not by way of `render_line`: Textual makes new strips of its lines for each frame, and these stay the same.
        strips = self._draw(crop.y, crop.height)
        if filters := self.get_line_filters():
            background = self.background_colors[1]
            for line_filter in filters:
                strips = [strip.apply_filter(line_filter, background) for strip in strips]
        if crop.column_span != (0, self.outer_size.width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        """Return a line with what the mouse needs to know about it."""
        if self._ready:
            for place, strip in self._document.lines(self.scroll_offset.y + y, 1):
                return with_offsets(self._pen.draw(strip), place)
        return Strip.blank(self._columns, self._style)

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        if not self._document.entries or not self._ready:
            return None
        return selected_text(selection, self._document), "\n"

    def _deselect_from(self, number: int) -> None:
        """Drop a selection that reaches a message which others will stand in for."""
        selection = self.text_selection if self.is_attached else None
        if selection is not None and reaches(selection, number):
            self.screen.clear_selection()

    # Drawing

    def _draw(self, y: int, count: int) -> list[Strip]:
        found = list(self._document.lines(self.scroll_offset.y + y, count)) if self._ready else []
        blank = Strip.blank(self.outer_size.width, self._style)
        if not found:
            return [blank] * count
        pen, last = self._pen, self._rows - 1 - y if self._unseen else -1
        strips = [
            pen.draw(
                strip,
                focused=self._is_focused(place),
                overs=self._overs(place),
                note=self._note() if number == last else "",
            )
            for number, (place, strip) in enumerate(found)
        ]
        return strips + [blank] * (count - len(strips))

    def _is_focused(self, place: Place) -> bool:
        return False

    def _overs(self, place: Place) -> tuple[Over, ...]:
        selection = self.text_selection
        return () if selection is None or not self._document.owns(place) else selected_part(selection, place)

    def _note(self) -> str:
        """What is said at the lower right corner while there is new text below."""
        return " ▼ new text below "

    @property
    def _pen(self) -> Drawing:
        if self._drawing is None:
            self._drawing = Drawing(self.outer_size.width, self._columns, self.rich_style, read_marks(self))
        return self._drawing

    @property
    def _style(self) -> Style:
        return self._drawing.format[2] if self._drawing is not None else self.rich_style

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
            self._palette = read_palette(self)
        if self._document.set_format(self._columns, self._palette):
            self.refresh()
        return True

    # Where the reader is

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

    def _grown(self, number: int) -> None:
        """Take in that a message got new text."""
        self._lay_out(changed=number)
        self._set_unseen(not self._following)

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
        self._refresh_rows(y - self.scroll_offset.y, self._rows)

    def _refresh_rows(self, first: int, end: int) -> None:
        """Draw some rows of the view again."""
        first, end = max(0, first), min(end, self._rows)
        if first < end:
            self.refresh(Region(0, first, self._columns, end - first))

    def _follow(self, following: bool) -> None:
        if following:
            self._set_unseen(False)
        if following != self._following:
            self._following = following
            self.post_message(self.FollowChanged(self, following))

    def _set_unseen(self, unseen: bool) -> None:
        if unseen != self._unseen:
            self._unseen = unseen
            self._refresh_rows(self._rows - 1, self._rows)
