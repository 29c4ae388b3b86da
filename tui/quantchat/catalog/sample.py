"""The sample conversation, the forms in which templates want it, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from quantchat.domain.sections import Piece

QUESTION = "And of Italy?"
SAMPLE = (
    ("system", "You are a helpful assistant."),
    ("user", "What is the capital of France?"),
    ("assistant", "Paris."),
    ("user", QUESTION),
)
FORM_NOTES = (
    "",
    "It wants the content of messages as a list of parts.",
    "It takes no system message: quantchat puts its text before the first question.",
    "It takes no system message, and wants the content of messages as a list of parts.",
)
GUESSED = "What looks like a special token is marked; the vocabulary was not read."
LONGER = "The text is longer than is shown here."
MOST_PIECES = 1000
MOST_LINES = 500
LOOKS_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>")


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A sample conversation as the model gets it.

    Attributes:
        name: Name of the template, `default` unless the folder names several.
        file: Where it stands.
        others: Names of further templates.
        pieces: The text in its parts; empty if it could not be rendered.
        notes: What is worth knowing about the template, a sentence each.
        problem: Why it could not be rendered, in one line.
    """

    name: str = ""
    file: str = ""
    others: tuple[str, ...] = ()
    pieces: tuple[Piece, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(piece.text for piece in self.pieces)


Message = dict[str, object]


def forms() -> list[list[Message]]:
    """Return the sample in all forms, the usual one first."""
    plain: list[Message] = [{"role": role, "content": content} for role, content in SAMPLE]
    system, first, *rest = plain
    opening: Message = {"role": "user", "content": f"{system['content']}\n\n{first['content']}"}
    merged = [opening, *rest]
    return [plain, _in_parts(plain), merged, _in_parts(merged)]


def _in_parts(messages: list[Message]) -> list[Message]:
    return [message | {"content": [{"type": "text", "text": message["content"]}]} for message in messages]


def split(text: str, tokens: Iterable[str]) -> tuple[Piece, ...]:
    """Cut a text at its special tokens; of two that begin alike the longer one is meant."""
    longest = sorted(tokens, key=len, reverse=True)
    if not longest:
        return (Piece(text),) if text else ()
    parts = enumerate(re.split(f"({'|'.join(map(re.escape, longest))})", text))
    return tuple(Piece(part, special=index % 2 == 1) for index, part in parts if part)


def bounded(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Return as many pieces as a screen can draw at once."""
    return tuple(_within_lines(pieces[:MOST_PIECES]))


def _within_lines(pieces: Iterable[Piece]) -> Iterator[Piece]:
    left = MOST_LINES
    for piece in pieces:
        lines = piece.text.split("\n")
        yield piece if len(lines) <= left else Piece("\n".join(lines[:left]), special=piece.special)
        left -= len(lines) - 1
        if left <= 0:
            return
