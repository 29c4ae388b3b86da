"""What the doctor finds, as data and as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec
from rich.cells import cell_len

from quantchat.domain.text import clean

Level = Literal["green", "yellow", "red"]
LEVELS: tuple[Level, ...] = ("green", "yellow", "red")
MARKS: dict[Level, str] = {"green": "✓", "yellow": "!", "red": "✗"}
LABEL = 22
"""Columns of the titles."""
WIDE = 70


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        id: Stable machine name, such as `tmux.escape-time`.
        level: `red` keeps something from working, `yellow` makes it slow, fragile or incomplete.
        found: What is there and what that means, in one or two sentences.
        fix: Shell commands that mend it, one per line; empty where none does.
    """

    id: str
    title: str
    level: Level = "green"
    found: str = ""
    fix: str = ""

    def lines(self, width: int = 0) -> Iterator[str]:
        """Write it as people read it: mark, title and what was found, then the commands.

        Args:
            width: Cells of a line to break the words at, 0 for none; commands stay whole, to be copied.
        """
        title = clean(self.title, newlines=False)
        title += " " * (LABEL - cell_len(title))
        line = f"{MARKS[self.level]} {title} {clean(self.found, newlines=False)}".rstrip()
        yield from wrapped(line, width, LABEL + 3 if width >= WIDE else 2) if width else [line]
        yield from (f"    {clean(command, newlines=False)}" for command in self.fix.splitlines())


def wrapped(text: str, width: int, indent: int) -> Iterator[str]:
    """Break a text between words, by the cells that they take on a terminal; what follows is indented."""
    line, start = "", " " * indent
    for gap, word in re.findall(r"(\s*)(\S+)", text):
        if cell_len(line + gap + word) <= width:
            line += gap + word
        elif cell_len(start + word) <= width:
            yield line
            line = start + word
        else:
            *full, line = _broken(line + gap, word, width, start)
            yield from full
    yield line


def _broken(line: str, word: str, width: int, start: str) -> Iterator[str]:
    """Break a word that is longer than a line, such as a path."""
    for character in word:
        if cell_len(line + character) > width and line.strip():
            yield line.rstrip()
            line = start if len(start) + 2 <= width else ""
        line += character
    yield line


class Report(msgspec.Struct, frozen=True):
    """All findings of one examination, as `--json` prints them."""

    worst: Level
    findings: tuple[Finding, ...]


def report(findings: Iterable[Finding]) -> Report:
    """Gather findings, with the worst of their levels."""
    found = tuple(_sayable(finding) for finding in findings)
    return Report(max((finding.level for finding in found), key=LEVELS.index, default="green"), found)


def _sayable(finding: Finding) -> Finding:
    """Replace the bytes of file names that are no characters; JSON has none for them."""
    fields = {name: text.encode("utf-8", "replace").decode() for name, text in msgspec.structs.asdict(finding).items()}
    return msgspec.structs.replace(finding, **fields)


def summary(findings: Sequence[Finding]) -> str:
    """Count the findings by level, in a line."""
    counted = {level: sum(finding.level == level for finding in findings) for level in reversed(LEVELS)}
    return ", ".join(f"{count} {level}" for level, count in counted.items() if count)


def text(findings: Iterable[Finding]) -> str:
    """Write findings as plain lines, to read or to copy."""
    return "\n".join(line for finding in findings for line in finding.lines())
