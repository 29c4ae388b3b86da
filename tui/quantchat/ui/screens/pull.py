"""Fetching a model: a name or a search, its files and what they make, the download, which goes on behind the chat."""

from __future__ import annotations

import asyncio
import contextlib
import glob
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.screen import ModalScreen
from textual.widgets import Input, Static
from textual.worker import Worker

from quantchat.domain.memory import format_bytes
from quantchat.domain.text import clean
from quantchat.errors import QuantchatError
from quantchat.services.background import in_background
from quantchat.services.pull.client import describe, search
from quantchat.services.pull.describing import plan_lines
from quantchat.services.pull.files import Offer, is_weights
from quantchat.services.pull.jobs import Job, Pulls, State
from quantchat.services.pull.names import Wanted, looks_like_repository, parse_name
from quantchat.services.pull.plan import Plan, make_plan
from quantchat.services.pull.words import Describe, FileMoved, FileState, Hit, Search
from quantchat.ui.screens.dialogs import Panel
from quantchat.ui.status import meter
from quantchat.ui.widgets.field import Field
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import Row, RowList

if TYPE_CHECKING:
    from quantchat.services.memory import MemoryWatch

Shows = Literal["name", "hits", "files", "job"]
Work = Callable[[], Awaitable[None]]

HINTS: dict[Shows, str] = {
    "name": "Enter looks it up  Esc closes",
    "hits": "Enter shows its files  / another name  Esc closes",
    "files": "p downloads  Space takes or leaves a file  / another name  Esc closes",
    "job": "",
}
JOB_HINTS: dict[State, str] = {
    "running": "x stops  / another name  Esc closes, and it goes on",
    "done": "/ another name  Esc closes",
    "failed": "p goes on  / another name  Esc closes",
    "cancelled": "p goes on  / another name  Esc closes",
}
SETTLE_SECONDS = 0.5
"""Files that are taken and left one after the other are looked at once."""
BAR_CELLS = 20
MOST_ROWS = 200
"""A download that moves on is drawn anew twice a second."""
ORDER: dict[FileState, int] = {"failed": 0, "fetching": 1, "checking": 1, "waiting": 2, "done": 3}


def hit_row(hit: Hit) -> Row:
    """A repository that a search found."""
    detail = f"{hit.downloads:,} downloads{', gated' * hit.gated}"
    return Row(hit.repository, clean(hit.repository, newlines=False), detail)


def offer_row(offer: Offer, taken: bool) -> Row:
    """A file that can be taken, and why it is not by default."""
    detail = format_bytes(offer.file.size)
    if offer.reason and not taken:
        detail = f"{offer.reason}  {detail}"
    return Row(offer.file.path, clean(offer.file.path, newlines=False), detail, "●" if taken else " ", "$accent")


def moved_row(file: FileMoved, size: int) -> Row:
    """A file that is being fetched."""
    mark = {"done": "✓", "failed": "!", "fetching": "↓", "checking": "?"}.get(file.state, " ")
    style = {"done": "$success", "failed": "$error"}.get(file.state, "$accent")
    words = file.note or ("checking" if file.state == "checking" else "")
    share = f"{file.done / size:.0%} of " if size and file.state == "fetching" else ""
    return Row(
        file.path,
        clean(file.path, newlines=False),
        clean(f"{words}  {share}{format_bytes(size)}".strip(), newlines=False),
        mark,
        style,
    )


def job_rows(job: Job) -> list[Row]:
    """The files of a download; of very many those that matter now."""
    files = list(job.tracker.files.values())
    if len(files) > MOST_ROWS:
        files = sorted(files, key=lambda file: ORDER[file.state])[:MOST_ROWS]
    sizes = {file.path: file.size for file in job.plan.files}
    return [moved_row(file, sizes[file.path]) for file in files]


class PullScreen(ModalScreen[None]):
    """The dialog; Esc leaves a download running."""

    CSS_PATH = ["dialogs.tcss", "pull.tcss"]  # noqa: RUF012 - Textual declares it so
    AUTO_FOCUS = "#pull-name"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "close", "Close", priority=True),
        Binding("slash", "name", "Another name"),
        Binding("space", "take", "Take or leave"),
        Binding("p", "pull", "Download"),
        Binding("x", "stop", "Stop the download"),
    ]

    def __init__(self, pulls: Pulls, memory: MemoryWatch, name: str = "") -> None:
        super().__init__()
        self._pulls, self._memory, self._name_given = pulls, memory, clean(name, newlines=False)
        self._shows: Shows = "name"
        self._hits: dict[str, Hit] = {}
        self._plan: Plan | None = None
        self._taken: set[str] = set()
        self._job: Job | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -pull") as frame:
            frame.border_title = "Download a model"
            yield Field(self._name_given, placeholder="owner/name, or words to search for", id="pull-name")
            yield RowList(id="pull-rows", empty="")
            with Panel(id="pull-words") as panel:
                panel.can_focus = False
                yield Static(markup=False)
            yield Line(id="pull-progress")

    def on_mount(self) -> None:
        self._show("name")
        self._pulls.watchers.add(self._on_job)
        running = self._pulls.running
        if self._name_given:
            self._begin(self._name_given)
        elif running:
            self._show_job(running[-1])

    def on_unmount(self) -> None:
        self._pulls.watchers.discard(self._on_job)

    # What is shown

    @property
    def _rows(self) -> RowList:
        return self.query_one("#pull-rows", RowList)

    def _show(self, what: Shows, rows: Iterable[Row] = ()) -> None:
        new, self._shows = what != self._shows, what
        self.query_one(".dialog").border_subtitle = HINTS[what]
        self._rows.show(list(rows))
        # Only once: a download that moves on must not take the keys from who writes another name meanwhile.
        if new and what != "name":
            self.set_focus(self._rows)

    def _say(self, words: str, *, error: bool = False) -> None:
        self.query_one("#pull-words", Panel).set_class(error, "-error")
        self.query_one("#pull-words Static", Static).update(clean(words))

    def _say_progress(self, words: str) -> None:
        self.query_one("#pull-progress", Line).show(Content(clean(words, newlines=False)))

    # Looking up

    @on(Input.Submitted, "#pull-name")
    def _on_submitted(self, event: Input.Submitted) -> None:
        if event.value.strip():
            self._begin(event.value.strip())

    def _begin(self, text: str) -> None:
        """Look a repository up, show its running download, or search for words."""
        self._plan, self._job = None, None
        self._say_progress("")
        self._show("name")
        if not looks_like_repository(text):
            self._work(partial(self._search, text), f"Searching for {text} …")
            return
        try:
            wanted = parse_name(text)
        except QuantchatError as error:
            self._say(str(error), error=True)
            return
        running = self._pulls.find(str(wanted))
        if running is not None:
            self._show_job(running)
        else:
            self._work(partial(self._describe, Describe(wanted=wanted)), f"Asking the hub about {wanted} …")

    def _work(self, work: Work, words: str = "") -> None:
        """Ask the hub; what was asked before is broken off."""
        if words:
            self._say(words)
        _: Worker[None] = self.run_worker(partial(self._explained, work), exclusive=True, group="hub")

    async def _explained(self, work: Work) -> None:
        try:
            await work()
        except QuantchatError as error:
            self._say(str(error), error=True)

    async def _search(self, words: str) -> None:
        found = await search(Search(words=words), self._say)
        self._hits = {hit.repository: hit for hit in found.hits}
        if not found.hits:
            self._show("name")
            self._say("Nothing was found")
            return
        self._show("hits", map(hit_row, found.hits))
        self._say(f"{len(found.hits)} found, most downloaded first")

    async def _describe(self, task: Describe) -> None:
        described = await describe(task, self._say)
        plan = await in_background(make_plan, described)
        self._taken = {file.path for file in plan.files}
        self._show_plan(plan)

    async def _describe_again(self, wanted: Wanted, taken: set[str], others: set[str]) -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        exact = {name: tuple(map(glob.escape, names)) for name, names in (("include", taken), ("exclude", others))}
        described = await describe(Describe(wanted=wanted, include=exact["include"], exclude=exact["exclude"]))
        plan = await in_background(make_plan, described)
        self._show_plan(plan.retaken(self._taken))

    # The files

    def _show_plan(self, plan: Plan) -> None:
        self._plan = plan
        self._show("files", [offer_row(offer, offer.file.path in self._taken) for offer in plan.described.offers])
        self._say("\n".join(plan_lines(plan, self._memory.latest)))

    @on(RowList.OptionSelected)
    def _on_selected(self, event: RowList.OptionSelected) -> None:
        if self._shows == "hits" and event.option_id in self._hits:
            self.query_one("#pull-name", Field).value = clean(event.option_id, newlines=False)
            self._begin(event.option_id)
        elif self._shows == "files":
            self.action_take()

    def action_take(self) -> None:
        path, plan = self._rows.highlighted_id, self._plan
        if self._shows != "files" or plan is None or path is None:
            return
        self._taken ^= {path}
        self._show_plan(plan.retaken(self._taken))
        if is_weights(path):
            others = {offer.file.path for offer in plan.described.offers} - self._taken
            self._work(partial(self._describe_again, plan.wanted, set(self._taken), others))

    def action_name(self) -> None:
        self.set_focus(self.query_one("#pull-name"))

    # The download

    def action_pull(self) -> None:
        plan = self._next_plan()
        if plan is None:
            return
        self.workers.cancel_group(self, "hub")
        try:
            self._show_job(self._pulls.start(plan))
        except QuantchatError as error:
            self._say(str(error), error=True)

    def _next_plan(self) -> Plan | None:
        """What the key to download means: the chosen files, or again a download that did not reach its end."""
        if self._shows == "files" and self._plan is not None:
            return self._plan.retaken(self._taken)
        if self._shows == "job" and self._job is not None and self._job.state in ("failed", "cancelled"):
            return self._job.plan
        return None

    def action_stop(self) -> None:
        if self._job is not None:
            self._pulls.cancel(self._job)

    def _show_job(self, job: Job) -> None:
        self._job = job
        self.query_one("#pull-name", Field).value = job.name
        self._say("\n".join(plan_lines(job.plan, self._memory.latest)))
        self._on_job(job)

    def _on_job(self, job: Job) -> None:
        if job is self._job:
            # A dialog that is being closed loses its widgets first.
            with contextlib.suppress(NoMatches):
                self._draw_job(job)

    def _draw_job(self, job: Job) -> None:
        self._show("job", job_rows(job))
        self.query_one(".dialog").border_subtitle = JOB_HINTS[job.state]
        if job.state == "failed":
            self._say(job.line(), error=True)
        running = f"{meter(job.progress.share, BAR_CELLS)} " if job.state == "running" else ""
        self._say_progress("" if job.state == "failed" else f"{running}{job.line()}")

    def action_close(self) -> None:
        self.dismiss(None)
