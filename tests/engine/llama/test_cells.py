"""Sessions in llama.cpp's cells: they leave to the host and come back, turns wait for each other, a pass is stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.llama import tiny_gguf
from engine.llama.letters import Answer
from engine.rig import GREEDY, Rig, asking
from quantchat.catalog.reader import read_model
from quantchat.domain import offload
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import protocol as p
from quantchat.engine.backends.llama.turn import LlamaTurn

QUESTION = "the other brother gathers feathers there "
LONG = SamplingSettings(temperature=0, max_new_tokens=300)
Alone = Callable[..., Answer]
CELLS = 512


@pytest.fixture
def small(llama: Rig, tiny: Path) -> Rig:
    """The tiny file with so few cells that two long conversations find no room side by side."""
    token = offload.token_bytes(read_model(tiny))
    answer = llama.load(tiny, kv_budget=CELLS * token, host_kv_budget=1 << 24)
    assert answer.report.context_window == CELLS
    llama.events.clear()
    return llama


def warm(rig: Rig) -> tuple[p.WarmSession, ...]:
    return next(event.sessions for event in reversed(rig.events) if isinstance(event, p.Warm))


def question(number: int) -> list:
    return asking(f"{number} " + QUESTION * 5)


def test_sessions_that_find_no_room_wait_on_the_host_and_are_reused(small: Rig, alone: Alone) -> None:
    first = [alone(question(number), session=f"s{number}") for number in range(4)]
    places = {one.session: one.place for one in warm(small)}
    assert len(places) == 4
    assert places["s3"] == "device"
    assert places["s0"] == "host"
    again, end = small.answer(question(0), session="s0")
    assert first[0] == again
    assert end.statistics.reused_tokens == end.statistics.prompt_tokens - 1


def test_without_room_on_the_host_the_oldest_is_dropped(llama: Rig, alone: Alone, tiny: Path) -> None:
    token = offload.token_bytes(read_model(tiny))
    llama.load(tiny, kv_budget=CELLS * token, host_kv_budget=0)
    first = [alone(question(number), session=f"s{number}") for number in range(3)]
    assert "s0" not in {one.session for one in warm(llama)}
    again, end = llama.answer(question(0), session="s0")
    assert first[0] == again
    assert end.statistics.reused_tokens == 0


def test_turns_that_grow_beyond_the_cells_wait_and_lose_nothing(
    small: Rig, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []
    whole = LlamaTurn.leave
    monkeypatch.setattr(LlamaTurn, "leave", lambda turn: (left.append(turn.name), whole(turn)))
    expected = [alone(asking(f"{number} feathers"), LONG) for number in range(3)]
    turns = [small.start(asking(f"{number} feathers"), LONG, session=f"s{number}") for number in range(3)]
    small.settle()
    assert expected == [small.text(turn) for turn in turns]
    assert left


def test_more_sessions_than_places_all_get_their_answers(loaded: Rig, alone: Alone) -> None:
    count = offload.SEQUENCES + 3
    expected = [alone(asking(f"{number} feathers")) for number in range(count)]
    turns = [loaded.start(asking(f"{number} feathers"), session=f"s{number}") for number in range(count)]
    loaded.settle()
    assert expected == [loaded.text(turn) for turn in turns]


def test_a_forgotten_session_is_computed_anew(loaded: Rig) -> None:
    loaded.answer(session="s")
    loaded.worker.submit(p.Forget(session="s"))
    _, end = loaded.answer(session="s")
    assert end.statistics.reused_tokens == 0


def test_stop_ends_a_prompt_in_the_middle_of_a_pass(llama: Rig, alone: Alone, tmp_path: Path) -> None:
    window = 8192
    path = tiny_gguf.write(tmp_path / "long.gguf", window=window)
    llama.load(path)
    text = QUESTION * (window // len(QUESTION) - 5)
    turn = llama.start(asking(text), session="s")
    while llama.wait(p.Prefill).done == 0:
        pass
    llama.worker.submit(p.Stop(turn=turn))
    stopped = llama.wait(p.Finished, p.Failed)
    assert (stopped.reason, stopped.statistics.new_tokens) == ("stopped", 0)
    again, end = llama.answer(asking(text), session="s")
    assert 0 < end.statistics.reused_tokens < end.statistics.prompt_tokens - 1
    assert alone(asking(text)) == again


def test_an_aborted_pass_leaves_the_session_as_it_was(
    loaded: Rig, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantchat.engine.backends.llama import scheduler

    loaded.answer(question(0), session="s")
    asked = []
    monkeypatch.setattr(scheduler, "_unwanted", lambda turns: len(asked) < 3 and not asked.append(1))
    text, end = loaded.answer(question(1), session="s")
    assert len(asked) == 3
    assert alone(question(1)) == text
    assert isinstance(end, p.Finished)


def test_an_unload_gives_everything_back_and_the_next_load_answers(loaded: Rig, alone: Alone, tiny: Path) -> None:
    before = alone(session="s")
    loaded.worker.submit(p.Unload(request="u"))
    loaded.wait(p.Unloaded)
    assert warm(loaded) == ()
    _, refused = loaded.answer()
    assert refused.error.code == "no-model"
    loaded.load(tiny)
    assert before == loaded.answer(sampling=GREEDY)[0]
