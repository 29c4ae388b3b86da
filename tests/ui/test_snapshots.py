"""Pictures of every screen, light and dark.

After a wanted change: `pytest tests/ui/test_snapshots.py --snapshot-update`, then look at the pictures that git shows.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from quantchat import paths
from quantchat.domain.chat import Message, RunCard, Session
from quantchat.domain.generation import TurnStatistics
from quantchat.errors import ErrorReport
from quantchat.hardware.gpu import NotAvailable
from quantchat.hardware.host import HostMemory
from quantchat.services.facts import Notice
from quantchat.services.memory import MemoryView, MemoryWatch
from quantchat.store.sessions import SessionStore
from ui.rig import Rig, running

SMALL, WIDE = (80, 24), (120, 36)
THEMES = ["quantchat-dark", "quantchat-light"]
GIB = 1024**3
BEGIN = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
MEMORY = MemoryView(
    gpus=NotAvailable(reason="no driver"), host=HostMemory(total=64 * GIB, available=48 * GIB, used=16 * GIB)
)
ANSWER = """\
A **4-bit** model keeps a quarter of the bytes. Three things matter:

1. the *group size*, here `128`
2. whether rows were reordered (`desc_act`)
   - slower kernels on some cards

| method | bits | kernel |
|--------|-----:|--------|
| GPTQ   |    4 | Marlin |
| AWQ    |    4 | GEMM   |

```python
def bytes_of(parameters: int, bits: int) -> int:
    return parameters * bits // 8
```

> Measured, not remembered: 量子化 costs little.
"""
SLOW = {"answers": [{"match": "slowly", "text": "One word " * 50, "tokens_per_second": 0.001}]}


class Picture(SingleFileSnapshotExtension):
    """One SVG file per picture."""

    file_extension = "svg"
    _write_mode = WriteMode.TEXT


@pytest.fixture
def picture(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(Picture)


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same memory and the same time zone on every machine."""

    async def look(self: MemoryWatch, _pid: int | None) -> MemoryView:
        self.latest = MEMORY
        return MEMORY

    monkeypatch.setattr(MemoryWatch, "look", look)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def stored_session(folder: Path) -> None:
    """A session of last spring, as a file."""
    session = Session(id="20260301T093000000-abc123", title="What 4 bits cost", created=BEGIN, updated=BEGIN)
    texts = [
        ("user", "What does quantization cost me?", ""),
        ("assistant", ANSWER, "The user asks about cost.\nSize, speed and quality.\nKeep it short."),
        ("user", "Thanks. And *this*?", ""),
        ("assistant", "Nothing at all.", ""),
    ]
    parent = None
    for number, (role, text, thinking) in enumerate(texts):
        message = Message(
            id=f"20260301T09300{number}000-abc12{number}",
            role=role,  # type: ignore[arg-type]
            text=text,
            thinking=thinking,
            created=BEGIN + timedelta(minutes=number),
            parent=parent,
        )
        if role == "assistant":
            message.finish = "stop"
            message.run = RunCard(model="alpha-GPTQ", quantization="GPTQ 4b g128", kernel="gptq_marlin")
            message.statistics = TurnStatistics(
                prompt_tokens=20, new_tokens=180, prefill_seconds=0.25, decode_seconds=4.0
            )
        session.messages[message.id] = message
        parent = session.head = message.id
    store = SessionStore(folder)
    store.write(session.id, store.encode(session))


async def settled(rig: Rig) -> None:
    """Wait until the screen has been drawn with everything that is known."""
    desk, chat = rig.chat.desk, rig.chat
    await rig.until(
        lambda: desk.library.loaded is None or chat.own_turn or desk.context.of(chat.session), "the context's size"
    )
    await rig.until(lambda: desk.memory.latest and not chat._stale, "the memory bar")
    await rig.pilot.pause()
    await rig.pilot.pause()


def drawn(rig: Rig) -> str:
    """The screen as SVG, without what differs from run to run."""
    svg = rig.app.export_screenshot(title="quantchat", simplify=True)
    svg = re.sub(r"\bterminal-\d+-", "terminal-", svg)
    return re.sub(r"\d+\.\d\d(?=&#160;s\b)", "0.00", svg)


Steps = Callable[[Rig], Awaitable[None]]
SCREENS: dict[str, Steps] = {}


def screen(steps: Steps) -> Steps:
    """A state of the screen that is worth a picture."""
    SCREENS[steps.__name__] = steps
    return steps


@screen
async def answered(rig: Rig) -> None:
    await rig.load()


@screen
async def reading(rig: Rig) -> None:
    await rig.pilot.press("f6", "k", "k", "o")


@screen
async def finding(rig: Rig) -> None:
    await rig.pilot.press("alt+s", *"size")
    await rig.until(lambda: "of" in rig.app.export_screenshot(simplify=True))


@screen
async def completing(rig: Rig) -> None:
    await rig.pilot.press("/", "r", "e")


@screen
async def waiting(rig: Rig) -> None:
    await rig.load()
    await rig.ask("Count slowly")
    await rig.until(lambda: rig.chat.own_turn and rig.chat.own_turn.tokens)
    await rig.ask("And then?")


@screen
async def help_screen(rig: Rig) -> None:
    await rig.pilot.press("f1")


@screen
async def palette(rig: Rig) -> None:
    await rig.pilot.press("ctrl+p", *"cop")


@screen
async def theme_chooser(rig: Rig) -> None:
    await rig.pilot.press("f9")


@screen
async def preset_chooser(rig: Rig) -> None:
    rig.chat.action_preset("creative")
    rig.chat.action_preset()


@screen
async def models(rig: Rig) -> None:
    await rig.pilot.press("ctrl+l")


@screen
async def title_dialog(rig: Rig) -> None:
    await rig.pilot.press("f2")


@screen
async def question(rig: Rig) -> None:
    await rig.pilot.press("f10")


@screen
async def error_dialog(rig: Rig) -> None:
    report = ErrorReport(
        code="out-of-memory",
        title="The model does not fit",
        detail="It needs 13.2 GiB and the device has 8.0 GiB free.",
        remedy='Choose a smaller model, or set device = "cpu".',
    )
    rig.app._take(Notice(report=report, dialog=True))


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is as long in every run: the help shows it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="qc") as folder:
        yield Path(folder)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(
    ("name", "size"), [*((name, SMALL) for name in SCREENS), ("answered", WIDE)], ids=[*SCREENS, "wide"]
)
async def test_screen(
    short_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    picture: SnapshotAssertion,
    name: str,
    theme: str,
    size: tuple[int, int],
) -> None:
    monkeypatch.setenv("HOME", str(short_folder))
    monkeypatch.setenv("QUANTCHAT_HOME", str(short_folder / "home"))
    stored_session(paths.sessions_dir())
    async with running(short_folder, monkeypatch, SLOW, size=size, resume=True, theme=theme) as rig:
        await rig.until(lambda: rig.chat.session.messages, "the stored session")
        await settled(rig)
        await SCREENS[name](rig)
        await settled(rig)
        assert drawn(rig) == picture
