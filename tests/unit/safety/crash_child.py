"""One run of the program's services that does what its seed says, until it is killed; a log tells what it was promised.

    python crash_child.py HOME SEED LOG FILES

Each line of the log is JSON, written with one call: what begins, what is on the disk for good, and each word of an
answer when it has been handed over. What is killed with the process is only what the process had not handed over.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random

HOME, SEED, LOG, FILES = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
os.environ["QUANTCHAT_HOME"] = str(HOME)

from quantchat.domain.chat import Session  # noqa: E402 - the home comes first
from quantchat.engine import protocol as p  # noqa: E402
from quantchat.errors import StorageError  # noqa: E402
from quantchat.store.exchange.importing import Import  # noqa: E402
from quantchat.store.state import UiState, save_state  # noqa: E402
from unit.services.turn_bench import Bench  # noqa: E402

_log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def log(what: str, **more: object) -> None:
    os.write(_log, json.dumps({"what": what, "at": time.monotonic(), **more}).encode() + b"\n")


class Child:
    """A bench, and the things that a user does with it."""

    def __init__(self) -> None:
        self.random = Random(SEED)
        self.bench = Bench(parallel_turns=4)
        self.archive = self.bench.archive
        self.number = 0

    async def session(self) -> Session:
        """Open one of the sessions that are there, or begin one."""
        rows = await self.archive.summaries()
        if rows and self.random.random() < 0.7:
            # One of them may have been deleted since they were read.
            with suppress(StorageError):
                return self.archive.open(self.random.choice(rows).id)
        return self.archive.new()

    async def stream(self) -> None:
        """Ask, and be answered with numbered words, some of them thought."""
        session = await self.session()
        if self.bench.conversation.is_busy(session.id):
            return
        self.number += 1
        question = f"question {SEED}-{self.number}"
        log("asks", session=session.id, question=question)
        _, turn = self.bench.ask(question, session)
        running = self.bench.conversation.turn_of(session.id)
        assert running is not None
        message = running.message.id
        pause = self.random.choice([0.0, 0.001, 0.004])
        for number in range(self.random.choice([3, 60, 400])):
            channel = "thinking" if number % 5 == 0 else "answer"
            self.bench.engine.say(p.Delta(turn=turn.turn, text=f"{number} ", channel=channel, tokens=number + 1))
            log("said", session=session.id, message=message, number=number)
            await asyncio.sleep(pause)
        self.bench.finish(turn.turn)
        await self.archive.flush()
        log("answered", session=session.id, message=message, question=question)

    async def rename(self) -> None:
        session = await self.session()
        title = f"title {SEED}-{self.random.random()}"
        log("renames", session=session.id, title=title)
        self.archive.rename(session.id, title)
        await self.archive.flush()
        log("renamed", session=session.id, title=title)

    async def save(self) -> None:
        """Write drafts, as the prompt does."""
        session = await self.session()
        for number in range(self.random.randrange(1, 12)):
            session.draft = f"draft {SEED}-{number} " + "x" * self.random.randrange(4000)
            log("drafts", session=session.id, draft=session.draft[:40])
            self.archive.save(session)
            if self.random.random() < 0.5:
                await self.archive.flush()
                log("drafted", session=session.id, draft=session.draft[:40])
            await asyncio.sleep(0)

    async def bring_in(self) -> None:
        """Import a file of several sessions."""
        path = HOME / f"import-{SEED}-{self.random.random()}.json"
        several = [[{"role": "user", "content": f"{path.stem} {n}"}] for n in range(self.random.randrange(1, 9))]
        text = "\n".join(json.dumps({"messages": one}) for one in several)
        path = path.with_suffix(".jsonl")
        path.write_text(text)
        log("imports", name=path.stem, count=len(several))
        with Import(self.archive.store) as work:
            await asyncio.to_thread(work.read, path)
            assert not work.faults, work.faults
            await asyncio.to_thread(work.commit)
        log("imported", name=path.stem, count=len(several))
        path.unlink()

    async def upgrade(self) -> None:
        """Open a file of an older program, change it and write it."""
        version = self.random.choice([1, 2])
        whole = json.loads((FILES / f"schema{version}.json").read_bytes())
        session_id = Session.new().id
        data = json.dumps(whole | {"id": session_id}).encode()
        log("upgrades", session=session_id)
        self.archive.store.write(session_id, data)
        log("laid", session=session_id)
        session = self.archive.open(session_id)
        session.tags = ["upgraded"]
        self.archive.save(session)
        await self.archive.flush()
        log("upgraded", session=session_id)

    async def delete(self) -> None:
        rows = await self.archive.summaries()
        if len(rows) > 12:
            session = self.random.choice(rows[6:]).id
            if not self.bench.conversation.is_busy(session):
                log("deletes", session=session)
                await self.archive.delete(session)
                log("deleted", session=session)

    async def show(self) -> None:
        """Turn to another session, which gives back the lock of the one before."""
        session = await self.session()
        self.archive.show(session.id)
        await asyncio.to_thread(save_state, UiState(last_session=session.id))

    async def work(self) -> None:
        things = [self.stream, self.save, self.rename, self.bring_in, self.upgrade, self.delete, self.show]
        # Each round does one thing more than others, so that the kill comes in the middle of it.
        often = things[SEED % 5]
        while True:
            await self.random.choice([*things, *[often] * 8])()

    async def run(self) -> None:
        log("begins")
        recovered = await self.archive.recover()
        log("recovered", count=len(recovered))
        await self.bench.load()
        await asyncio.gather(*(self.work() for _ in range(3)))


asyncio.run(Child().run())
