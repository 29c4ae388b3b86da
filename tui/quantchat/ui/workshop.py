"""Where a quantization comes from and goes to: the models and sessions of this program, its memory, its one job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quantchat.catalog.roots import default_roots
from quantchat.catalog.scan import find_model
from quantchat.domain.memory import format_bytes
from quantchat.domain.models import ModelInfo
from quantchat.domain.tags import merged
from quantchat.domain.text import clean
from quantchat.errors import QuantchatError, UsageError
from quantchat.services.background import in_background
from quantchat.services.folders import expanded
from quantchat.services.picking import read_pick
from quantchat.services.pull.names import looks_like_repository
from quantchat.services.quantizing.plan import Plan, Preflight
from quantchat.services.quantizing.preflight import examine
from quantchat.services.servers import require_here
from quantchat.ui.recipe import with_calibration
from quantchat.ui.widgets.rows import Row

if TYPE_CHECKING:
    from quantchat.services.desk import Desk
    from quantchat.ui.app import QuantchatApp

Take = Callable[[Plan], None]
PLAIN = ("none", "gguf")
"""Methods of weights that can be quantized: not at all, or as a GGUF file is."""
BUNDLED, OWN = "bundled", "sessions:"


def sources(models: tuple[ModelInfo, ...] | list[ModelInfo]) -> list[ModelInfo]:
    """The models that can be quantized, and adapters that can be merged for it."""
    return [model for model in models if model.quant.method in PLAIN and model.kind in ("chat", "adapter")]


def source_row(model: ModelInfo) -> Row:
    """A model that can be quantized."""
    detail = f"{model.quant.label()} {format_bytes(model.disk_bytes)}"
    return Row(model.path, clean(model.name, newlines=False), detail)


class Workshop:
    """What the form of a quantization asks and does outside itself."""

    def __init__(self, desk: Desk, app: QuantchatApp) -> None:
        self._desk, self._app = desk, app

    async def examine(self, plan: Plan) -> Preflight | None:
        """Say what a plan takes now; None without a source."""
        if not plan.source:
            return None
        view = await self._desk.memory.look(self._desk.library.engine_pid)
        return await examine(plan, view, self._desk.library.models, await in_background(self._roots))

    def _roots(self) -> list[Path]:
        """The folders that are scanned."""
        own = (Path(expanded(folder)) for folder in self._desk.settings.models_dirs)
        return [root.path for root in default_roots([*self._desk.given_folders, *own])]

    @property
    def has_model(self) -> bool:
        """Whether a model is loaded."""
        return self._desk.library.loaded is not None

    def start(self, preflight: Preflight) -> None:
        """Begin the job.

        Raises:
            UsageError: if one runs already, or a measurement, or something stands against it.
        """
        quality = self._desk.known_quality
        if quality is not None and quality.running is not None:
            raise UsageError("A model is being measured", remedy="Wait for it, or stop it: /quality shows it")
        self._desk.quantizing.start(preflight)

    def unload(self, then: Callable[[], None]) -> None:
        """Unload the model that chats, then go on."""
        self._desk.unload(then)

    def choose_source(self, plan: Plan, take: Take) -> None:
        """Let the user choose another model."""
        from quantchat.ui.screens.choose import ChooseScreen

        rows = [source_row(model) for model in sources(self._desk.library.models)]

        def chosen(typed: str | None) -> None:
            path = self.find(typed) if typed else ""
            if path:
                take(msgspec.structs.replace(plan, source=path, output=None))

        hint = "Type a part of its name, the path of a folder or GGUF file, or owner/name"
        self._app.push_screen(ChooseScreen("Which model", rows, hint, plan.source), chosen)

    def find(self, typed: str) -> str:
        """Find what was typed on this machine; offer to fetch what looks like a repository. Empty for nothing."""
        path = Path(typed).expanduser()
        if path.exists():
            return str(path.absolute())
        try:
            found = find_model(typed, self._desk.library.models)
        except QuantchatError as error:
            if looks_like_repository(typed) and not typed.startswith(("/", ".", "~")):
                self._pull(typed)
            else:
                self._app.notify(str(error), severity="warning")
            return ""
        try:
            require_here(found, "be quantized", "Quantize the folder that it was made from")
        except QuantchatError as error:
            self._app.notify(str(error), severity="warning")
            return ""
        return found.path

    def _pull(self, name: str) -> None:
        from quantchat.ui.screens.pull import PullScreen

        self._app.notify(f"{name} is not here yet. Choose it again once it is downloaded")
        self._app.push_screen(PullScreen(self._desk.pulls, self._desk.memory, name))

    def choose_calibration(self, plan: Plan, take: Take) -> None:
        """Let the user choose another calibration set."""
        from quantchat.ui.screens.choose import ChooseScreen

        summaries, session = self._app.chat.summaries, self._app.chat.session
        tags = merged(tag for summary in summaries for tag in summary.tags)

        def chosen(typed: str | None) -> None:
            if typed:
                try:
                    take(with_text(plan, typed))
                except QuantchatError as error:
                    self._app.notify(str(error), severity="warning")

        rows = [
            Row(BUNDLED, "Bundled set", "six languages, code, maths"),
            *session_rows(len(summaries), tags, session.id),
        ]
        hint = "Or the path of a .jsonl, .txt or .md file, or sessions as in: last 20 #work"
        self._app.push_screen(ChooseScreen("Calibration set", rows, hint), chosen)


def session_rows(count: int, tags: Iterable[str], shown: str) -> list[Row]:
    """Which of the user's own sessions can be chosen."""
    rows = [
        Row(OWN + "all", "All your sessions", f"{count:,}"),
        Row(OWN + "last 20", "Your last 20 sessions"),
        Row(OWN + shown, "The session behind this dialog"),
    ]
    return [*rows, *(Row(f"{OWN}#{tag}", f"Your sessions with #{clean(tag, newlines=False)}") for tag in tags)]


def with_text(plan: Plan, typed: str) -> Plan:
    """Return a plan that calibrates with what was chosen or typed: a set, sessions, a file.

    Raises:
        UsageError: if it is none of these.
    """
    path = Path(typed).expanduser()
    if typed == BUNDLED:
        return msgspec.structs.replace(with_calibration(plan, path="", name=""), sessions=None)
    if typed.startswith(OWN) or not path.exists():
        pick = read_pick(typed.removeprefix(OWN))
        return msgspec.structs.replace(with_calibration(plan, path="", name=""), sessions=pick)
    return msgspec.structs.replace(with_calibration(plan, path=str(path.absolute()), name=""), sessions=None)
