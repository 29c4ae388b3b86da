"""10,000 sessions of 20 messages: the list at the start, search as somebody types, opening, saving, and memory.

The sessions are made in a temporary folder (making them is not measured) from the texts of `tests/corpus`, about 500
characters a message, with run cards and statistics as real answers have them. Each figure is the median of several
fresh programs that hold nothing but the event loop and the services, so late imports count; files are in the page
cache. What was computed is told beside it, which a busy machine changes less. The search is timed for a word that few
sessions hold, one that all hold, one letter, and words that none holds; the slowest counts. The first search of a
program checks the whole index. Last, the real screen runs without a terminal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import Figure, parser, report
from quantchat.domain.chat import RunCard, Session, SessionSummary, new_id
from quantchat.domain.generation import SamplingSettings, TurnStatistics
from quantchat.store.schema import encode_session

if TYPE_CHECKING:
    from quantchat.services.archive import Archive

SESSIONS = 10_000
MESSAGES = 20
LONG = 1_000
CHARACTERS = 500
TICK = 0.001
MIB = 1024**2
TESTS = Path(__file__).resolve().parents[1]
HELD_UP_MS = 50
"""A key is echoed within so many milliseconds."""
RARE, ABSENT = "Cassowary 4711", "no session says so much nonsense"
SEARCHES = (("rare", RARE, 4), ("common", "the", SESSIONS), ("a letter", "e", SESSIONS), ("absent", ABSENT, 0))
"""Name, text, and how many sessions hold it at least."""
DATA = TESTS.parent / "tui" / "quantchat" / "quantize" / "data"
VERSIONS = {"torch": "2.15.0", "transformers": "5.23.0", "gptqmodel": "7.7.0", "quantchat": "0.6.0"}
START = datetime(2024, 1, 1, tzinfo=UTC)

T = TypeVar("T")
Values = dict[str, float]


# The sessions


class Texts:
    """Pieces of the corpus and of the shipped prose, the same in every run."""

    def __init__(self) -> None:
        files = [*sorted((TESTS / "corpus").glob("*.md")), *sorted(DATA.glob("*.txt")), *sorted(DATA.glob("*.jsonl"))]
        self._text = "\n\n".join(path.read_text(errors="replace") for path in files)
        self._random = random.Random(6)

    def piece(self) -> str:
        """About so many characters from anywhere, in whole words."""
        start = self._text.find(" ", self._random.randrange(len(self._text) - 2 * CHARACTERS)) + 1
        return self._text[start : self._text.find(" ", start + CHARACTERS)]


def make_sessions(home: Path) -> None:
    texts = Texts()
    root = home / "data" / "sessions"
    root.mkdir(parents=True, mode=0o700)
    for number in range(SESSIONS):
        write_session(root, START + timedelta(minutes=number), MESSAGES, texts, rare=number % 2500 == 7)
    write_session(root, START - timedelta(days=1), LONG, texts, rare=False)
    for file in root.iterdir():
        # What changed just now would be read again.
        os.utime(file, (time.time() - 1000,) * 2)


def write_session(root: Path, moment: datetime, messages: int, texts: Texts, *, rare: bool) -> None:
    session = Session(id=new_id(moment), created=moment, updated=moment)
    for number in range(messages):
        add_message(session, number, texts.piece())
    if rare:
        next(iter(session.messages.values())).text += f" {RARE.upper()}"
    session.updated = moment + timedelta(seconds=messages)
    (root / f"{session.id}.json").write_bytes(encode_session(session))


def add_message(session: Session, number: int, text: str) -> None:
    message = session.append("assistant" if number % 2 else "user", text)
    if number % 2:
        message.finish = "stop"
        message.run = RunCard(
            model="Qwen2.5-7B-Instruct-GPTQ-Int4",
            path="/models/Qwen2.5-7B-Instruct-GPTQ-Int4",
            quantization="GPTQ 4b g128",
            kernel="marlin",
            device="cuda:0",
            decoding="graph",
            sampling=SamplingSettings(),
            versions=VERSIONS,
        )
        message.statistics = TurnStatistics(new_tokens=120, decode_seconds=1.5)


# One program


async def watched(work: Coroutine[object, object, T]) -> tuple[T, float, float]:
    """Wait for some work; return its result, its seconds, and the longest time that the loop did not come round."""
    begun, longest = time.perf_counter(), 0.0
    task = asyncio.create_task(work)
    while not task.done():
        asleep = time.perf_counter()
        await asyncio.wait({task}, timeout=TICK)
        longest = max(longest, time.perf_counter() - asleep - TICK)
    return task.result(), time.perf_counter() - begun, longest


def archive() -> Archive:
    from quantchat.services.archive import Archive

    return Archive(lambda fact: None)


async def listed(own: Archive) -> list[SessionSummary]:
    """The whole list."""
    rows = await own.summaries()
    if own.listing.progress is None:
        return rows
    while own.listing.progress is not None:  # noqa: ASYNC110 - seconds of the same program, and nothing else to do
        await asyncio.sleep(TICK)
    return await own.summaries()


async def one_list() -> Values:
    """The list as the screen asks for it at the start, then once more, as after each answer."""
    begun, computed = time.perf_counter(), time.process_time()
    own = archive()
    first, shown, blocked = await watched(own.summaries())
    rows = first if own.listing.progress is None else await listed(own)
    whole, computed = time.perf_counter() - begun, time.process_time() - computed
    assert len(rows) == SESSIONS + 1, len(rows)
    _, again, _ = await watched(own.summaries())
    await own.close()
    return {
        "shown": shown,
        "whole": whole,
        "computed": computed,
        "blocked": blocked * 1000,
        "again": again,
        "memory": peak(),
    }


async def one_index() -> Values:
    """Making the index, while the list is there."""
    from quantchat.services.finding import Finder

    own = archive()
    await listed(own)
    _, seconds, blocked = await watched(Finder(own).keep_index())
    assert not own.store.index.missing(), len(own.store.index.missing())
    return {"seconds": seconds, "blocked": blocked * 1000, "memory": peak()}


async def one_search() -> Values:
    """The list, then searches for one text after the other."""
    from quantchat.services.finding import Finder

    own = archive()
    await listed(own)
    finder = Finder(own)
    values: Values = {}
    found, values["first"], blocked = await watched(finder.search(ABSENT[:-1]))
    for name, text, sessions in SEARCHES:
        used = time.process_time()
        found, values[name], held_up = await watched(finder.search(text))
        values["computed"] = max(values.get("computed", 0.0), time.process_time() - used)
        blocked = max(blocked, held_up)
        assert found.sessions >= sessions, (text, found.sessions)
        assert bool(found.hits) == bool(sessions), (text, found.hits)
        assert all(hit.excerpt[hit.start : hit.end].casefold() == text.casefold() for hit in found.hits), found.hits
    return values | {"blocked": blocked * 1000, "memory": peak()}


async def one_unaided() -> Values:
    """A search that reads all sessions, as there is no index of their texts yet."""
    from quantchat.services.finding import Finder

    own = archive()
    await listed(own)
    found, seconds, _ = await watched(Finder(own).search(ABSENT))
    assert found.sessions == 0
    return {"seconds": seconds}


async def one_open() -> Values:
    """Opening the newest session and the long one, and saving that after a new message."""
    own = archive()
    rows = await listed(own)
    long = max(rows, key=lambda row: row.messages)
    values: Values = {}
    short = next(row for row in rows if row is not long)
    for name, session_id in (("open", short.id), ("open_long", long.id)):
        begun = time.perf_counter()
        session = own.open(session_id)
        values[name] = time.perf_counter() - begun
    assert len(session.messages) >= LONG
    session.append("user", "One more.")
    begun, used = time.perf_counter(), time.process_time()
    own.save(session)
    values["save_loop"] = (time.perf_counter() - begun) * 1000
    await own.flush()
    values["save"] = (time.perf_counter() - begun) * 1000
    values["save_computed"] = (time.process_time() - used) * 1000
    assert own.unsaved(session.id) is None
    await own.close()
    return values | {"memory": peak()}


async def one_screen() -> Values:
    """The real screen with the scripted engine, without a terminal: until the list is there, then a search."""
    from quantchat.ui.app import QuantchatApp

    begun = time.perf_counter()
    app = QuantchatApp(models_dirs=[])
    async with app.run_test(size=(200, 50)) as pilot:
        while len(app.chat.summaries) != SESSIONS + 1:
            await pilot.pause(0.01)
        listed = time.perf_counter() - begun
        for _, text, _ in SEARCHES:
            await app.desk.finder.search(text)
        await app.desk.close()
    return {"listed": listed, "memory": peak()}


PROGRAMS = {
    "list": one_list,
    "unaided": one_unaided,
    "index": one_index,
    "search": one_search,
    "open": one_open,
    "screen": one_screen,
}


def peak() -> float:
    """The most memory that this process held at a time, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


# All programs


def measure(home: Path, name: str, *, cold: bool = False) -> Values:
    if cold:
        shutil.rmtree(home / "cache", ignore_errors=True)
    env = os.environ | {"QUANTCHAT_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
    env |= {"QUANTCHAT_ENGINE_COMMAND": shlex.join([sys.executable, str(TESTS / "scripted_engine.py")])}
    env |= {"QUANTCHAT_SCRIPT": str(home / "script.json")}
    # From compiled files, as an installed quantchat is; a developer's environment may forbid to write them.
    env |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(home / "compiled")}
    done = subprocess.run([sys.executable, __file__, "--one", name], env=env, stdout=subprocess.PIPE, check=True)
    values: Values = json.loads(done.stdout)
    return values


def median(runs: list[Values], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def figures(rounds: int) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="quantchat-sessions-") as folder:
        home = Path(folder)
        (home / "script.json").write_text("{}")
        make_sessions(home)
        # The system is not to write all that while it is measured.
        os.sync()
        measure(home, "list", cold=True)
        cold = [measure(home, "list", cold=True) for _ in range(max(1, rounds // 3))]
        unaided = measure(home, "unaided", cold=True)
        making = [measure(home, "index", cold=True) for _ in range(max(1, rounds // 3))]
        warm = [measure(home, "list") for _ in range(rounds)]
        search = [measure(home, "search") for _ in range(rounds)]
        opened = [measure(home, "open") for _ in range(rounds)]
        screen = [measure(home, "screen") for _ in range(max(1, rounds // 3))]
        index = sum(file.stat().st_size for file in (home / "cache" / "sessions").iterdir()) / MIB
        stored = sum(file.stat().st_size for file in (home / "data" / "sessions").iterdir()) / MIB
    yield Figure("list", median(warm, "whole"), "s", 0.3)
    yield Figure("list: computed", median(warm, "computed"), "s")
    yield Figure("list: loop held up", median(warm, "blocked"), "ms", HELD_UP_MS)
    yield Figure("list: again, as after each answer", median(warm, "again"), "s")
    yield Figure("list without an index: something shown", median(cold, "shown"), "s")
    yield Figure("list without an index: all", median(cold, "whole"), "s")
    yield Figure("list without an index: loop held up", median(cold, "blocked"), "ms", HELD_UP_MS)
    yield Figure("search", max(median(search, name) for name, _, _ in SEARCHES), "s", 0.5)
    yield Figure("search: computed", median(search, "computed"), "s")
    for name, _, _ in SEARCHES:
        yield Figure(f"search: {name}", median(search, name), "s")
    yield Figure("search: the first of a program", median(search, "first"), "s", 0.5)
    yield Figure("search: loop held up", median(search, "blocked"), "ms", HELD_UP_MS)
    yield Figure("search without an index", unaided["seconds"], "s")
    yield Figure("making the index", median(making, "seconds"), "s")
    yield Figure("making the index: loop held up", median(making, "blocked"), "ms", HELD_UP_MS)
    yield Figure("open", median(opened, "open"), "s", 0.1)
    yield Figure(f"open one of {LONG} messages", median(opened, "open_long"), "s", 0.1)
    yield Figure(f"save one of {LONG} messages", median(opened, "save"), "ms", 30)
    yield Figure("save: computed", median(opened, "save_computed"), "ms")
    yield Figure("save: loop held up", median(opened, "save_loop"), "ms", HELD_UP_MS)
    yield Figure("memory of the services", max(median(runs, "memory") for runs in (warm, search, making)), "MiB", 150)
    yield Figure("memory of the whole screen", median(screen, "memory"), "MiB", 150)
    yield Figure("whole screen: until the list is there", median(screen, "listed"), "s")
    yield Figure("index on the disk", index, "MiB")
    yield Figure("sessions on the disk", stored, "MiB")


def main() -> None:
    options: argparse.ArgumentParser = parser(__doc__ or "")
    options.add_argument("--one", choices=PROGRAMS, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.one:
        print(json.dumps(asyncio.run(PROGRAMS[chosen.one]())))
    else:
        report(list(figures(3 if chosen.quick else 9)), as_json=chosen.json)


if __name__ == "__main__":
    main()
