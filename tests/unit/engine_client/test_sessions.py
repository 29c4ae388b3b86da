"""Several sessions at once over the protocol, as the scripted engine speaks it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from client_rig import ClientRig
from quantchat.domain.chat import ChatMessage
from quantchat.engine import protocol as p

ENDLESS: dict[str, object] = {"match": "endless", "text": "word " * 5000, "tokens_per_second": 100}


@pytest.fixture
async def engine(tmp_path: Path) -> Iterator[ClientRig]:
    rig = ClientRig(tmp_path, {"answers": [ENDLESS], "window": 40, "warm": [1, 1]})
    await rig.start()
    await rig.load()
    yield rig
    await rig.client.close()


def text_of(engine: ClientRig, turn: str) -> str:
    return "".join(event.text for event in engine.of_turn(turn) if isinstance(event, p.Delta))


async def test_two_sessions_answer_at_once_and_one_is_refused_by_name(engine: ClientRig) -> None:
    engine.ask("one", "endless", session="a")
    engine.ask("two", "endless too", session="b")
    engine.ask("again", "endless", session="a")
    for turn in ("one", "two"):
        await engine.wait_for(p.Delta, lambda event, turn=turn: event.turn == turn and event.tokens > 20)
    refused = await engine.finish("again")
    assert isinstance(refused, p.Failed)
    assert refused.error.code == "busy"
    order = [event.turn for event in engine.events if isinstance(event, p.Delta)]
    assert sum(one != two for one, two in pairwise(order)) > 10
    engine.client.send(p.Stop(turn="one"))
    stopped = await engine.finish("one")
    assert isinstance(stopped, p.Finished)
    assert stopped.reason == "stopped"
    assert not engine.ends("two")
    engine.client.send(p.Stop(turn="two"))
    await engine.finish("two")


async def test_the_next_turn_of_a_session_finds_its_prompt_warm(engine: ClientRig) -> None:
    engine.ask("one", "hello there", session="a")
    await engine.finish("one")
    assert [kept.session for kept in (await engine.wait_for(p.Warm)).sessions] == ["a"]
    engine.ask("two", "hello there", session="a")
    end = await engine.finish("two")
    assert isinstance(end, p.Finished)
    assert end.statistics.reused_tokens == end.statistics.prompt_tokens - 1
    engine.ask("three", "hello", session="b")
    engine.client.send(p.Forget(session="unknown"))
    await engine.wait_for(p.Warm, lambda event: [(w.session, w.place) for w in event.sessions] == PARKED)
    engine.client.send(p.Forget(session="a"))
    await engine.wait_for(p.Warm, lambda event: [warm.session for warm in event.sessions] == ["b"])


PARKED = [("b", "device"), ("a", "host")]


async def test_a_resumed_answer_says_only_the_rest(engine: ClientRig) -> None:
    engine.ask("one", "a b c d", session="a", max_new_tokens=3)
    await engine.finish("one")
    begun = text_of(engine, "one")
    engine.ask("two", "a b c d", session="a", resume=p.Partial(text=begun))
    await engine.finish("two")
    assert begun + text_of(engine, "two") == "You said: a b c d"


async def test_the_oldest_turns_leave_a_full_window(engine: ClientRig) -> None:
    long = [ChatMessage("system", "be brief")]
    for number in range(4):
        long += [ChatMessage("user", f"question {number} of four"), ChatMessage("assistant", "an answer to it")]
    long.append(ChatMessage("user", "the last"))
    engine.client.send(p.CountTokens(request="count", messages=long, session="a", reserve=10))
    count = await engine.wait_for(p.TokenCount)
    assert (count.window, count.reserve, count.dropped) == (40, 10, 6)
    assert count.tokens + count.reserve <= count.window
