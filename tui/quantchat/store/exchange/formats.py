"""The formats in which sessions are written, as one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from quantchat.domain.chat import Session
from quantchat.errors import UsageError
from quantchat.store.exchange import html, markdown, messages, tree
from quantchat.store.exchange.parts import EVERYTHING, lacking, losses


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffix: How names of its files end.
        holds: Parts of sessions that it holds; see `parts`.
        readable: Whether `reading` makes sessions of it again.
        brackets: What stands before, between and behind several sessions in one file; None if only one fits into it.
    """

    name: str
    title: str
    suffix: str
    holds: frozenset[str]
    write: Callable[[Session], str]
    readable: bool = True
    brackets: tuple[str, str, str] | None = None

    def lacks(self) -> tuple[str, ...]:
        """Name what it cannot hold."""
        return lacking(self.holds)

    def losses(self, session: Session) -> tuple[str, ...]:
        """Name what of a session it leaves out."""
        return losses(session, self.holds)

    def document(self, sessions: Iterable[Session], *, several: bool) -> Iterator[str]:
        """Yield the pieces of a file."""
        start, between, end = self.brackets if self.brackets and several else ("", "", "")
        yield start
        for number, session in enumerate(sessions):
            yield (between if number else "") + self.write(session)
        yield end


ALONE = frozenset({"system", "controls"})
ASKED = ALONE | {"turns"}
READ = frozenset({"thinking", "models", "times", "title", "system", "tags", "empty", "turns", "unanswered"})

FORMATS = (
    Format("markdown", "Markdown: the branch that is shown, to read and to edit", ".md", READ, markdown.write_markdown),
    Format(
        "json", "JSON: the whole tree, to keep", ".json", EVERYTHING, tree.write_tree, brackets=("[\n", ",\n", "]\n")
    ),
    Format(
        "html",
        "HTML: a page that stands alone",
        ".html",
        READ | {"cards", "endings"},
        html.write_html,
        readable=False,
    ),
    Format(
        "messages",
        "Messages: roles and texts, as chat APIs take them",
        ".json",
        ASKED | {"unanswered"},
        messages.write_list,
    ),
    Format(
        "jsonl",
        "JSONL for fine-tuning: a line per session",
        ".jsonl",
        ASKED,
        messages.write_line,
        brackets=("", "", ""),
    ),
    Format(
        "jsonl-exchanges",
        "JSONL for fine-tuning: a line per question and answer",
        ".jsonl",
        ALONE,
        messages.write_exchanges,
        brackets=("", "", ""),
    ),
)
"""Of those with one suffix the first is meant by it."""


def find_format(name: str) -> Format:
    """Return the format of a name.

    Raises:
        UsageError: if there is none.
    """
    for known in FORMATS:
        if known.name == name.casefold():
            return known
    names = ", ".join(known.name for known in FORMATS)
    raise UsageError("There is no such format", f"{name[:40]!r} is none of {names}")


def format_of(file_name: str) -> Format:
    """Return the format that the suffix of a file's name means.

    Raises:
        UsageError: if it means none.
    """
    for known in FORMATS:
        if file_name.casefold().endswith(known.suffix):
            return known
    suffixes = ", ".join(dict.fromkeys(known.suffix for known in FORMATS))
    raise UsageError("The file's name does not say its format", f"it ends with none of {suffixes}", "Name the format")
