"""Archive, library and conversation over an engine that only records what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quantchat.domain.backends import OWN, EngineSpec
from quantchat.domain.chat import Session
from quantchat.domain.generation import SamplingOverrides, TurnStatistics
from quantchat.domain.models import ModelInfo
from quantchat.engine import protocol as p
from quantchat.engine.client import EngineExited
from quantchat.services.archive import Archive
from quantchat.services.conversation import Conversation
from quantchat.services.facts import Fact
from quantchat.services.library import Library

MODEL = ModelInfo(path="/models/tiny", name="tiny")
REPORT = p.LoadReport(
    path=MODEL.path,
    name="tiny",
    architecture="LlamaForCausalLM",
    device="cpu",
    dtype="bfloat16",
    kernel="gptq_torch_aten",
    recommended=SamplingOverrides(temperature=0.2),
)
PATIENCE = 20.0


class RecordingEngine:
    """Takes commands and says nothing by itself."""

    def __init__(self, on_event: Callable[[p.Event | EngineExited], None]) -> None:
        self.say = on_event
        self.sent: list[p.Command] = []
        self.pid = 1
        self.running = False

    async def start(self) -> None:
        self.running = True

    def send(self, command: p.Command) -> None:
        self.sent.append(command)

    async def close(self, grace: float = 2.0) -> None:
        if self.running:
            self.running = False
            self.say(EngineExited(code=0, signal=None, log_tail="", expected=True))

    def kill(self) -> None:
        self.running = False

    def turns(self) -> list[p.Generate]:
        return [command for command in self.sent if isinstance(command, p.Generate)]


class Bench:
    """Archive, library and conversation with a loaded model."""

    def __init__(self, archive: Archive | None = None, *, parallel_turns: int = 1) -> None:
        self.facts: list[Fact] = []
        self.engines: list[RecordingEngine] = []
        self.archive = archive or Archive(self.facts.append)
        self.library = Library(self.facts.append, engine_factory=self._engine)
        self.conversation = Conversation(
            self.archive,
            self.library,
            self.facts.append,
            sampling=SamplingOverrides(top_k=7),
            parallel_turns=parallel_turns,
        )

    def _engine(self, on_event: Callable[[p.Event | EngineExited], None], _spec: EngineSpec = OWN) -> RecordingEngine:
        self.engines.append(RecordingEngine(on_event))
        return self.engines[-1]

    @property
    def engine(self) -> RecordingEngine:
        return self.engines[-1]

    async def load(self) -> None:
        await self.library.load(MODEL)
        command = self.engine.sent[-1]
        assert isinstance(command, p.Load)
        self.loaded(command)

    def loaded(self, command: p.Load) -> None:
        """Let the engine end a load well."""
        self.engine.say(p.Loaded(request=command.request, report=REPORT))
        self.conversation.pump()

    async def until(self, test: Callable[[], object]) -> None:
        """Wait for what the threads of the disk bring about."""
        async with asyncio.timeout(PATIENCE):
            while not test():  # noqa: ASYNC110 - threads set no event
                await asyncio.sleep(0.01)

    def ask(self, text: str, session: Session | None = None) -> tuple[Session, p.Generate]:
        """Ask in a session, a new one if none is given, what can start at once."""
        session = session or self.archive.new()
        self.conversation.send(session.id, text)
        return session, self.engine.turns()[-1]

    def speak(self, turn: p.Generate, *words: str) -> None:
        """Let the engine say some tokens of a turn."""
        for tokens, word in enumerate(words, 1):
            self.engine.say(p.Delta(turn=turn.turn, text=word, tokens=tokens))

    def finish(self, turn: str, reason: str = "stop") -> None:
        self.engine.say(p.Finished(turn=turn, reason=reason, statistics=TurnStatistics(new_tokens=2)))  # type: ignore[arg-type]


async def asked(bench: Bench, text: str = "why") -> tuple[Session, p.Generate]:
    await bench.load()
    session = bench.archive.new()
    bench.conversation.send(session.id, text)
    return session, bench.engine.turns()[-1]
