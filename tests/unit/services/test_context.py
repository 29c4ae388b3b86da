"""Measuring the session on the screen: rarely, one request at a time, and never what is known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from quantchat.domain.chat import CONTEXT_FULL, Message, Session
from quantchat.engine import protocol as p
from quantchat.engine.client import EngineExited
from quantchat.errors import ErrorReport
from quantchat.services.context import ContextMeter, Measured
from quantchat.services.facts import ContextMeasured
from unit.services.turn_bench import REPORT, Bench

FULL = ErrorReport(code=CONTEXT_FULL, title="The question does not fit")


class MeterBench(Bench):
    """With a meter of the session that `shown` names."""

    def __init__(self) -> None:
        super().__init__()
        self.meter = ContextMeter(self.library, self.conversation, self.facts.append)
        self.library.on_turn_event = self._on_event
        self.session = self.archive.new()
        self.draft = ""
        self.meter.shown = lambda: (self.session, self.draft)

    def _on_event(self, event: p.Event | EngineExited) -> None:
        self.conversation.on_event(event)
        self.meter.on_event(event)

    @property
    def counts(self) -> list[p.CountTokens]:
        return [command for command in self.engine.sent if isinstance(command, p.CountTokens)]

    async def counted(self, number: int, *, written: bool = False) -> p.CountTokens:
        """Touch the meter and wait until it has asked so often."""
        self.meter.touch(written=written)
        await self.until(lambda: len(self.counts) >= number)
        assert len(self.counts) == number
        return self.counts[-1]

    async def settled(self) -> None:
        """Wait until a touch has had its effect."""
        self.meter.touch()
        await self.until(lambda: not self.meter.pending)

    def answer(self, count: p.CountTokens, **what: int) -> None:
        self.engine.say(p.TokenCount(request=count.request, window=100, reserve=25, **what))

    def talk(self, *texts: str) -> list[Message]:
        roles = ("user", "assistant")
        return [self.session.append(roles[index % 2], text) for index, text in enumerate(texts)]  # type: ignore[arg-type]

    @property
    def measurements(self) -> int:
        return sum(isinstance(fact, ContextMeasured) for fact in self.facts)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MeterBench]:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path))
    made = MeterBench()
    yield made
    made.meter.close()
    await made.archive.close()


async def test_nothing_is_asked_without_a_model_or_a_word(bench: MeterBench) -> None:
    bench.talk("why", "because")
    await bench.settled()
    assert bench.meter.of(bench.session) is None
    assert bench.engines == []
    await bench.load()
    bench.session = bench.archive.new()
    bench.draft = "  \n"
    await bench.settled()
    assert bench.counts == []


async def test_the_prompt_is_counted_with_what_is_being_written(bench: MeterBench) -> None:
    await bench.load()
    first, _, second, _ = bench.talk("why", "because", "and", "so")
    bench.session.system_prompt = "law"
    bench.draft = "more"
    count = await bench.counted(1, written=True)
    assert [message.content for message in count.messages] == ["law", "why", "because", "and", "so", "more"]
    assert (count.session, count.reserve) == (bench.session.id, 1024)
    bench.answer(count, tokens=70, dropped=3)
    measured = bench.meter.of(bench.session)
    assert measured == Measured(tokens=70, window=100, reserve=25, unseen=second.id)
    assert bench.meter.unseen(bench.session) == second.id != first.id
    assert bench.measurements == 1


async def test_another_system_prompt_or_template_is_counted_anew(bench: MeterBench) -> None:
    await bench.load()
    bench.talk("why", "because")
    first = await bench.counted(1)
    bench.answer(first, tokens=10)
    bench.session.template = "{{ messages }}"
    second = await bench.counted(2)
    assert (first.template, second.template) == ("", "{{ messages }}")
    bench.answer(second, tokens=12)
    bench.session.system_prompt = "law"
    bench.answer(await bench.counted(3), tokens=14)
    measured = bench.meter.of(bench.session)
    assert measured is not None
    assert measured.tokens == 14


async def test_what_is_known_is_not_asked_again(bench: MeterBench) -> None:
    await bench.load()
    bench.talk("why", "because")
    bench.answer(await bench.counted(1), tokens=9)
    await bench.settled()
    assert len(bench.counts) == 1
    bench.draft = "x"
    bench.answer(await bench.counted(2, written=True), tokens=10)
    bench.draft = ""
    await bench.counted(3)


async def test_one_request_is_under_way_and_the_last_state_is_asked_behind_it(bench: MeterBench) -> None:
    await bench.load()
    bench.talk("why", "because")
    first = await bench.counted(1)
    for draft in ("a", "ab", "abc"):
        bench.draft = draft
        await bench.settled()
    assert len(bench.counts) == 1
    bench.answer(first, tokens=9)
    assert [count.messages[-1].content for count in bench.counts] == ["because", "abc"]


async def test_answers_to_other_requests_change_nothing(bench: MeterBench) -> None:
    await bench.load()
    bench.talk("why", "because")
    await bench.counted(1)
    bench.engine.say(p.TokenCount(request="another", tokens=1, window=2))
    bench.engine.say(p.RequestFailed(request="another", error=FULL))
    assert bench.meter.of(bench.session) is None


async def test_a_running_answer_is_not_measured_and_says_itself_what_it_sees(bench: MeterBench) -> None:
    await bench.load()
    first, second, *_ = bench.talk("why", "because", "and", "so")
    bench.answer(await bench.counted(1), tokens=9, dropped=1)
    _, turn = bench.ask("more", bench.session)
    await bench.settled()
    assert len(bench.counts) == 1
    assert bench.meter.unseen(bench.session) == first.id
    bench.engine.say(p.Prefill(turn=turn.turn, done=1, total=9, dropped=2))
    assert bench.meter.unseen(bench.session) == second.id
    bench.speak(turn, "well")
    bench.finish(turn.turn)
    await bench.counted(2)


async def test_a_prompt_that_cannot_be_sent_says_why(bench: MeterBench) -> None:
    await bench.load()
    bench.draft = "endless"
    count = await bench.counted(1)
    bench.engine.say(p.RequestFailed(request=count.request, error=FULL))
    measured = bench.meter.of(bench.session)
    assert measured is not None
    assert measured.refusal == FULL
    assert bench.meter.unseen(bench.session) is None


async def test_an_empty_prompt_after_an_answer_is_refused_nothing(bench: MeterBench) -> None:
    await bench.load()
    bench.talk("a question that fills the window", "and")
    count = await bench.counted(1)
    bench.engine.say(p.RequestFailed(request=count.request, error=FULL))
    measured = bench.meter.of(bench.session)
    assert measured is not None
    assert measured.refusal is None


async def test_another_failure_is_no_refusal(bench: MeterBench) -> None:
    await bench.load()
    bench.draft = "x"
    count = await bench.counted(1)
    bench.engine.say(p.RequestFailed(request=count.request, error=ErrorReport(code="template", title="No")))
    measured = bench.meter.of(bench.session)
    assert measured is not None
    assert measured.refusal is None


async def test_figures_of_another_model_do_not_count(bench: MeterBench) -> None:
    await bench.load()
    bench.talk("why", "because")
    bench.answer(await bench.counted(1), tokens=9, dropped=1)
    bench.library.loaded = msgspec.structs.replace(REPORT)
    assert bench.meter.of(bench.session) is None
    assert bench.meter.unseen(bench.session) is None
    bench.answer(await bench.counted(2), tokens=9)
    assert bench.meter.of(bench.session) == Measured(tokens=9, window=100, reserve=25)


async def test_a_request_that_died_with_its_engine_is_asked_of_the_next(bench: MeterBench) -> None:
    await bench.load()
    bench.talk("why", "because")
    await bench.counted(1)
    bench.engine.running = False
    bench.engine.say(EngineExited(code=1, signal=None, log_tail="", expected=False))
    await bench.settled()
    await bench.load()
    await bench.counted(1)


async def test_refused_questions_are_no_part_of_what_is_dropped(bench: MeterBench) -> None:
    await bench.load()
    refused, answer, question, _ = bench.talk("endless", "", "why", "because")
    answer.error = FULL
    count = await bench.counted(1)
    assert [message.content for message in count.messages] == ["why", "because"]
    bench.answer(count, tokens=9, dropped=1)
    assert bench.meter.unseen(bench.session) == question.id != refused.id


async def test_sessions_keep_their_own_figures(bench: MeterBench) -> None:
    await bench.load()
    bench.talk("why", "because")
    bench.answer(await bench.counted(1), tokens=9)
    first, bench.session = bench.session, bench.archive.new()
    bench.talk("who", "me")
    bench.answer(await bench.counted(2), tokens=5)
    assert [measured and measured.tokens for measured in map(bench.meter.of, (first, bench.session))] == [9, 5]
    assert bench.meter.of(Session.new()) is None
