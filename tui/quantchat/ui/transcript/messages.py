"""A message as the transcript shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["user", "assistant", "note"]
Tone = Literal["normal", "error", "queued", "interrupted"]


@dataclass(frozen=True, slots=True)
class MessageView:
    """One message, ready to be drawn.

    Attributes:
        text: Markdown for an answer, plain text for the user's words and for notes; shown cleaned, kept as it is.
        thinking: What the model thought before it answered; folded unless the reader wants it.
        label: Who speaks, such as `you` or the model's name.
        footer: What must be said about the message when it ended.
        figures: What else is known then, the most telling first; as much as its line has room for.
        streaming: More text may come by `Transcript.extend`.
    """

    id: str
    role: Role
    text: str
    label: str
    footer: str = ""
    figures: tuple[str, ...] = ()
    tone: Tone = "normal"
    streaming: bool = False
    thinking: str = ""
