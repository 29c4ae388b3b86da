"""Titles by the model: made while the engine rests, given back at once, never over the user's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quantchat.domain.chat import Session
from quantchat.engine import protocol as p
from quantchat.engine.client import EngineExited
from quantchat.errors import UsageError
from quantchat.services import titles
from quantchat.services.facts import Fact, Notice, SessionsChanged
from quantchat.services.titles import TRIES, Titles, title_of
from quantchat.store.locks import SessionLocks
from quantchat.store.sessions import SessionStore
from unit.services.turn_bench import Bench


class TitleBench(Bench):
    """A bench whose facts and events go by way of the titles, as in the program."""

    def __init__(self, *, automatic: bool = True) -> None:
        super().__init__(parallel_turns=4)
        self.titles = Titles(self.archive, self.library, self.conversation, self.facts.append, automatic=automatic)
        self.conversation._listen = self.conversation._streams._listen = self._tell
        self.library.on_turn_event = self._on_event

    def _tell(self, fact: Fact) -> None:
        self.titles.on_fact(fact)
        self.facts.append(fact)

    def _on_event(self, event: p.Event | EngineExited) -> None:
        self.conversation.on_event(event)
        self.titles.on_event(event)

    async def exchange(self, question: str = "Which river flows through Paris?") -> Session:
        """Let one question be answered."""
        if self.library.loaded is None:
            await self.load()
        session, turn = self.ask(question)
        self.speak(turn, "The ", "Seine.")
        self.finish(turn.turn)
        return session

    @property
    def asked(self) -> list[p.Generate]:
        """The requests for titles."""
        return [turn for turn in self.engine.turns() if not turn.session]

    async def wanted(self, count: int = 1) -> p.Generate:
        """Wait for a request for a title."""
        await self.until(lambda: len(self.asked) == count)
        return self.asked[-1]

    def stops(self) -> list[str]:
        return [command.turn for command in self.engine.sent if isinstance(command, p.Stop)]


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TitleBench]:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path))
    monkeypatch.setattr(titles, "IDLE_SECONDS", 0.02)
    bench = TitleBench()
    yield bench
    bench.titles.close()
    bench.conversation.finish_now()
    await bench.archive.close()


async def test_a_first_exchange_gets_a_title(bench: TitleBench) -> None:
    session = await bench.exchange()
    assert (session.title, session.named_by) == ("Which river flows through Paris?", "rule")
    request = await bench.wanted()
    assert "Which river flows through Paris?" in request.messages[0].content
    assert "The Seine." in request.messages[0].content
    assert request.sampling.temperature == 0.0
    bench.speak(request, " The river ", "of Paris")
    bench.finish(request.turn)
    await bench.until(lambda: session.title == "The river of Paris")
    assert session.named_by == "model"
    await bench.archive.flush()
    assert SessionStore().load(session.id).title == "The river of Paris"
    assert isinstance(bench.facts[-1], SessionsChanged)
    assert bench.conversation.streaming == frozenset()


async def test_the_users_own_title_stays(bench: TitleBench) -> None:
    session = await bench.exchange()
    request = await bench.wanted()
    bench.archive.rename(session.id, "Mine")
    bench.speak(request, " Another")
    bench.finish(request.turn)
    await bench.until(lambda: not bench.titles._naming)
    assert (session.title, session.named_by) == ("Mine", "user")
    _, turn = bench.ask("and London?", session)
    bench.finish(turn.turn)
    assert not bench.titles._waiting, "who named it once is not asked again"


async def test_a_question_stops_the_title_before_it_is_sent(bench: TitleBench) -> None:
    session = await bench.exchange()
    request = await bench.wanted()
    bench.speak(request, " Half a")
    _, turn = bench.ask("and London?", session)
    order = [command.turn for command in bench.engine.sent if isinstance(command, p.Stop | p.Generate)]
    assert order[-2:] == [request.turn, turn.turn], "the engine is told to stop first"
    assert bench.titles.writing is None
    bench.finish(request.turn, "stopped")
    assert session.title == "Which river flows through Paris?"
    bench.speak(turn, "The Thames.")
    bench.finish(turn.turn)
    again = await bench.wanted(2)
    bench.speak(again, " Rivers of capitals")
    bench.finish(again.turn)
    await bench.until(lambda: session.title == "Rivers of capitals")


async def test_nothing_is_asked_while_any_session_is_answered(bench: TitleBench) -> None:
    await bench.load()
    _, other = bench.ask("a long story")
    await bench.exchange()
    assert bench.titles._waiting
    bench.titles._look()
    assert bench.asked == []
    bench.speak(other, "Once")
    bench.finish(other.turn)
    first = await bench.wanted()
    bench.finish(first.turn)
    assert (await bench.wanted(2)).messages != first.messages, "one after the other"


async def test_a_title_that_never_comes_to_an_end_is_not_tried_for_ever(bench: TitleBench) -> None:
    session = await bench.exchange()
    for count in range(1, TRIES + 1):
        request = await bench.wanted(count)
        _, turn = bench.ask("more", session)
        bench.finish(request.turn, "stopped")
        bench.speak(turn, "Yes.")
        bench.finish(turn.turn)
    assert not bench.titles._waiting


async def test_one_line_is_enough(bench: TitleBench) -> None:
    session = await bench.exchange()
    request = await bench.wanted()
    bench.speak(request, " Rivers", " of France", "\nAnd here is", " why")
    await bench.until(lambda: session.title == "Rivers of France")
    assert request.turn in bench.stops()
    bench.finish(request.turn, "stopped")
    assert session.title == "Rivers of France"


@pytest.mark.parametrize("reason", ["length", "stopped"])
async def test_half_a_title_is_none(bench: TitleBench, reason: str) -> None:
    session = await bench.exchange()
    request = await bench.wanted()
    bench.speak(request, " A very")
    bench.finish(request.turn, reason)
    assert bench.titles.writing is None
    assert not bench.titles._naming
    assert session.named_by == "rule"


async def test_what_a_model_thinks_is_no_title(bench: TitleBench) -> None:
    session = await bench.exchange()
    request = await bench.wanted()
    bench.engine.say(p.Delta(turn=request.turn, text="Let me think\n", channel="thinking", tokens=3))
    bench.finish(request.turn)
    assert session.named_by == "rule"


async def test_a_session_of_another_program_is_left_alone(bench: TitleBench) -> None:
    session = await bench.exchange()
    request = await bench.wanted()
    await bench.archive.flush()
    bench.archive.show(bench.archive.new().id)
    bench.archive.show(session.id)
    other = bench.archive.new()
    bench.archive.show(other.id)
    with SessionLocks().acquire(session.id):
        bench.speak(request, " Rivers")
        bench.finish(request.turn)
        await bench.until(lambda: not bench.titles._naming)
    assert SessionStore().load(session.id).named_by == "rule"


async def test_a_session_that_was_left_gets_its_title_on_the_disk(bench: TitleBench) -> None:
    session = await bench.exchange()
    bench.archive.show(session.id)
    request = await bench.wanted()
    await bench.archive.flush()
    bench.archive.show(bench.archive.new().id)
    bench.speak(request, " Rivers")
    bench.finish(request.turn)
    await bench.until(lambda: SessionStore().load(session.id).title == "Rivers")
    with SessionLocks().acquire(session.id):
        pass


async def test_a_title_may_be_asked_for(bench: TitleBench) -> None:
    session = await bench.exchange()
    bench.archive.rename(session.id, "Mine")
    bench.titles._waiting.clear()
    bench.titles.ask(session.id)
    request = bench.asked[-1]
    assert bench.titles.writing == session.id
    bench.speak(request, " Better")
    bench.finish(request.turn)
    await bench.until(lambda: (session.title, session.named_by) == ("Better", "model"))
    bench.titles.ask(session.id)
    bench.finish(bench.asked[-1].turn)
    assert isinstance(bench.facts[-1], Notice), "that nothing came is said"
    with pytest.raises(UsageError, match="nothing to name"):
        bench.titles.ask(bench.archive.new().id)
    bench.ask("and now?", session)
    with pytest.raises(UsageError, match="No model is free"):
        bench.titles.ask(session.id)


async def test_titles_may_be_switched_off_and_end_with_the_program(bench: TitleBench) -> None:
    quiet = TitleBench(automatic=False)
    await quiet.exchange()
    assert not quiet.titles._waiting
    await quiet.archive.close()
    await bench.exchange()
    request = await bench.wanted()
    bench.titles.close()
    assert request.turn in bench.stops()
    assert bench.titles._timer is None


async def test_an_engine_that_dies_takes_the_title_with_it(bench: TitleBench) -> None:
    session = await bench.exchange()
    await bench.wanted()
    bench.engine.say(EngineExited(code=None, signal="SIGKILL", log_tail="", expected=False))
    assert bench.titles.writing is None
    assert session.named_by == "rule"
    await bench.load()


@pytest.mark.parametrize(
    ("said", "title"),
    [
        (" The capital of France", "The capital of France"),
        ('"Rivers of France."', "Rivers of France"),
        ("\n\n**Title: Sorting in Python**\nmore", "Sorting in Python"),
        ("Titel: Äpfel und Birnen", "Äpfel und Birnen"),
        ("# 日本の川", "日本の川"),
        ("élan vital", "Élan vital"),
        ("a\x1b]0;x\x07\u202eb", "A]0;xb"),
        ("", ""),
        (' "" ', ""),
        ("Sure, here is a title that goes on and on without end", ""),
        ("Pneumonoultramicroscopicsilicovolcanoconiosis-and-more-of-it", ""),
    ],
)
def test_what_is_taken_for_a_title(said: str, title: str) -> None:
    assert title_of(said) == title
