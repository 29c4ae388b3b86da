"""A text area that holds attachments: in its text each stands as a token, which is whole or gone."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.document._document import EditResult, Selection
from textual.document._edit import Edit
from textual.strip import Strip
from textual.widgets import TextArea

from quantchat.domain.attachments import Attachment, Draft, next_number
from quantchat.domain.text import clean

Location = tuple[int, int]
_TOKEN_STYLE = Style(bold=True, italic=True)


class TokenArea(TextArea):
    """Keeps tokens whole, and keeps what a terminal would obey off the screen while it stays in the text."""

    _held: dict[str, Attachment]
    _clipped = Draft()
    """What was cut or copied here last; its tokens still mean something when it is pasted, in any session."""

    @property
    def draft(self) -> Draft:
        """The text and the attachments whose tokens stand in it."""
        text = self.text
        held = self.__dict__.get("_held", {})
        return Draft(text, tuple(attachment for token, attachment in held.items() if token in text))

    def load_draft(self, draft: Draft) -> None:
        """Show a draft with the cursor behind it."""
        self._held = {attachment.token: attachment for attachment in draft.attachments}
        self.load_text(draft.text)
        self.move_cursor(self.document.end)

    def rewrite(self, draft: Draft) -> None:
        """Put a draft in place of everything; undo leads back."""
        self._held |= {attachment.token: attachment for attachment in draft.attachments}
        self.replace(draft.text, (0, 0), self.document.end)
        self.move_cursor(self.document.end)

    def attach(self, text: str, name: str = "") -> None:
        """Put an attachment at the cursor."""
        number = next_number("\n".join((self.text, *self._held)))
        attachment = Attachment.file(number, name, text) if name else Attachment(number=number, text=text)
        self._held[attachment.token] = attachment
        self._replace_via_keyboard(attachment.token, *self.selection)

    def action_cut(self) -> None:
        held = self.draft.attachments
        super().action_cut()
        self._clip(held)

    def action_copy(self) -> None:
        super().action_copy()
        self._clip(self.draft.attachments)

    def _clip(self, held: tuple[Attachment, ...]) -> None:
        text = self.app.clipboard
        self._clipped = Draft(text, tuple(attachment for attachment in held if attachment.token in text))

    def put_clipped(self, text: str) -> bool:
        """Put a text at the cursor if it was cut or copied here with attachments; say whether it was."""
        if not self._clipped.attachments or text != self._clipped.text:
            return False
        number = next_number("\n".join((self.text, text, *self._held)))
        for attachment in self._clipped.attachments:
            if self._held.get(attachment.token, attachment) != attachment:
                renumbered = structs.replace(attachment, number=number)
                text, number = text.replace(attachment.token, renumbered.token), number + 1
                attachment = renumbered
            self._held[attachment.token] = attachment
        self._replace_via_keyboard(text, *self.selection)
        return True

    def edit(self, edit: Edit) -> EditResult:
        return super().edit(self._with_whole_tokens(edit) if self._held else edit)

    def _with_whole_tokens(self, edit: Edit) -> Edit:
        first, last = self._token_around(edit.top), self._token_around(edit.bottom)
        if edit.top == edit.bottom and first:
            return replace(edit, from_location=first[1], to_location=first[1])
        top = first[0] if first else edit.top
        bottom = last[1] if last else edit.bottom
        return replace(edit, from_location=top, to_location=bottom)

    def _token_around(self, location: Location) -> tuple[Location, Location] | None:
        """Return both ends of the token that a location lies within."""
        row, column = location
        line = self.document.get_line(row) if row < self.document.line_count else ""
        for token in self._held:
            start = line.rfind(token, 0, column + len(token) - 1) if token in line else -1
            if start >= 0 and start < column < start + len(token):
                return (row, start), (row, start + len(token))
        return None

    def get_cursor_left_location(self) -> Location:
        location = super().get_cursor_left_location()
        token = self._token_around(location) if self._held else None
        return token[0] if token else location

    def get_cursor_right_location(self) -> Location:
        location = super().get_cursor_right_location()
        token = self._token_around(location) if self._held else None
        return token[1] if token else location

    def _refresh_size(self) -> None:
        # Undo takes lines away before it moves the cursor, and a scrollbar that goes with them looks for the cursor.
        if self.cursor_location[0] >= self.document.line_count:
            self.selection = Selection.cursor(self.document.end)
        super()._refresh_size()

    def get_line(self, line_index: int) -> Text:
        line = super().get_line(line_index)
        for token in self._held:
            start = line.plain.find(token)
            if start >= 0:
                line.stylize(_TOKEN_STYLE, start, start + len(token))
        return line

    def render_line(self, y: int) -> Strip:
        if not self.content_size.width:
            # Textual cannot wrap the placeholder there.
            return Strip([])
        strip = super().render_line(y)
        if all(clean(segment.text) == segment.text for segment in strip):
            return strip
        shown = Strip([Segment(clean(segment.text), segment.style) for segment in strip])
        return shown.extend_cell_length(strip.cell_length, self.rich_style)
