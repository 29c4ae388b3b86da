"""The services of the program, told over stdin what to do, on a disk that refuses as the test likes.

    python fault_child.py HOME

Reads lines `METHOD [JSON]`, answers each with a line of JSON. What is refused is told, and tried again soon.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

os.environ["QUANTCHAT_HOME"] = sys.argv[1]

from quantchat.domain.chat import Session
from quantchat.engine import protocol as p
from quantchat.errors import QuantchatError
from quantchat.services import saving
from quantchat.services.facts import Notice
from quantchat.services.following import Follower
from unit.services.turn_bench import Bench

saving.RETRY_SECONDS = 0.05


class Child:
    """One program."""

    def __init__(self) -> None:
        self.bench = Bench(parallel_turns=4)
        self.archive = self.bench.archive
        self.follower = Follower(self.archive, self.bench.facts.append)
        self.follower.on_free = self.archive.open
        self.turns: dict[str, tuple[Session, p.Generate]] = {}

    async def begin(self) -> int:
        recovered = await self.archive.recover()
        await self.bench.load()
        return len(recovered)

    async def ask(self, text: str, session: str = "") -> str:
        """Ask in a session, a new one if none is named; return its id."""
        opened = self.archive.open(session) if session else self.archive.new()
        opened, turn = self.bench.ask(text, opened)
        self.turns[opened.id] = opened, turn
        return opened.id

    async def say(self, session: str, text: str) -> None:
        _, turn = self.turns[session]
        self.bench.engine.say(p.Delta(turn=turn.turn, text=text, tokens=1))

    async def end(self, session: str) -> None:
        self.bench.finish(self.turns[session][1].turn)

    async def rename(self, session: str, title: str) -> None:
        self.archive.rename(session, title)

    async def draft(self, session: str, text: str) -> None:
        opened = self.archive.open(session)
        opened.draft = text
        self.archive.save(opened)

    async def tag(self, session: str, tag: str) -> None:
        def change(opened: Session) -> None:
            opened.tags.append(tag)

        await self.archive.amend(session, change)

    async def delete(self, session: str) -> None:
        await self.archive.delete(session)

    async def flush(self) -> None:
        await self.archive.flush()

    async def show(self, session: str) -> None:
        self.archive.show(session)

    async def follow(self, session: str) -> dict[str, Any]:
        """Show a session as the screen does: read along while another program writes it, and take it over then."""
        held = await self.open(session)
        self.follower.show(session)
        return held

    async def look(self, session: str) -> dict[str, Any]:
        """Return what a session holds here; nothing is read for it."""
        opened = self.archive.open_here(session)
        assert opened is not None
        return self.told_of(opened)

    async def open(self, session: str) -> dict[str, Any]:
        """Open a session; return what it holds here."""
        return self.told_of(self.archive.open(session))

    def told_of(self, opened: Session) -> dict[str, Any]:
        why = self.archive.why_read_only(opened.id)
        return {
            "title": opened.title,
            "draft": opened.draft,
            "tags": opened.tags,
            "texts": [message.text for message in opened.branch()],
            "finishes": [message.finish for message in opened.branch()],
            "read_only": why.report.code if why else None,
        }

    async def unsaved(self) -> list[str]:
        return sorted({error.report.code for error in self.archive._saver.failures})

    async def told(self) -> list[str]:
        """Return the codes of what was told since the last time."""
        notices = [fact.report.code for fact in self.bench.facts if isinstance(fact, Notice)]
        self.bench.facts.clear()
        return notices

    async def close(self) -> list[str]:
        self.follower.close()
        self.bench.conversation.finish_now()
        return [error.report.code for error in await self.archive.close()]

    async def run(self) -> None:
        reader = asyncio.StreamReader(limit=1 << 24)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print('"ready"', flush=True)
        while line := await reader.readline():
            name, _, arguments = line.decode().partition(" ")
            try:
                answer = await getattr(self, name.strip())(**json.loads(arguments or "{}"))
            except QuantchatError as error:
                answer = {"error": error.report.code, "words": error.report.sentence()}
            print(json.dumps(answer), flush=True)


asyncio.run(Child().run())
