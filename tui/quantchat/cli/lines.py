"""Questions, line by line: from a terminal with or without line editing, from a pipe, or from the command line."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import IO, Protocol

from quantchat.cli.descriptors import STDIN, read_some
from quantchat.domain.text import plain
from quantchat.errors import QuantchatError, UsageError
from quantchat.ui.commands import QUIT_WORDS

ASK, GO_ON = ">>> ", "... "
BLOCK = '"""'
TERMINAL_LINE = 4095
"""Bytes of a line that a terminal without line editing passes on; what is beyond them is lost on the way."""
DUMB = frozenset({"", "dumb"})


class CutLine(UsageError):
    """A line that did not come whole.

    Attributes:
        begun: What came of it.
    """

    def __init__(self, begun: str) -> None:
        detail = f"it passes on no more than {TERMINAL_LINE:,} bytes of one, so nothing of this question is asked"
        super().__init__("The terminal cut that line", detail, "Ask in shorter lines, or out of a file: -p - <FILE")
        self.begun = begun


class Lines(Protocol):
    """Where lines come from."""

    def line(self, prompt: str) -> str | None:
        """Return the next line without its end, asking for it with `prompt` where somebody sees it; None at the end.

        Raises:
            UsageError: if it is no text, or did not come whole.
            Exception: whatever the handler of a signal raises meanwhile.
        """


class Questions(Protocol):
    """What is asked, one after the other."""

    def next(self) -> str | None:
        """Return the next question; None when there is none any more. Raises as `Lines.line`."""


class GivenQuestions:
    """Those of the command line; `-` is all that comes through standard input."""

    def __init__(self, texts: Iterable[str], read_all: Callable[[], str]) -> None:
        self._texts = deque(texts)
        self._read_all = read_all

    def next(self) -> str | None:
        """Return the next one.

        Raises:
            UsageError: if it is empty: who gave it had something to ask.
        """
        if not self._texts:
            return None
        text = self._texts.popleft()
        question = plain(self._read_all() if text == "-" else text)
        if not question.strip():
            raise UsageError("There is nothing to ask", "standard input is empty" if text == "-" else "-p has no text")
        return question


class TypedQuestions:
    """Puts lines together: a line, several after a trailing backslash, or a block between triple quotes.

    The end of the input also ends what is begun. Blank lines say nothing, and a line that says to leave ends them all.
    A line that was cut is told at once; the rest of its block is read and dropped, for it is no question by itself.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._dropping = False

    def next(self) -> str | None:
        """Return the next question."""
        self._drop_rest()
        while (line := self._line(ASK)) is not None:
            if line.strip().lower().removeprefix("/") in QUIT_WORDS:
                return None
            question = plain(self._whole(line))
            if question.strip():
                return question
        return None

    def _whole(self, line: str) -> str:
        opened = line.lstrip()
        return self._block(opened[len(BLOCK) :]) if opened.startswith(BLOCK) else self._continued(line)

    def _line(self, prompt: str, *, in_block: bool = False) -> str | None:
        try:
            return self._lines.line(prompt)
        except CutLine as cut:
            self._dropping = in_block or cut.begun.lstrip().startswith(BLOCK)
            raise

    def _drop_rest(self) -> None:
        # A signal that breaks into the waiting ends this, too.
        dropping, self._dropping = self._dropping, False
        while dropping:
            with contextlib.suppress(CutLine):
                line = self._lines.line(GO_ON)
                dropping = line is not None and not line.rstrip().endswith(BLOCK)

    def _block(self, first: str) -> str:
        lines: list[str] = []
        line: str | None = first
        while line is not None:
            if line.rstrip().endswith(BLOCK):
                lines.append(line.rstrip()[: -len(BLOCK)])
                break
            lines.append(line)
            line = self._line(GO_ON, in_block=True)
        # The quotes usually stand on lines of their own.
        return "\n".join(lines).strip("\n")

    def _continued(self, line: str) -> str:
        lines: list[str] = []
        while _goes_on(line):
            lines.append(line[:-1])
            following = self._line(GO_ON)
            if following is None:
                return "\n".join(lines)
            line = following
        return "\n".join([*lines, line])


def _goes_on(line: str) -> bool:
    """Two backslashes are text, as at the end of a line of LaTeX."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


class StreamLines:
    """Lines of a pipe, or of a terminal as it is; `show` gets the prompts, which nobody needs to see in a pipe."""

    def __init__(self, descriptor: int, show: IO[str] | None = None) -> None:
        self._descriptor, self._show = descriptor, show
        self._terminal = os.isatty(descriptor)
        self._held = b""
        self._number = 0
        self._ended = False

    def line(self, prompt: str) -> str | None:
        """Return the next line."""
        if self._show is not None:
            self._show.write(prompt)
            self._show.flush()
        while b"\n" not in self._held and not self._ended:
            self._read()
        data, newline, self._held = self._held.partition(b"\n")
        # Ctrl+D ends one question of a terminal, not all of them.
        self._ended = self._ended and not self._terminal
        if not (data or newline):
            return None
        self._number += 1
        if self._terminal and len(data) >= TERMINAL_LINE:
            raise CutLine(self._text(data))
        return self._text(data.removesuffix(b"\r"))

    def _read(self) -> None:
        try:
            data = read_some(self._descriptor)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # The terminal is gone.
            data, self._terminal = b"", False
        self._held += data
        self._ended = not data

    def _text(self, data: bytes) -> str:
        if self._terminal:
            return data.decode(sys.stdin.encoding or "utf-8", "replace")
        try:
            return data.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _no_text(f"byte {error.start + 1} of line {self._number}") from error


class EditedLines:
    """Lines of a terminal, edited with the readline library, which recalls earlier questions."""

    def __init__(self) -> None:
        import readline

        self._readline = readline
        readline.set_auto_history(False)
        # Bytes that are no text become marks in the question, as they do without line editing.
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")

    def line(self, prompt: str) -> str | None:
        """Return the next line."""
        try:
            return input(prompt)
        except EOFError:
            return None

    @property
    def typed(self) -> str:
        """What stands in the line."""
        return self._readline.get_line_buffer()

    def recall(self, questions: Iterable[str]) -> None:
        """Offer questions to be asked again, the last one first."""
        for question in questions:
            self._readline.add_history(plain(question))


def read_all() -> str:
    """Return all of standard input.

    Raises:
        UsageError: if it is no text.
    """
    data = bytearray()
    while piece := read_some(STDIN):
        data += piece
    try:
        return data.decode("utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise _no_text(f"byte {error.start + 1}") from error


def _no_text(where: str) -> UsageError:
    return UsageError("Standard input is no UTF-8 text", f"{where} does not belong there", code="text")


class Recall:
    """What was asked at a terminal with line editing can be asked again, also in the screen and the next time."""

    def __init__(self, lines: EditedLines) -> None:
        from quantchat.domain.attachments import Draft
        from quantchat.store.history import Entry, PromptHistory

        self._lines = lines
        self._entry: Callable[[str], Entry] = lambda text: Entry.of(Draft(text))
        self._history = PromptHistory()
        lines.recall(entry.text for entry in self._history.entries() if not entry.attachments)

    def add(self, question: str) -> None:
        """Keep a question; a home that cannot be written costs the recall alone."""
        self._lines.recall([question])
        with contextlib.suppress(QuantchatError):
            self._history.append(self._entry(question))


def edits(term: str) -> bool:
    """Whether lines can be edited here: a person types, sees what is typed, and the terminal can move its cursor."""
    # Some Pythons are built without the library.
    able = term not in DUMB and importlib.util.find_spec("readline") is not None
    return able and sys.stdin.isatty() and sys.stdout.isatty()
