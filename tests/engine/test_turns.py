"""Turns: text, reasons, stops, seeds, and the rules of the protocol."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.rig import ENDS, GREEDY, Rig, asking
from engine.words import Bench
from quantchat.catalog.reader import read_model
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import protocol as p

pytestmark = pytest.mark.engine
SAMPLED = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=16)
LONG = SamplingSettings(temperature=0, max_new_tokens=4000)


@pytest.fixture(scope="module")
def loaded(models):
    from quantchat.engine import loader, quiet

    quiet.set_environment()
    quiet.silence()
    return loader.load(p.Load(request="", model=read_model(models / "gptq"), device="cpu"), lambda _: None)


def turn(loaded, sampling=GREEDY, cancelled=lambda: False, emit=lambda _: None, messages=None):
    bench = Bench(loaded, emit=emit)
    name = bench.start(messages or asking(), sampling, cancelled)
    end = bench.run()[name]
    return bench.said(name), end, bench.events


def reference(loaded, tokens: int) -> list[int]:
    """Greedy ids of plain `generate`."""
    import torch

    from quantchat.engine.prompt import render

    ids = render(loaded.tokenizer, asking()).ids
    inputs = torch.tensor([ids])
    mask = torch.ones_like(inputs)
    made = loaded.model.generate(input_ids=inputs, attention_mask=mask, max_new_tokens=tokens, pad_token_id=0)
    return made[0][len(ids) :].tolist()


def test_streamed_text_equals_the_decoded_ids_of_generate(loaded) -> None:
    text, end, _ = turn(loaded)
    ids = reference(loaded, GREEDY.max_new_tokens)
    whole = loaded.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    # A character that is cut at the very end stays with the decoder.
    assert text == whole or (whole.startswith(text) and set(whole[len(text) :]) == {"\ufffd"})
    assert text
    assert end.statistics.new_tokens == len(ids)


def test_events_and_statistics_of_a_turn(gptq: Rig) -> None:
    name = gptq.start()
    end = gptq.wait(*ENDS)
    mine = [event for event in gptq.events if getattr(event, "turn", None) == name]
    first, second = mine[:2]
    assert (first.done, first.total) == (0, end.statistics.prompt_tokens)
    assert (second.done, second.total) == (first.total, first.total)
    assert all(isinstance(event, p.Delta) for event in mine[2:-1])
    counts = [event.tokens for event in mine[2:-1]]
    assert counts == sorted(counts)
    assert end.statistics.new_tokens == 24
    assert end.statistics.prefill_seconds > 0
    assert end.statistics.decode_seconds > 0
    assert end.statistics.seed is None
    gptq.settle()
    assert gptq.ends(name) == [end]


def test_reason_length(loaded) -> None:
    assert turn(loaded)[1].reason == "length"


def test_reason_stop_at_an_end_token(loaded) -> None:
    ids = reference(loaded, 24)
    from dataclasses import replace

    end = turn(replace(loaded, eos_ids=frozenset({ids[10]})))[1]
    assert end.reason == "stop"
    assert end.statistics.new_tokens == ids.index(ids[10]) + 1


def test_reason_stop_at_a_stop_string_that_is_not_shown(loaded) -> None:
    whole = turn(loaded)[0]
    stop = whole[6:9]
    text, end, events = turn(loaded, msgspec.structs.replace(GREEDY, stop=(stop,)))
    assert end.reason == "stop"
    assert text == whole[: whole.index(stop)]
    assert end.statistics.new_tokens < 24
    assert not any(stop in event.text for event in events if isinstance(event, p.Delta))


def test_held_back_text_comes_out_at_the_end(loaded) -> None:
    whole = turn(loaded)[0]
    text, end, _ = turn(loaded, msgspec.structs.replace(GREEDY, stop=(whole[-2:] + "never",)))
    assert (text, end.reason) == (whole, "length")


def test_reason_context_at_the_wall(loaded) -> None:
    end = turn(loaded, LONG)[1]
    assert end.reason in ("context", "stop")
    if end.reason == "context":
        assert end.statistics.prompt_tokens + end.statistics.new_tokens == loaded.window


def test_a_prompt_longer_than_the_window_fails_by_name(gptq: Rig) -> None:
    text, end = gptq.answer(asking("word " * 400))
    assert text == ""
    assert isinstance(end, p.Failed)
    assert end.error.code == "context-full"
    assert gptq.answer()[1].reason == "length"


def test_stop_while_decoding_ends_within_a_token(loaded) -> None:
    seen: list[p.Event] = []
    text, end, _ = turn(
        loaded, LONG, cancelled=lambda: sum(isinstance(e, p.Delta) for e in seen) >= 3, emit=seen.append
    )
    assert end.reason == "stopped"
    assert text
    deltas = [event for event in seen if isinstance(event, p.Delta)]
    assert end.statistics.new_tokens <= deltas[-1].tokens + 1


def test_stop_in_prefill_leaves_between_layers(loaded) -> None:
    asked = itertools.count()
    text, end, events = turn(loaded, cancelled=lambda: next(asked) >= 1)
    assert (text, end.reason, end.statistics.new_tokens) == ("", "stopped", 0)
    assert [type(event) for event in events] == [p.Prefill]
    assert turn(loaded)[0], "no hook stays behind"


def test_stop_through_the_worker_keeps_the_text(gptq: Rig) -> None:
    name = gptq.start(sampling=LONG)
    gptq.wait(p.Delta)
    gptq.worker.submit(p.Stop(turn=name))
    end = gptq.wait(*ENDS)
    assert end.reason == "stopped"
    assert gptq.text(name)
    assert gptq.answer()[1].reason == "length", "a stop must not survive into the next turn"


def test_stop_of_another_turn_is_ignored(gptq: Rig) -> None:
    gptq.start()
    gptq.worker.submit(p.Stop(turn="somebody else"))
    assert gptq.wait(*ENDS).reason == "length"


def test_a_second_turn_of_a_session_is_refused_as_busy(gptq: Rig) -> None:
    first = gptq.start(sampling=LONG, session="s")
    second = gptq.start(session="s")
    refused = gptq.wait(*ENDS)
    assert (refused.turn, refused.error.code) == (second, "busy")
    gptq.worker.submit(p.Stop(turn=first))
    assert gptq.wait(*ENDS).turn == first
    gptq.settle()
    assert len(gptq.ends(second)) == 1


def test_the_next_turn_may_follow_the_end_at_once(gptq: Rig) -> None:
    for _ in range(20):
        assert gptq.answer(sampling=msgspec.structs.replace(GREEDY, max_new_tokens=1))[1].reason == "length"


def test_loading_stops_the_turn_first(gptq: Rig, models) -> None:
    name = gptq.start(sampling=LONG)
    gptq.wait(p.Delta)
    gptq.worker.submit(p.Load(request="next", model=read_model(models / "dense")))
    assert gptq.wait(*ENDS, p.Loaded).reason == "stopped"
    assert gptq.wait(p.Loaded).report.kernel == "dense"
    assert len(gptq.ends(name)) == 1


def test_a_turn_may_wait_behind_its_load_and_be_stopped_there(rig: Rig, models) -> None:
    rig.worker.submit(p.Load(request="slow", model=read_model(models / "gptq")))
    name = rig.start()
    rig.worker.submit(p.Stop(turn=name))
    end = rig.wait(*ENDS, p.Loaded)
    assert (end.turn, end.reason) == (name, "stopped")
    rig.wait(p.Loaded)
    rig.settle()
    assert len(rig.ends(name)) == 1


def test_same_seed_same_text(gptq: Rig) -> None:
    seeded = msgspec.structs.replace(SAMPLED, seed=11)
    first, end = gptq.answer(sampling=seeded)
    assert end.statistics.seed == 11
    assert gptq.answer(sampling=seeded)[0] == first
    assert gptq.answer(sampling=msgspec.structs.replace(SAMPLED, seed=12))[0] != first


def test_a_drawn_seed_is_reported_and_repeats_the_text(gptq: Rig) -> None:
    first, end = gptq.answer(sampling=SAMPLED)
    assert end.statistics.seed is not None
    assert gptq.answer(sampling=msgspec.structs.replace(SAMPLED, seed=end.statistics.seed))[0] == first


def test_sessions_are_answered_side_by_side(gptq: Rig) -> None:
    alone = gptq.answer()[0]
    names = [gptq.start(sampling=LONG, session="a"), gptq.start(session="b")]
    assert gptq.wait(*ENDS).turn == names[1], "the short answer does not wait for the long one"
    gptq.worker.submit(p.Stop(turn=names[0]))
    assert gptq.wait(*ENDS).reason == "stopped"
    # Rounding in a batch may part the texts where two tokens are nearly equal, seldom at the first.
    assert gptq.text(names[1])[:1] == alone[:1]


def test_tokens_are_counted_while_an_answer_runs(gptq: Rig) -> None:
    name = gptq.start(sampling=LONG)
    gptq.wait(p.Delta)
    gptq.worker.submit(p.CountTokens(request="c", messages=asking()))
    assert isinstance(gptq.wait(p.TokenCount, *ENDS), p.TokenCount)
    gptq.worker.submit(p.Stop(turn=name))
    gptq.wait(*ENDS)


def test_a_kept_session_is_told_reused_and_forgotten(gptq: Rig) -> None:
    _, end = gptq.answer(session="s")
    gptq.settle()
    warm = [event for event in gptq.events if isinstance(event, p.Warm)][-1]
    (kept,) = warm.sessions
    assert (kept.session, kept.place) == ("s", "device")
    assert kept.tokens == end.statistics.prompt_tokens + end.statistics.new_tokens - 1
    assert kept.bytes > 0
    assert gptq.answer(session="s")[1].statistics.reused_tokens == end.statistics.prompt_tokens - 1
    gptq.worker.submit(p.Forget(session="s"))
    gptq.settle()
    assert [event for event in gptq.events if isinstance(event, p.Warm)][-1].sessions == ()
    assert gptq.answer(session="s")[1].statistics.reused_tokens == 0


FAULTS = {
    "generation": RuntimeError("the kernel fell over"),
    "out-of-memory": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_failure_in_the_model_is_one_failed_event(gptq: Rig, monkeypatch, code: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FAULTS[code]

    with monkeypatch.context() as patch:
        patch.setattr("quantchat.engine.forward.Forward.__call__", fail)
        _, end = gptq.answer(session="s")
    assert end.error.code == code
    assert end.error.remedy
    assert isinstance(gptq.answer(session="s")[1], p.Finished), "the chat goes on"


def test_a_panic_of_a_library_is_one_failed_event_and_the_worker_lives(gptq: Rig, monkeypatch) -> None:
    class Panic(BaseException):
        """As pyo3's PanicException, no Exception."""

    def panic(*_, **__) -> None:
        raise Panic("called `Option::unwrap()` on a `None` value")

    for place in ("context.fit", "scheduler.Scheduler.step", "scheduler.Scheduler.start"):
        with monkeypatch.context() as patch:
            patch.setattr(f"quantchat.engine.{place}", panic)
            _, end = gptq.answer()
        assert isinstance(end, p.Failed), place
        assert "unwrap" in end.error.detail
        assert isinstance(gptq.answer()[1], p.Finished)


def test_prompt_is_counted_and_shown(gptq: Rig) -> None:
    gptq.worker.submit(p.CountTokens(request="c", messages=asking()))
    counted = gptq.wait(p.TokenCount)
    gptq.worker.submit(p.RenderPrompt(request="r", messages=asking()))
    shown = gptq.wait(p.RenderedPrompt)
    assert counted.tokens == shown.tokens
    assert counted.window == 256
    assert shown.text.endswith("<|assistant|>")


def test_ping_is_answered_while_busy(gptq: Rig) -> None:
    name = gptq.start(sampling=LONG)
    gptq.wait(p.Delta)
    gptq.worker.submit(p.Ping(request="x"))
    assert gptq.wait(p.Pong, *ENDS).busy
    gptq.worker.submit(p.Stop(turn=name))
    gptq.wait(*ENDS)


STEPS = st.lists(st.sampled_from(["turn", "stop", "stop-old", "settle", "delta", "unload", "load"]), max_size=7)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_every_turn_ends_exactly_once(rig: Rig, models, steps: list[str]) -> None:
    rig.settle()
    rig.events.clear()
    info = read_model(models / "dense")
    turns: list[str] = []
    for step in ["load", *steps]:
        match step:
            case "load":
                rig.worker.submit(p.Load(request=rig.name(), model=info))
            case "unload":
                rig.worker.submit(p.Unload(request=rig.name()))
            case "turn":
                turns.append(rig.start(sampling=LONG))
            case "stop" if turns:
                rig.worker.submit(p.Stop(turn=turns[-1]))
            case "stop-old" if turns:
                rig.worker.submit(p.Stop(turn=turns[0]))
            case "delta" if turns and not rig.ends(turns[-1]):
                rig.wait(p.Delta, *ENDS, p.LoadFailed, p.Loaded)
            case "settle":
                rig.settle()
    rig.settle()
    assert [len(rig.ends(turn)) for turn in turns] == [1] * len(turns)
    for turn in turns:
        mine = [event for event in rig.events if getattr(event, "turn", None) == turn]
        assert isinstance(mine[-1], ENDS), "nothing comes after the end"
