"""Bytes to the terminal, CPU and frames per streamed token, beside the same text through Textual's `Markdown` widget.

The real program with a scripted engine at 50 tokens per second under a pseudo-terminal. Each answer begins with a
prefix that comes at once, so that the view has scrolled before anything is counted. CPU is that of the screen's process
alone, less what it needs while nothing happens. The echo of keys is measured with a reader that takes 50 KB per second.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import Figure, parser, report
from bench._samples import KINDS, TOKEN_CHARACTERS, sample
from terminal import Terminal, program_env, quantchat_command
from unit.catalog.model_folders import make_gptq

RATE = 50
WIDE, SMALL = (200, 50), (80, 24)
BYTES_BARS = {"prose": 350.0, "code": 600.0}
CPU_BAR_MS, GROWTH_BAR, FULL_WIDTH_BAR, ECHO_BAR_MS = 3.0, 1.3, 100.0, 60.0
PREFIX, LONG_PREFIX = 2_000, 20_000
LINK_BYTES = 50_000
HERE = Path(__file__).resolve().parent
LETTERS = "ßøþðæœłđħŋ"
"""Keys whose bytes nothing else that is sent holds."""


@dataclass
class Cost:
    """What one token cost while an answer streamed."""

    bytes: float
    cpu_ms: float
    frames: float


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process, to the nanosecond."""
    times = (path.read_text().split()[0] for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(map(int, times)) / 1e9


def measure(terminal: Terminal, seconds: float, idle: float = 0.0) -> Cost:
    """Count for some time; `idle` is the CPU share of the program at rest."""
    before, begun = cpu_seconds(terminal.pid), time.perf_counter()
    read, frames, last = 0, 0, 0.0
    while (now := time.perf_counter()) < begun + seconds:
        data = terminal.read(0.01)
        if data:
            # A frame is one write; a large one comes in several pieces right after each other.
            frames += now - last > 0.004
            read, last = read + len(data), time.perf_counter()
    elapsed = time.perf_counter() - begun
    cpu = cpu_seconds(terminal.pid) - before - idle * elapsed
    terminal.pump(0)
    return Cost(read / elapsed / RATE, cpu / elapsed / RATE * 1000, frames / elapsed)


class Bench:
    """Runs the program and the comparison on scripted answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models = folder / "models"
        make_gptq(self._models / "alpha-GPTQ")
        answers = []
        for kind in KINDS:
            for name, prefix in (("short", PREFIX), ("long", LONG_PREFIX)):
                answers.append({"match": f"{kind} {name}", **self._answer(kind, prefix)})
        (folder / "script.json").write_text(json.dumps({"answers": answers}))
        home = folder / "home"
        engine = shlex.join([sys.executable, str(HERE.parent / "scripted_engine.py")])
        self._env = program_env(
            home,
            HF_HUB_CACHE=str(folder / "hub"),
            QUANTCHAT_SCRIPT=str(folder / "script.json"),
            QUANTCHAT_ENGINE_COMMAND=engine,
        )
        (home / "config").mkdir(parents=True)
        (home / "config" / "config.toml").write_text("[sampling]\nmax_new_tokens = 100000\n")

    def _answer(self, kind: str, prefix: int) -> dict[str, object]:
        return {
            "text": sample(kind, prefix + 1_500),
            "fast_tokens": prefix,
            "tokens_per_second": RATE,
            "token_characters": TOKEN_CHARACTERS.get(kind, 0),
        }

    @contextmanager
    def program(self, size: tuple[int, int], *arguments: str) -> Iterator[Terminal]:
        """The program with a loaded model."""
        command = quantchat_command("--models-dir", str(self._models), "--model", "alpha", *arguments)
        terminal = Terminal(command, env=self._env, columns=size[0], lines=size[1])
        try:
            terminal.wait_for(lambda text: "aten" in text and "alpha" in text, 30)
            yield terminal
        finally:
            terminal.close()

    @contextmanager
    def markdown(self, kind: str, size: tuple[int, int]) -> Iterator[Terminal]:
        """The same text in Textual's widget, streaming."""
        script = self._folder / "markdown.json"
        script.write_text(json.dumps({**self._answer(kind, PREFIX), "hz": 20, "sidebar": size[0] > 100}))
        command = [sys.executable, str(HERE / "markdown_app.py"), str(script)]
        terminal = Terminal(command, env=self._env, columns=size[0], lines=size[1])
        try:
            terminal.wait_for("Answering", 60)
            settle(terminal)
            yield terminal
        finally:
            terminal.close()


def settle(terminal: Terminal, seconds: float = 0.5) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        terminal.pump(0.01)


def ask(terminal: Terminal, kind: str, length: str = "short") -> None:
    """Ask for an answer and wait until its prefix is there."""
    prefix = PREFIX if length == "short" else LONG_PREFIX
    terminal.type(f"{kind} {length}")
    terminal.press("enter")
    terminal.wait_for(lambda text: any(int(count) >= prefix for count in re.findall(r"ctx (\d+)", text)), 120)
    settle(terminal)


def stop(terminal: Terminal) -> None:
    terminal.press("esc")
    terminal.wait_for(lambda text: "Answering" not in text)
    terminal.press("ctrl+n")
    settle(terminal)


def echo_times(terminal: Terminal, keys: int) -> list[float]:
    """Milliseconds from a key to its letter in the bytes, over a slow line."""
    times = []
    for number in range(keys):
        letter = LETTERS[number % len(LETTERS)]
        terminal.type(letter)
        begun, seen = time.perf_counter(), b""
        for data in terminal.read_slowly(10, LINK_BYTES):
            seen = seen[-8:] + data
            if letter.encode() in seen:
                break
        times.append((time.perf_counter() - begun) * 1000)
        wait_slowly(terminal, 0.15)
        if letter == LETTERS[-1]:
            terminal.type("\x15")
            # A letter that comes back before it was taken from the screen need not be sent again.
            wait_slowly(terminal, 0.5)
    return times


def wait_slowly(terminal: Terminal, seconds: float) -> None:
    for _ in terminal.read_slowly(seconds, LINK_BYTES):
        pass


def stream_kinds(terminal: Terminal, kinds: list[str], size: tuple[int, int], seconds: float) -> Iterator[Figure]:
    settle(terminal, 1.0)
    rest = measure(terminal, 2)
    yield Figure(f"quantchat, idle {size[0]}×{size[1]}: bytes", rest.bytes * RATE, "B/s")
    idle = rest.cpu_ms * RATE / 1000
    for kind in kinds:
        ask(terminal, kind)
        cost = measure(terminal, seconds, idle)
        yield from figures(f"{kind} {size[0]}×{size[1]}", cost, kind if size == WIDE else None)
        stop(terminal)


def figures(name: str, cost: Cost, kind: str | None, who: str = "quantchat") -> Iterator[Figure]:
    yield Figure(f"{who}, {name}: bytes", cost.bytes, "B/token", bar=BYTES_BARS.get(kind or ""))
    yield Figure(f"{who}, {name}: CPU", cost.cpu_ms, "ms/token", bar=CPU_BAR_MS if kind else None)
    yield Figure(f"{who}, {name}: frames", cost.frames, "frames/s")


def stream_markdown(bench: Bench, kinds: list[str], size: tuple[int, int], seconds: float) -> Iterator[Figure]:
    for kind in kinds:
        with bench.markdown(kind, size) as terminal:
            yield from figures(f"{kind} {size[0]}×{size[1]}", measure(terminal, seconds), None, "Markdown")


def stream_full_width(terminal: Terminal, seconds: float) -> Iterator[Figure]:
    terminal.press("f8")
    terminal.wait_for(lambda text: "Models" not in text)
    ask(terminal, "prose")
    cost = measure(terminal, seconds)
    yield Figure("quantchat, prose 200×50 without sidebar: bytes", cost.bytes, "B/token", bar=FULL_WIDTH_BAR)
    stop(terminal)


def stream_over_slow_link(bench: Bench, kinds: list[str], seconds: float) -> Iterator[Figure]:
    with bench.program(WIDE, "--slow-link") as terminal:
        for kind in kinds:
            ask(terminal, kind)
            cost = measure(terminal, seconds)
            yield Figure(f"quantchat --slow-link, {kind} 200×50: bytes", cost.bytes, "B/token")
            stop(terminal)


def growth(terminal: Terminal, kinds: list[str], seconds: float) -> Iterator[Figure]:
    """CPU per token far into an answer against early in it, in turn in one process."""
    for kind in kinds:
        ask(terminal, kind)
        early = measure(terminal, seconds)
        stop(terminal)
        ask(terminal, kind, "long")
        late = measure(terminal, seconds)
        stop(terminal)
        name = f"quantchat, {kind} 200×50: CPU after {LONG_PREFIX:,} tokens against {PREFIX:,}"
        yield Figure(name, late.cpu_ms / early.cpu_ms, "ratio", bar=GROWTH_BAR)


def program_echo(terminal: Terminal, kinds: list[str], keys: int) -> Iterator[Figure]:
    for kind in kinds:
        ask(terminal, kind)
        times = echo_times(terminal, keys)
        yield from echo_figures(f"quantchat, key to echo at 50 KB/s in {kind}", times, ECHO_BAR_MS)
        stop(terminal)


def markdown_echo(bench: Bench, keys: int) -> Iterator[Figure]:
    with bench.markdown("prose", WIDE) as terminal:
        yield from echo_figures("Markdown, key to echo at 50 KB/s in prose", echo_times(terminal, keys), None)


def echo_figures(name: str, times: list[float], bar: float | None) -> Iterator[Figure]:
    yield Figure(f"{name}, median of {len(times)}", statistics.median(times), "ms")
    yield Figure(f"{name}, p95", statistics.quantiles(times, n=100)[94], "ms", bar=bar)


def quickly(bench: Bench) -> Iterator[Figure]:
    with bench.program(WIDE) as terminal:
        yield from stream_kinds(terminal, list(KINDS), WIDE, 2)
        yield from program_echo(terminal, ["code"], 20)
        yield from stream_full_width(terminal, 2)
    yield from stream_markdown(bench, ["prose"], WIDE, 2)


def thoroughly(bench: Bench) -> Iterator[Figure]:
    kinds, seconds = list(KINDS), 10.0
    for size in (WIDE, SMALL):
        with bench.program(size) as terminal:
            yield from stream_kinds(terminal, kinds, size, seconds)
        yield from stream_markdown(bench, kinds, size, seconds)
    with bench.program(WIDE) as terminal:
        yield from growth(terminal, kinds, seconds)
        yield from program_echo(terminal, ["prose", "code"], 60)
        yield from stream_full_width(terminal, seconds)
    yield from markdown_echo(bench, 20)
    yield from stream_over_slow_link(bench, kinds, seconds)


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    folder = Path(tempfile.mkdtemp(prefix="quantchat-wire-"))
    try:
        bench = Bench(folder)
        found = list(quickly(bench) if options.quick else thoroughly(bench))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(found, as_json=options.json)


if __name__ == "__main__":
    main()
