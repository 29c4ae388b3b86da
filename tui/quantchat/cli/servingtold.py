"""How a server's start is told: a bar on a terminal, a line per step elsewhere, or JSON lines for a program."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

import click
import msgspec

from quantchat.cli.common import say
from quantchat.domain.text import clean
from quantchat.errors import QuantchatError
from quantchat.services.serving.plan import KEY_VARIABLE, ServePlan
from quantchat.services.serving.stages import Stage

if TYPE_CHECKING:
    from rich.progress import Progress

KEYLESS = f"# Without {KEY_VARIABLE} in its environment the server asks for no key."


class Told(Protocol):
    """Who tells."""

    def plan(self, plan: ServePlan) -> None:
        """Tell what will be run."""

    def stage(self, stage: Stage) -> None:
        """Tell how far it is."""

    def note(self, text: str) -> None:
        """Tell something beside."""

    def ready(self, plan: ServePlan, seconds: float, figures: dict[str, str], key_file: str) -> None:
        """Tell that it answers."""

    def failed(self, error: QuantchatError) -> None:
        """Tell a program why it ended; people read it on stderr."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def as_object(plan: ServePlan) -> dict[str, object]:
    """Return a plan for a program."""
    return {
        "backend": plan.backend,
        "command": plan.command,
        "environment": plan.environment,
        "shell": plan.shell(),
        "before": list(plan.cluster),
        "url": plan.url,
        "model": plan.model,
        "context": plan.context or None,
        "notes": list(plan.notes),
    }


def print_plan(plan: ServePlan, *, as_json: bool) -> None:
    """Print a command to be copied: it alone is no comment."""
    if as_json:
        click.echo(msgspec.json.encode(as_object(plan)))
        return
    for line in (*plan.cluster, *(f"# {note}" for note in plan.notes), *([KEYLESS] if plan.keyed else [])):
        say(clean(line, newlines=False))
    say(plan.shell())


class Lines:
    """Words on stderr; what others need is on stdout."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._title = ""

    def plan(self, plan: ServePlan) -> None:
        """Show the command and the notes."""
        for line in (*plan.cluster, *plan.notes):
            say(clean(line, newlines=False), err=True)
        say(f"$ {plan.shell()}", err=True)

    def stage(self, stage: Stage) -> None:
        """Draw the step, or say it once where nobody watches a bar."""
        if sys.stderr.isatty():
            self._draw(stage)
        elif stage.title != self._title:
            say(f"… {stage.title}", err=True)
        self._title = stage.title

    def _draw(self, stage: Stage) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        if self._bar is None:
            columns = TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn()
            # A bar of unknown length would be in motion all the time, which costs a slow line dear.
            self._bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=4, transient=True)
            self._bar.add_task("", total=1)
            self._bar.start()
        task = self._bar.task_ids[0]
        self._bar.update(task, description=stage.title, completed=stage.done, total=stage.total or 1)

    def note(self, text: str) -> None:
        """Say it on stderr."""
        self.close()
        say(text, err=True)

    def ready(self, plan: ServePlan, seconds: float, figures: dict[str, str], key_file: str) -> None:
        """Print where it is served, and how to get in."""
        self.close()
        told = ", ".join(f"{name} {value}" for name, value in figures.items())
        say(f"Ready after {seconds:.0f} s{f': {told}' if told else ''}.", err=True)
        if key_file:
            say(f"{plan.model} is served at {plan.url}")
            say(f"The key: {key_file}" if plan.keyed else "It asks for no key.")
            say("Ctrl+C ends it.", err=True)

    def failed(self, error: QuantchatError) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Take the bar away."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()


class JsonLines:
    """One object per line on stdout; `event` is plan, stage, note, ready or error."""

    def plan(self, plan: ServePlan) -> None:
        """Print all of it."""
        self._print("plan", **as_object(plan))

    def stage(self, stage: Stage) -> None:
        """Print the step."""
        self._print("stage", **msgspec.structs.asdict(stage))

    def note(self, text: str) -> None:
        """Print the words."""
        self._print("note", text=text)

    def ready(self, plan: ServePlan, seconds: float, figures: dict[str, str], key_file: str) -> None:
        """Print where it is served."""
        key = key_file if plan.keyed else None
        self._print("ready", url=plan.url, model=plan.model, key=key, seconds=seconds, figures=figures)

    def failed(self, error: QuantchatError) -> None:
        """Print the error's report."""
        self._print("error", **msgspec.structs.asdict(error.report))

    def close(self) -> None:
        """Nothing is left open."""

    def _print(self, event: str, **what: object) -> None:
        click.echo(msgspec.json.encode({"event": event, **what}))
