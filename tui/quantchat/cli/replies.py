"""What `quantchat run` says: answers on standard output, all else on standard error; or JSON lines for a program."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Protocol

import msgspec

from quantchat.cli.descriptors import STDERR, write_all
from quantchat.cli.lines import ASK, BLOCK, DUMB
from quantchat.cli.outlet import Filter, Outlet
from quantchat.domain.generation import TurnStatistics
from quantchat.domain.memory import format_bytes
from quantchat.domain.text import clean
from quantchat.domain.thinking import Channel
from quantchat.engine.protocol import LoadReport
from quantchat.errors import ErrorReport, QuantchatError
from quantchat.services.linechat import Reply
from quantchat.services.loads import LoadStatus

STEP_SECONDS = 0.1
WIDTH = 78
HELP = f"exit, quit, bye or Ctrl+D leaves, Ctrl+C stops an answer, {BLOCK} begins and ends several lines."
ENDS = {
    "length": "The answer was cut after {tokens} tokens (--max-tokens).",
    "context": "The answer was cut: the context window is full.",
    "stopped": "Stopped.",
}


class Show(Protocol):
    """Told of everything."""

    def loading(self, status: LoadStatus) -> None:
        """A load is further."""

    def loaded(self, report: LoadReport) -> None:
        """The model is there."""

    def asked(self, question: str) -> None:
        """A question is answered that was not typed now."""

    def text(self, channel: Channel, text: str) -> None:
        """Something more of an answer."""

    def end_text(self) -> None:
        """No more of it comes, for whatever reason."""

    def ended(self, reply: Reply) -> None:
        """The answer is complete, or was stopped."""

    def note(self, report: ErrorReport) -> None:
        """A warning."""

    def hint(self, text: str) -> None:
        """What a person may want to know who sits at a terminal."""

    def failed(self, error: QuantchatError) -> None:
        """Something did not work."""

    def saved(self, path: Path) -> None:
        """The history was written for the last time."""


class JsonLines:
    """One object per line; `event` is loading, loaded, question, text, answer, note, saved or error."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._stage = ""

    def loading(self, status: LoadStatus) -> None:
        """Print each stage once."""
        if status.stage != self._stage:
            self._stage = status.stage
            self._print("loading", stage=status.stage)

    def loaded(self, report: LoadReport) -> None:
        """Print what answers."""
        fields = ("name", "path", "kernel", "device", "dtype", "decoding", "context_window", "warnings")
        self._print("loaded", **{name: getattr(report, name) for name in fields})

    def asked(self, question: str) -> None:
        """Print it."""
        self._print("question", text=question)

    def text(self, channel: Channel, text: str) -> None:
        """Print it as it comes."""
        self._print("text", channel=channel, text=text)

    def end_text(self) -> None:
        """The whole answer follows, or an error."""

    def ended(self, reply: Reply) -> None:
        """Print the whole answer."""
        self._print("answer", **msgspec.structs.asdict(reply) | {"statistics": _all(reply.statistics)})

    def note(self, report: ErrorReport) -> None:
        """Print it."""
        self._print("note", **msgspec.structs.asdict(report))

    def hint(self, text: str) -> None:
        """Programs need none."""

    def failed(self, error: QuantchatError) -> None:
        """Print the report, and for who watches the sentence."""
        self._print("error", **msgspec.structs.asdict(error.report))
        tell(f"quantchat: {error}")

    def saved(self, path: Path) -> None:
        """Print where."""
        self._print("saved", path=str(path))

    def _print(self, event: str, **what: object) -> None:
        from quantchat.store.schema import encode_json

        self._outlet.write(encode_json({"event": event, **what}) + b"\n")


def _all(statistics: TurnStatistics) -> dict[str, object]:
    rate = {"tokens_per_second": round(statistics.tokens_per_second, 2)}
    return msgspec.structs.asdict(statistics) | rate


class Plain:
    """For people and pipes.

    Args:
        typed: A person types the questions at a terminal.
        thinking: What the model thinks is shown on standard error.
        verbose: So is what each answer cost.
    """

    def __init__(self, outlet: Outlet, *, typed: bool, thinking: bool, verbose: bool) -> None:
        self._outlet, self._typed, self._thinking, self._verbose = outlet, typed, thinking, verbose
        self._encoding = sys.stdout.encoding or "utf-8"
        self._shown = sys.stdout.isatty()
        self._progress = Progress()
        self._begin()

    def _begin(self) -> None:
        self._filter = Filter(shown=self._shown)
        self._last = self._last_thought = ""

    def loading(self, status: LoadStatus) -> None:
        """Show how far it is, if somebody watches."""
        self._progress.show(status)

    def loaded(self, report: LoadReport) -> None:
        """Say what answers, and what should be known about it."""
        self._progress.close()
        for warning in report.warnings:
            tell(f"quantchat: {warning}")
        self.hint(f"{report.name} · {report.kernel} · {report.device}\n{HELP}\n")

    def asked(self, question: str) -> None:
        """Repeat it where questions stand."""
        self.hint(f"{ASK}{question}")

    def text(self, channel: Channel, text: str) -> None:
        """Write an answer as it comes; thoughts go where they cannot be taken for it."""
        if channel == "thinking":
            self._thought(text)
            return
        if self._last_thought:
            self._end_thought()
        self._write(self._filter.feed(text))

    def _thought(self, text: str) -> None:
        if self._thinking:
            self._last_thought = text
            tell(text, end="")
        elif not self._last_thought:
            self._last_thought = "…"
            self.hint("Thinking …")

    def _end_thought(self) -> None:
        if self._thinking:
            tell("\n" if self._last_thought.endswith("\n") else "\n\n", end="")
        self._last_thought = ""

    def _write(self, text: str) -> None:
        if text:
            self._last = text
            self._outlet.write(text.encode(self._encoding, "replace"))

    def end_text(self) -> None:
        """End the line."""
        self._progress.close()
        self._write(self._filter.flush())
        if self._last and not self._last.endswith("\n"):
            self._write("\n")
        if self._last_thought:
            self._end_thought()
        self._begin()

    def ended(self, reply: Reply) -> None:
        """Say why it ended where that is not the usual, and what it cost."""
        how = ENDS.get(reply.finish_reason, "" if reply.text else "The answer is empty.")
        if how and (self._typed or reply.finish_reason != "stopped"):
            tell(how.format(tokens=reply.statistics.new_tokens))
        if reply.dropped:
            tell(f"The model did not see the {reply.dropped} oldest messages: the context window is full.")
        if self._verbose:
            tell(cost(reply.statistics))
        self.hint("")

    def note(self, report: ErrorReport) -> None:
        """Print it."""
        self._progress.close()
        tell(f"quantchat: {report.sentence()}")

    def hint(self, text: str) -> None:
        """Print it for a person."""
        if self._typed:
            tell(text)

    def failed(self, error: QuantchatError) -> None:
        """Print it."""
        self._progress.close()
        tell(f"quantchat: {error}")

    def saved(self, path: Path) -> None:
        """Print where."""
        self.hint(f"Saved to {path}")


def cost(statistics: TurnStatistics) -> str:
    """Say in a line what an answer cost."""
    reused = f" ({statistics.reused_tokens} kept from before)" if statistics.reused_tokens else ""
    return (
        f"{statistics.new_tokens} tokens at {statistics.tokens_per_second:.1f} per second, the first after "
        f"{statistics.prefill_seconds:.2f} s, prompt {statistics.prompt_tokens} tokens{reused}"
    )


def tell(text: str, end: str = "\n") -> None:
    """Write to standard error; nothing in it commands the terminal, and nobody need be there."""
    data = (clean(text) + end).encode(sys.stderr.encoding or "utf-8", "replace")
    with contextlib.suppress(OSError):
        write_all(STDERR, data)


class Progress:
    """A line about the load on a terminal, written over each time; line by line where a terminal cannot do that."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()
        self._dumb = os.environ.get("TERM", "") in DUMB
        self._stage = ""
        self._width = 0
        self._next = 0.0

    def show(self, status: LoadStatus) -> None:
        """Show a step."""
        if not self._watched or (self._dumb and status.stage == self._stage):
            return
        now = time.monotonic()
        if status.stage == self._stage and now < self._next:
            return
        self._stage, self._next = status.stage, now + STEP_SECONDS
        words = f"Loading {status.model.name}: {status.stage}"
        if self._dumb:
            tell(words)
        else:
            self._over(f"{words} {_share(status)}".rstrip()[:WIDTH])

    def _over(self, line: str) -> None:
        line = clean(line, newlines=False)
        _put(f"\r{line:<{self._width}}")
        self._width = len(line)

    def close(self) -> None:
        """Leave an empty line."""
        if self._width:
            _put(f"\r{'':<{self._width}}\r")
            self._width = 0


def _share(status: LoadStatus) -> str:
    if not status.total:
        return ""
    if status.unit == "bytes":
        return f"{format_bytes(status.done)} of {format_bytes(status.total)}"
    return f"{status.done} of {status.total}"


def _put(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode(sys.stderr.encoding or "utf-8", "replace"))
