"""A download on an ordinary terminal: what it will bring, a question, bars; or JSON lines for a program."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

import click
import msgspec
from rich.cells import cell_len

from quantchat.cli.common import say
from quantchat.cli.stoppable import run_stoppable
from quantchat.domain.memory import format_bytes
from quantchat.domain.text import clean, shortened
from quantchat.errors import Cancelled, FetchError, QuantchatError, UsageError
from quantchat.services.pull.client import describe, events_of, search
from quantchat.services.pull.describing import plan_lines, progress_line
from quantchat.services.pull.files import RemoteFile, is_weights
from quantchat.services.pull.names import parse_name
from quantchat.services.pull.plan import Plan, make_plan
from quantchat.services.pull.progress import Progress, Tracker
from quantchat.services.pull.words import Describe, Fetch, Fetched, Moved, Search

if TYPE_CHECKING:
    from rich.progress import TaskID

STOPPED = Cancelled("Stopped", "What has arrived is kept", "Run the same command again to go on")
TITLE, BAR = 20, 10
"""Cells of a bar's line: it must fit into 80 columns with the words of the whole download."""
NAME_CELLS = 56
LISTED = 40
"""More files than this are only counted."""
STEPS = 10
"""Lines that tell how far a download is, where nobody watches it on a terminal."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line said."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    everything: bool = False
    yes: bool = False
    dry_run: bool = False
    as_json: bool = False


def pull_model(name: str, options: Options) -> str:
    """Download a model, after saying what that means; return its folder, empty after a dry run.

    Raises:
        QuantchatError: if it cannot be had.
    """
    show: Shown = JsonLines() if options.as_json else Lines()
    try:
        task = Describe(
            wanted=parse_name(name), include=options.include, exclude=options.exclude, everything=options.everything
        )
        plan = run_stoppable(_plan(task, show), STOPPED)
        if options.dry_run:
            return ""
        fetch = plan.task()
        _require_weights(plan, options)
        if not (options.as_json or options.yes) and plan.missing:
            _ask(plan)
        folder = run_stoppable(_download(plan, fetch, show), STOPPED)
        show.done(plan, folder)
    except click.Abort:
        # Ctrl+C or Ctrl+D instead of an answer.
        raise Cancelled("Nothing was downloaded") from None
    except QuantchatError as error:
        show.failed(error)
        raise
    return folder


def show_search(words: str, *, as_json: bool) -> None:
    """Print the models that a search finds.

    Raises:
        QuantchatError: if the hub does not allow it.
    """
    hits = run_stoppable(search(Search(words=words), _tell_waiting), Cancelled("Stopped")).hits
    if as_json:
        click.echo(msgspec.json.encode(hits))
        return
    for hit in hits:
        tags = " ".join(tag for tag in hit.tags if ":" not in tag)
        say(shortened(f"{hit.repository}  {hit.downloads:,} downloads{'  gated' * hit.gated}  {tags}", 160))
    if not hits:
        click.echo("Nothing was found.", err=True)


class Shown(Protocol):
    """How a download is told."""

    def waiting(self, note: str) -> None:
        """Tell what the look-up waits for."""

    def plan(self, plan: Plan, lines: list[str]) -> None:
        """Tell what will come."""

    def moved(self, plan: Plan, tracker: Tracker, progress: Progress) -> None:
        """Tell how far it is."""

    def done(self, plan: Plan, folder: str) -> None:
        """Tell where it is."""

    def failed(self, error: QuantchatError) -> None:
        """Tell a program; people read it on stderr."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class JsonLines:
    """One object per line on stdout; `event` is waiting, plan, progress, done or error."""

    def waiting(self, note: str) -> None:
        """Print why nothing comes."""
        self._print("waiting", note=note)

    def plan(self, plan: Plan, lines: list[str]) -> None:
        """Print all files."""
        taken = {file.path for file in plan.files}
        self._print(
            "plan",
            repository=plan.wanted.repository,
            revision=plan.wanted.revision,
            commit=plan.described.commit,
            files=[
                {"path": offer.file.path, "size": offer.file.size, "taken": offer.file.path in taken}
                | ({"reason": offer.reason} if offer.reason else {})
                for offer in plan.described.offers
            ],
            bytes=plan.total,
            missing=plan.missing,
            free=plan.free,
            model=plan.model,
            notes=lines,
        )

    def moved(self, plan: Plan, tracker: Tracker, progress: Progress) -> None:
        """Print totals and every file that is under way."""
        active = [file for file in tracker.files.values() if file.state in ("fetching", "checking")]
        self._print("progress", **msgspec.structs.asdict(progress), active=active)

    def done(self, plan: Plan, folder: str) -> None:
        """Print the folder."""
        self._print("done", path=folder, bytes=plan.total)

    def failed(self, error: QuantchatError) -> None:
        """Print the error's report."""
        self._print("error", **msgspec.structs.asdict(error.report))

    def close(self) -> None:
        """Nothing is left open."""

    def _print(self, event: str, **what: object) -> None:
        click.echo(msgspec.json.encode({"event": event, **what}))


class Lines:
    """Words on stdout, bars on stderr; where that is no terminal, a line now and then."""

    def __init__(self) -> None:
        self._bars: _Bars | None = None
        self._step = 0

    def waiting(self, note: str) -> None:
        """Say why nothing comes."""
        _tell_waiting(note)

    def plan(self, plan: Plan, lines: list[str]) -> None:
        """Print the files that will come, and what there is to know."""
        for line in [*file_lines(plan.files), *lines]:
            say(line)

    def moved(self, plan: Plan, tracker: Tracker, progress: Progress) -> None:
        """Draw a bar per file under way, and one for all; or say what part of it is there."""
        if not sys.stderr.isatty():
            self._say_step(progress)
            return
        if self._bars is None:
            self._bars = _Bars({file.path: file.size for file in plan.files})
        self._bars.draw(tracker, progress)

    def _say_step(self, progress: Progress) -> None:
        step = int(progress.share * STEPS)
        if self._step < step < STEPS:
            self._step = step
            say(f"{progress.share:.0%} {progress_line(progress)}", err=True)

    def done(self, plan: Plan, folder: str) -> None:
        """Print the folder."""
        say(folder)

    def failed(self, error: QuantchatError) -> None:
        """The caller tells."""

    def close(self) -> None:
        """End the bars."""
        if self._bars is not None:
            self._bars.stop()


def file_lines(files: Sequence[RemoteFile]) -> list[str]:
    """Name files and their sizes, the sizes below each other unless a name is very long."""
    names = [clean(file.path, newlines=False) for file in files[:LISTED]]
    width = min(max(map(cell_len, names), default=0), NAME_CELLS)
    lines = [
        f"  {name}{' ' * (width - cell_len(name))}  {format_bytes(file.size):>9}"
        for name, file in zip(names, files, strict=False)
    ]
    if further := files[LISTED:]:
        lines.append(f"  and {len(further):,} more files, {format_bytes(sum(file.size for file in further))}")
    return lines


def _tell_waiting(note: str) -> None:
    say(f"{note[:1].upper()}{note[1:]}", err=True)


class _Bars:
    """rich's bars on a terminal."""

    def __init__(self, sizes: dict[str, int]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.fields[title]}", markup=False),
            BarColumn(BAR),
            TextColumn("{task.fields[words]}", markup=False),
        )
        self._sizes = sizes
        self._rich = Progress(*columns, console=Console(stderr=True), transient=True)
        self._whole = self._rich.add_task("", total=sum(sizes.values()), title="all".ljust(TITLE), words="")
        self._files: dict[str, TaskID] = {}
        self._rich.start()

    def draw(self, tracker: Tracker, progress: Progress) -> None:
        """Show how things stand."""
        for path, file in tracker.files.items():
            active = file.state in ("fetching", "checking")
            if active and path not in self._files:
                title = shortened(path, TITLE).ljust(TITLE)
                self._files[path] = self._rich.add_task("", total=self._sizes[path], title=title, words="")
            if not active and path in self._files:
                self._rich.remove_task(self._files.pop(path))
            elif active:
                words = file.note or ("checking" if file.state == "checking" else format_bytes(self._sizes[path]))
                words = shortened(words, 80 - TITLE - BAR - 2)
                self._rich.update(self._files[path], completed=file.done, words=words)
        self._rich.update(self._whole, completed=progress.done, words=progress_line(progress))

    def stop(self) -> None:
        """Take the bars away."""
        self._rich.stop()


async def _plan(task: Describe, show: Shown) -> Plan:
    from quantchat.services.memory import look_once

    plan = make_plan(await describe(task, show.waiting))
    view = await look_once()
    show.plan(plan, plan_lines(plan, view))
    return plan


async def _download(plan: Plan, fetch: Fetch, show: Shown) -> str:
    tracker = Tracker(plan.files)
    try:
        async with aclosing(events_of(fetch)) as events:
            async for event in events:
                if isinstance(event, Moved):
                    show.moved(plan, tracker, tracker.take(event))
                elif isinstance(event, Fetched):
                    return event.folder
    finally:
        show.close()
    raise FetchError("The download ended without a word")


def _require_weights(plan: Plan, options: Options) -> None:
    """A script that asks for a model and gets its readme must hear of it."""
    chosen = options.include or options.exclude or options.everything
    if not chosen and plan.why_no_weights and any(is_weights(offer.file.path) for offer in plan.left_out):
        raise FetchError(f"No weights of {plan.wanted} would be fetched", plan.why_no_weights, code="no-weights")


def _ask(plan: Plan) -> None:
    if not sys.stdin.isatty():
        raise UsageError("Nobody can be asked here", remedy="Add --yes to download without a question")
    if not click.confirm(f"Download {format_bytes(plan.missing)}?", default=True, err=True):
        raise Cancelled("Nothing was downloaded")
