"""The demo's preparation with progress bars on an ordinary terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from quantchat.cli.stoppable import run_stoppable
from quantchat.domain.memory import format_bytes
from quantchat.errors import Cancelled
from quantchat.services.demo import Demo
from quantchat.services.demo import Progress as Step

STOPPED = Cancelled("Stopped", "Nothing half made was left", "Run `quantchat demo` again to go on")


class Amount(ProgressColumn):
    """Bytes as sizes, everything else as counts."""

    def render(self, task: Task) -> Text:
        """Draw how far a step is."""
        if not task.total:
            return Text("")
        done, total = int(task.completed), int(task.total)
        if task.fields.get("unit") == "bytes":
            return Text(f"{format_bytes(done)} of {format_bytes(total)}")
        return Text(f"{done} of {total}")


class Bars:
    """One bar per step, made when the step begins."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def show(self, step: Step) -> None:
        """Draw a step's progress."""
        bar = self._bars.get(step.step)
        if bar is None:
            bar = self._bars[step.step] = self._progress.add_task(step.title, total=None, unit=step.unit)
        self._progress.update(
            bar, description=step.title, completed=step.done, total=step.total or None, unit=step.unit
        )


def prepare_demo() -> Path:
    """Make the demo's model, or find it made; return its folder.

    Raises:
        Cancelled: on Ctrl-C; nothing half made stays.
        QuantchatError: if a step fails.
    """
    columns = (TextColumn("{task.description}"), BarColumn(24), Amount(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        return run_stoppable(Demo().prepare(Bars(progress).show), STOPPED)
