"""The real application over the scripted engine, driven by Pilot: no model, no torch, everything else real."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from quantchat.domain.chat import Message
from quantchat.ui.app import QuantchatApp
from quantchat.ui.screens.chat import ChatScreen
from quantchat.ui.screens.dialogs import ErrorScreen
from quantchat.ui.widgets.line import Line
from unit.catalog.model_folders import make_gptq

SCRIPTED_ENGINE = Path(__file__).resolve().parents[1] / "scripted_engine.py"
PATIENCE = 20.0
SIZES = [(80, 24), (200, 50)]
SLOW: dict[str, object] = {"answers": [{"match": "slow", "text": "word " * 400, "tokens_per_second": 50}]}


class Rig:
    """One run of the application."""

    def __init__(self, app: QuantchatApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def chat(self) -> ChatScreen:
        return self.app.chat

    async def until(self, test: Callable[[], object], what: str = "") -> None:
        """Wait for a condition; fail with the activity and status lines."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while not test():
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(f"waited for {what or test}: {self.line('activity')!r} {self.line('status')!r}")
            await self.pilot.pause(0.01)

    def line(self, name: str) -> str:
        return self.chat.query_one(f"#{name}", Line).plain

    async def dialog(self) -> str:
        """Wait for a dialog and return its words."""
        await self.until(lambda: isinstance(self.app.screen, ErrorScreen) and self.app.screen.query(Static), "a dialog")
        return "\n".join(str(words.content) for words in self.app.screen.query(Static))

    async def load(self, name: str = "alpha") -> None:
        """Load a model by its row."""
        await self.until(lambda: any(name in m.name for m in self.chat.desk.library.models), "the model")
        model = next(m for m in self.chat.desk.library.models if name in m.name)
        self.chat.choose_model(model.path)
        await self.until(lambda: self.chat.desk.library.loaded, "a loaded model")

    async def ask(self, text: str) -> None:
        if text.startswith("/"):
            # What a command names may be found last.
            await self.until(lambda: not self.chat.desk.library.scanner.scanning, "the end of the scan")
        self.chat.prompt.load(text)
        self.chat.prompt.focus()
        await self.pilot.press("enter")

    async def begin_slow(self) -> None:
        """Load a model and wait until the long answer of `SLOW` streams."""
        await self.load()
        await self.ask("be slow")
        await self.until(lambda: self.chat.own_turn and self.chat.own_turn.tokens > 2, "a streaming answer")

    async def answered(self, count: int = 1) -> list[Message]:
        """Wait until this session has so many finished answers."""
        await self.until(lambda: len(self.answers) >= count and all(a.finish for a in self.answers), "answers")
        return self.answers

    @property
    def answers(self) -> list[Message]:
        return [message for message in self.chat.session.branch() if message.role == "assistant"]


@asynccontextmanager
async def running(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: dict[str, object] | None = None,
    *,
    size: tuple[int, int] = (120, 40),
    resume: bool = False,
    theme: str | None = None,
    config: str = "",
) -> AsyncIterator[Rig]:
    """Run the application on a home below `folder` with two small model folders."""
    models = folder / "models"
    if not models.exists():
        make_gptq(models / "alpha-GPTQ")
        make_gptq(models / "beta-GPTQ")
    (folder / "script.json").write_text(json.dumps(script or {}))
    if config:
        (folder / "home" / "config").mkdir(parents=True)
        (folder / "home" / "config" / "config.toml").write_text(config)
    monkeypatch.setenv("QUANTCHAT_HOME", str(folder / "home"))
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setenv("QUANTCHAT_SCRIPT", str(folder / "script.json"))
    monkeypatch.setenv("QUANTCHAT_ENGINE_COMMAND", shlex.join([sys.executable, str(SCRIPTED_ENGINE)]))
    app = QuantchatApp(models_dirs=[models], resume=resume, theme=theme)
    async with app.run_test(size=size) as pilot:
        rig = Rig(app, pilot)
        await rig.until(lambda: app.desk.library.models, "the scan")
        try:
            yield rig
        finally:
            if not app.leaving:
                await app.desk.close()
