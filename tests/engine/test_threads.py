"""The choice of decode threads, and giving it up when the box is busy."""

from __future__ import annotations

import pytest

from quantchat.engine import pace, threads
from quantchat.engine.pace import LONG, RECENT, SEVERAL, DecodeThreads, Pace
from quantchat.engine.threads import Threads, calibrate

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(
    ("seconds", "count"),
    [({1: 1.0, 2: 0.5}, 2), ({1: 1.0, 2: 0.99}, 1), ({1: 1.0, 2: 9.0}, 1)],
    ids=["two are faster", "hardly faster", "the box is busy"],
)
def test_more_threads_must_pay(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], count: int) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(threads, "_measure", lambda model, candidates: seconds)
    assert calibrate(None, "cpu") == DecodeThreads(count, 1.0)


def test_a_gpu_is_not_measured() -> None:
    assert calibrate(None, "cuda:0").count == 1


def test_a_slow_stretch_gives_the_threads_up_once() -> None:
    pace = Pace(DecodeThreads(2, 0.01))
    assert not any(pace.step(0.009) for _ in range(100))
    told = [pace.step(0.05) for _ in range(3 * RECENT)]
    assert told.count(True) == 1
    assert told.index(True) <= RECENT


def test_a_single_slow_step_changes_nothing() -> None:
    pace = Pace(DecodeThreads(2, 0.01))
    assert not any(pace.step(1.0 if number % 10 == 5 else 0.009) for number in range(200))


def test_prompts_take_all_cores_until_those_are_fought_over(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(pace, "cores", lambda: 4)
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: 0)
    monkeypatch.setattr(threads.torch, "set_num_threads", counts.append)
    used = Threads(DecodeThreads(1, 0.01))
    used.use(LONG)
    used.took(LONG, LONG * 0.001)
    used.use(SEVERAL)
    used.took(SEVERAL, 1.0)
    used.use(LONG)
    used.use(SEVERAL - 1)
    assert counts == [4, 4, 4, 1]
    used.took(LONG, LONG * 0.02)
    used.use(LONG)
    used.took(LONG, LONG * 0.01)
    used.use(LONG)
    used.took(LONG, LONG * 0.03)
    used.use(LONG)
    used.refresh()
    used.use(LONG)
    assert counts[4:] == [1, 1, 1, 4]


def test_a_processor_that_is_slow_with_prompts_is_not_taken_for_a_crowded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "cores", lambda: 4)
    used = pace.ThreadChoice(DecodeThreads(1, 0.01))
    counts: list[int] = []
    for seconds in (0.006, 0.009, 0.006, 0.007, 0.015, 0.009):
        counts.append(used.count(LONG))
        used.took(LONG, LONG * seconds)
    assert counts == [4, 1, 4, 4, 4, 1], "one pass with one thread tells, until all cores take far longer than then"
    assert used.count(LONG) == 1
    used.refresh()
    assert used.count(LONG) == 4
