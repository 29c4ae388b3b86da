"""The blocks of code in an answer."""

from __future__ import annotations

from dataclasses import dataclass

from quantchat.domain.text import clean


@dataclass(frozen=True, slots=True)
class Snippet:
    """A block of code as it was written, without its fence."""

    language: str
    code: str

    def describe(self, number: int, count: int) -> str:
        """Say which block this is: `code block 2 of 3, python, 14 lines`."""
        lines = self.code.count("\n") + 1
        size = f"{lines} line{'' if lines == 1 else 's'}"
        return ", ".join(part for part in (f"code block {number} of {count}", self.language, size) if part)


def snippets(markdown: str) -> list[Snippet]:
    """Return all blocks of code, also those in lists and quotes."""
    from quantchat.ui.transcript.blocks import language_of, parse

    return [
        Snippet(clean(language_of(node.token.info), newlines=False), node.token.content.rstrip("\n"))
        for node in parse(markdown, {}).walk()
        if node.kind in ("fence", "code_block")
    ]
