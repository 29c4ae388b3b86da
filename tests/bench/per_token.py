"""CPU per streamed token inside one long block of each kind, after 2,000 and after 20,000 tokens.

The real `Transcript` follows the end at 200×50 in a headless app; text arrives as at 50 tokens a second and 20 flushes.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from textual.app import App, ComposeResult

from bench._report import Figure, parser, report
from quantchat.ui.widgets.transcript import MessageView, Transcript

BAR_MS, BAR_GROWTH = 3.0, 1.3
SIZE = (200, 50)
SHORT, LONG = 2_000, 20_000
PER_FLUSH = (2, 3)
CHARACTERS = 4

WORDS = (
    "the scheduler reads every weight once, so **bandwidth** and not arithmetic decides how fast `decode` runs when "
    "one user waits for an answer; a larger batch shares that read among several chats. "
)


def prose() -> Iterator[str]:
    for number in count():
        yield f"In step {number} " + WORDS * 2 + "\n\n"


def paragraph() -> Iterator[str]:
    while True:
        yield WORDS


def fence() -> Iterator[str]:
    yield "```python\n"
    for number in count():
        yield f'def step_{number}(values: list[int]) -> int:\n    """Add."""\n    return sum(values) + {number}\n\n'


def bullets() -> Iterator[str]:
    for number in count():
        yield f"- item {number} with **some** words and `code` in it, enough to be a sentence\n"


def loose_nested() -> Iterator[str]:
    for number in count(1):
        indent = " " * len(f"{number}. ")
        yield f"{number}. Step {number} says what to do\n\n"
        yield f"{indent}- first **detail** of it\n{indent}- second `detail` of it\n\n"


def table() -> Iterator[str]:
    yield "| Model | Bits | Kernel | Tokens per second |\n|---|--:|:-:|---|\n"
    for number in count():
        yield f"| model-{number} | {number % 8} | `marlin` | {number * 37 % 101} tok/s |\n"


def quote() -> Iterator[str]:
    for number in count():
        yield f"> Line {number} of a quotation that goes on and on with *words* in it.\n"
        yield ">\n" if number % 5 == 4 else ""


def cjk() -> Iterator[str]:
    while True:
        yield "量化后的模型把每个权重压缩到四位，因此读取显存的时间大约减少到四分之一，而生成速度随之提高。"


KINDS: dict[str, Callable[[], Iterator[str]]] = {
    "prose": prose,
    "one paragraph": paragraph,
    "code fence": fence,
    "bullet list": bullets,
    "loose nested list": loose_nested,
    "table": table,
    "block quote": quote,
    "CJK paragraph": cjk,
}


def text_of(kind: str, tokens: int) -> str:
    size = tokens * (1 if kind.startswith("CJK") else CHARACTERS)
    pieces: list[str] = []
    room = size
    for piece in islice(KINDS[kind](), size):
        pieces.append(piece)
        room -= len(piece)
        if room <= 0:
            break
    return "".join(pieces)[:size]


class TranscriptApp(App[None]):
    def compose(self) -> ComposeResult:
        yield Transcript()


async def measure(kind: str, tokens: int, flushes: int) -> tuple[float, float]:
    """Milliseconds of CPU per token, and of the last full rendering."""
    text = text_of(kind, tokens + 3 * flushes)
    per_token = len(text) / (tokens + 3 * flushes)
    async with TranscriptApp().run_test(size=SIZE) as pilot:
        transcript = pilot.app.query_one(Transcript)
        transcript.show([MessageView("1", "assistant", "", "model", streaming=True)])
        end = round(tokens * per_token)
        transcript.extend("1", text[:end])
        await pilot.pause()
        gc.collect()
        spent: list[float] = []
        for flush in range(flushes):
            arrived = PER_FLUSH[flush % 2]
            begun = time.process_time()
            step = round(arrived * per_token)
            transcript.extend("1", text[end : end + step])
            await asyncio.sleep(0)
            await pilot.pause()
            end += step
            spent.append((time.process_time() - begun) * 1000)
        begun = time.process_time()
        transcript.replace(MessageView("1", "assistant", text[:end], "model"))
        await pilot.pause()
        return statistics.mean(spent) / statistics.mean(PER_FLUSH), (time.process_time() - begun) * 1000


def figures_of(kind: str, flushes: int) -> Iterator[Figure]:
    short, _ = asyncio.run(measure(kind, SHORT, flushes))
    long, finish = asyncio.run(measure(kind, LONG, flushes))
    yield Figure(f"{kind}: CPU per token at {SHORT:,}", short, "ms", BAR_MS)
    yield Figure(f"{kind}: CPU per token at {LONG:,}", long, "ms", BAR_MS)
    yield Figure(f"{kind}: growth", long / short, "times", BAR_GROWTH)
    yield Figure(f"{kind}: last rendering at {LONG:,}", finish, "ms")


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--kind", choices=[*KINDS], action="append")
    chosen = options.parse_args()
    flushes = 60 if chosen.quick else 300
    report([f for kind in chosen.kind or KINDS for f in figures_of(kind, flushes)], as_json=chosen.json)


if __name__ == "__main__":
    main()
