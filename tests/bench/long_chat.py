"""A chat of a thousand messages, and of ten thousand: opened, resized, left and entered again, scrolled through.

Each figure is the median CPU time until everything is drawn at 200×50, in a headless app in a process of its own; the
wall time beside it ends with the last frame, and holds the pause in which Textual waits for more resizes. The same is
done with one Textual `Markdown` widget per message, with fewer messages; its figures are scaled to the same number.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Input, Markdown

from bench._report import Figure, parser, report
from quantchat.ui.widgets.transcript import MessageView, Transcript

MESSAGES, MANY = 1_000, 10_000
SIZES = [(200, 50), (120, 40)]
BARS = {"open": 300.0, "resize": 100.0, "focus": 50.0}
MEMORY_BAR = 100.0
MIB = 1 << 20

PARTS = (
    "Quantized weights are read **once** per token, so what decides the speed of chat {n} is the memory's bandwidth "
    "and not its arithmetic; see `kernel_{n}` and [the notes](https://example.org/{n}).\n",
    "1. Load the shards\n2. Repack the layers of group {n}\n   - in place\n   - or *beside* the old ones\n3. Warm up\n",
    "```python\ndef repack(layer: int = {n}) -> bytes:\n    return pack(weights[layer], bits=4)\n```\n",
    "| Kernel | Bits | Tokens per second |\n|---|--:|--:|\n| marlin {n} | 4 | 118.2 |\n| torch | 8 | 30.8 |\n",
    "> A note on {n}: 量化后的模型读取显存的时间减少到四分之一。\n",
)


def answer(number: int) -> str:
    """About 180 tokens of mixed Markdown."""
    chosen = [PARTS[0], *(PARTS[1 + (number + step) % 4] for step in range(2)), PARTS[0]]
    return f"## Step {number}\n\n" + "\n".join(chosen).replace("{n}", str(number))


def views(count: int) -> list[MessageView]:
    return [MessageView(str(number), "assistant", answer(number), "model") for number in range(count)]


class ChatApp(App[None]):
    """A chat beside something else that takes the focus."""

    def __init__(self, chat: Widget) -> None:
        super().__init__()
        self.chat = chat
        self.drawn = 0.0

    def post_display_hook(self) -> None:
        self.drawn = time.perf_counter()

    def compose(self) -> ComposeResult:
        yield self.chat
        yield Input()


class Spent(NamedTuple):
    """Milliseconds until what was begun is drawn; the wall time ends with the last frame."""

    cpu: float
    wall: float


async def timed(pilot: Pilot[None], act: Callable[[], object]) -> Spent:
    app = pilot.app
    assert isinstance(app, ChatApp)
    cpu, wall = time.process_time(), time.perf_counter()
    done = act()
    if isinstance(done, Awaitable):
        await done
    await pilot.pause()
    return Spent((time.process_time() - cpu) * 1000, max(0.0, app.drawn - wall) * 1000)


def spread(name: str, spent: list[Spent], *, tail: bool = False) -> dict[str, float]:
    ordered = sorted(cpu for cpu, _ in spent)
    figures = {name: statistics.median(ordered), f"{name}, wall": statistics.median(wall for _, wall in spent)}
    return figures | ({f"{name}, p95": ordered[int(0.95 * len(ordered))]} if tail else {})


async def reactions(pilot: Pilot[None], rounds: int) -> dict[str, float]:
    """What a resize and a change of focus take."""
    app = pilot.app
    assert isinstance(app, ChatApp)
    places = [app.chat, app.query_one(Input)]
    resize = [await timed(pilot, lambda s=SIZES[turn % 2]: pilot.resize_terminal(*s)) for turn in range(1, rounds + 1)]
    focus = [await timed(pilot, lambda w=places[turn % 2]: app.screen.set_focus(w)) for turn in range(rounds)]
    return spread("resize", resize) | spread("focus", focus)


def memory() -> float:
    return psutil.Process().memory_info().rss / MIB


async def transcript(count: int, rounds: int) -> dict[str, float]:
    chat = Transcript()
    async with ChatApp(chat).run_test(size=SIZES[0]) as pilot:
        chat.show(views(3))
        await pilot.pause()
        opened = []
        for _ in range(rounds):
            messages = views(count)
            opened.append(await timed(pilot, lambda m=messages: chat.show(m)))
        figures = spread("open", opened) | await reactions(pilot, rounds) | {"memory": memory()}
        pages = []
        while chat.scroll_y > 0:
            pages.append(await timed(pilot, chat.action_page_up))
        return figures | spread("page up", pages, tail=True) | {"memory when all was read": memory()}


async def many(count: int, rounds: int) -> dict[str, float]:
    """Scroll through very many messages: pages from the end, the wheel from the beginning, and jumps."""
    chat = Transcript()
    async with ChatApp(chat).run_test(size=SIZES[0]) as pilot:
        messages = views(count)
        figures = spread("open", [await timed(pilot, lambda: chat.show(messages))])
        pages = [await timed(pilot, chat.action_page_up) for _ in range(20 * rounds)]
        homes = [await timed(pilot, act) for act in (chat.action_scroll_home, chat.action_scroll_end) * 2]
        chat.action_scroll_home()
        await pilot.pause()
        wheel = [await timed(pilot, lambda: chat.scroll_relative(y=3, animate=False)) for _ in range(40 * rounds)]
        leaps = [
            await timed(pilot, lambda part=part: chat.scroll_to(y=part * chat.max_scroll_y // 50, animate=False))
            for part in range(50)
        ]
        spent = {"page up": pages, "wheel": wheel, "first and last": homes, "bar dragged through all": leaps}
        for name, values in spent.items():
            figures |= spread(name, values, tail=True)
        return figures | {"memory": memory()}


async def widgets(count: int, rounds: int) -> dict[str, float]:
    """One `Markdown` per message, in a scroll of its own."""
    chat = VerticalScroll(can_focus=True)
    async with ChatApp(chat).run_test(size=SIZES[0]) as pilot:
        await chat.mount(Markdown(answer(0)))
        before = memory()
        opened = await timed(pilot, lambda: chat.mount_all(Markdown(answer(number)) for number in range(count)))
        return spread("open", [opened]) | await reactions(pilot, rounds) | {"memory grown": memory() - before}


SUBJECTS = {"transcript": transcript, "many": many, "widgets": widgets}


def measure(subject: str, count: int, rounds: int) -> dict[str, float]:
    """Run one subject in a process of its own."""
    command = [sys.executable, __file__, "--subject", subject, str(count), str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def figures_of(quick: bool) -> Iterator[Figure]:
    rounds, few = (5, 50) if quick else (11, 200)
    ours = measure("transcript", MESSAGES, rounds)
    for name, value in ours.items():
        unit, bar = ("MiB", MEMORY_BAR) if name.startswith("memory") else ("ms", BARS.get(name))
        yield Figure(f"{MESSAGES:,} messages: {name}", value, unit, bar)
    for name, value in measure("many", MANY, rounds).items():
        yield Figure(f"{MANY:,} messages: {name}", value, "MiB" if name == "memory" else "ms")
    theirs = measure("widgets", few, 3)
    scale = MESSAGES / few
    for name, value in theirs.items():
        unit = "MiB" if name.startswith("memory") else "ms"
        yield Figure(f"Markdown widgets, {few} times {scale:g}: {name}", value * scale, unit)


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--subject", nargs=3, help="measure one subject and print its figures")
    chosen = options.parse_args()
    if chosen.subject:
        name, count, rounds = chosen.subject
        print(json.dumps(asyncio.run(SUBJECTS[name](int(count), int(rounds)))))
        return
    report([*figures_of(chosen.quick)], as_json=chosen.json)


if __name__ == "__main__":
    main()
