"""Which sessions' caches stay, where they wait, and what leaves first."""

from __future__ import annotations

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import zoo
from quantchat.cgroups import limits
from quantchat.engine.kvcache import SessionCache
from quantchat.engine.warm import WarmSessions, default_budgets

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def model():
    return zoo.make("llama")


@torch.inference_mode()
def cache_of(model, tokens: int) -> SessionCache:
    cache = SessionCache(model)
    prompt = [2 + number % 250 for number in range(tokens + 1)]
    cache.reuse(prompt)
    model(input_ids=torch.tensor([prompt[:-1]]), use_cache=True, **cache.arguments)
    cache.append(prompt[:-1])
    return cache


@pytest.fixture(scope="module")
def size(model) -> int:
    """Bytes of the cache that most of these tests keep."""
    return kept_size(model, 300)


def kept_size(model, tokens: int) -> int:
    warm = WarmSessions(10**9, 0)
    warm.put("x", cache_of(model, tokens))
    return warm.listing()[0].bytes


def places(warm: WarmSessions) -> list[tuple[str, str]]:
    return [(entry.session, entry.place) for entry in warm.listing()]


def filled(model, budget: int, host_budget: int, count: int = 3) -> WarmSessions:
    warm = WarmSessions(budget, host_budget)
    for name in "abcdefgh"[:count]:
        warm.put(name, cache_of(model, 300))
    return warm


def test_the_least_recently_used_leaves_for_the_host_and_then_for_good(model, size) -> None:
    warm = filled(model, 2 * size, size, count=4)
    assert places(warm) == [("d", "device"), ("c", "device"), ("b", "host")]


def test_taking_makes_a_session_the_most_recently_used(model, size) -> None:
    warm = filled(model, 2 * size, size)
    first = warm.take("a")
    assert first is not None
    assert first.place == "device"
    assert places(warm) == [("c", "device"), ("b", "host")]
    warm.put("a", first)
    assert places(warm) == [("a", "device"), ("c", "device"), ("b", "host")]


def test_a_session_that_comes_back_still_has_its_tokens(model, size) -> None:
    warm = filled(model, size, 2 * size)
    assert places(warm)[-1] == ("a", "host")
    cache = warm.take("a")
    assert cache is not None
    fresh = cache_of(model, 300)
    assert cache.ids == fresh.ids
    for mine, other in zip(cache.cache.layers, fresh.cache.layers, strict=True):
        assert torch.equal(mine.keys, other.keys)
        assert torch.equal(mine.values, other.values)


def test_without_a_host_budget_the_oldest_is_dropped(model, size) -> None:
    assert places(filled(model, 2 * size, 0)) == [("c", "device"), ("b", "device")]


def test_a_cache_larger_than_the_budget_goes_alone(model, size) -> None:
    warm = filled(model, 2 * size, 0, count=2)
    warm.put("large", cache_of(model, 900))
    assert places(warm) == [("b", "device"), ("a", "device")]
    warm = filled(model, 2 * size, 4 * size, count=2)
    warm.put("large", cache_of(model, 900))
    assert places(warm) == [("large", "host"), ("b", "device"), ("a", "device")]


def test_room_for_a_running_turn_moves_the_oldest(model, size) -> None:
    warm = filled(model, 3 * size, 3 * size)
    warm.room(2 * size)
    assert places(warm) == [("c", "device"), ("b", "host"), ("a", "host")]
    warm.room(9 * size)
    assert {place for _, place in places(warm)} == {"host"}


def test_what_is_lent_counts_until_it_is_given_back_or_gone(model, size) -> None:
    warm = filled(model, 3 * size, 3 * size)
    first, second = warm.take("c"), SessionCache(model)
    warm.lend(first, 0)
    assert places(warm) == [("b", "device"), ("a", "device")]
    warm.lend(second, size)
    assert places(warm) == [("b", "device"), ("a", "host")]
    warm.put("c", first)
    assert places(warm) == [("c", "device"), ("b", "device"), ("a", "host")]
    warm.put("d", cache_of(model, 300))
    assert places(warm)[1:] == [("c", "device"), ("b", "host"), ("a", "host")]
    del second
    warm.put("e", cache_of(model, 300))
    assert [place for _, place in places(warm)[:3]] == ["device"] * 3


def test_what_is_forgotten_or_empty_is_not_kept(model, size) -> None:
    warm = filled(model, 3 * size, 0, count=2)
    warm.forget("a")
    warm.forget("unknown")
    warm.put("empty", SessionCache(model))
    assert places(warm) == [("b", "device")]
    assert warm.take("a") is None
    warm.clear()
    assert warm.listing() == ()


def test_putting_a_session_again_replaces_its_cache(model, size) -> None:
    warm = filled(model, 3 * size, 0, count=1)
    warm.put("a", cache_of(model, 20))
    assert [entry.tokens for entry in warm.listing()] == [20]


def no_memory(_: SessionCache) -> None:
    raise torch.OutOfMemoryError("no memory")


def test_a_cache_that_finds_no_memory_on_the_device_is_dropped(model, size, monkeypatch) -> None:
    warm = filled(model, size, 3 * size, count=2)
    monkeypatch.setattr(SessionCache, "to_device", no_memory)
    assert warm.take("a") is None
    assert places(warm) == [("b", "host")]


def test_a_cache_that_finds_no_memory_on_the_host_is_dropped(model, size, monkeypatch) -> None:
    warm = filled(model, size, 3 * size, count=1)
    monkeypatch.setattr(SessionCache, "to_host", no_memory)
    warm.put("b", cache_of(model, 300))
    assert places(warm) == [("b", "device")]


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "take", "room", "forget"]), st.sampled_from("abcd"), st.integers(1, 400)),
    max_size=14,
)


@settings(deadline=None, max_examples=40)
@given(STEPS, st.integers(0, 4), st.integers(0, 4))
def test_neither_budget_is_ever_exceeded(model, size, steps, device_share: int, host_share: int) -> None:
    budgets = {"device": device_share * size // 2, "host": host_share * size // 2}
    warm = WarmSessions(budgets["device"], budgets["host"])
    used: list[str] = []
    for action, name, tokens in steps:
        if action == "put":
            warm.put(name, cache_of(model, tokens))
            used = [name, *(other for other in used if other != name)]
        elif action == "room":
            warm.room(tokens * size // 300)
        else:
            getattr(warm, action)(name)
        listing = warm.listing()
        for place, budget in budgets.items():
            assert sum(entry.bytes for entry in listing if entry.place == place) <= budget
        assert [entry.session for entry in listing] == [n for n in used if n in {entry.session for entry in listing}]


def test_a_cpu_has_one_budget_and_it_is_a_share_of_what_is_free() -> None:
    device, host = default_budgets("cpu")
    assert 0 < device < psutil.virtual_memory().available / 2
    assert host == 0


def test_a_container_limit_counts(monkeypatch, tmp_path) -> None:
    free, _ = default_budgets("cpu")
    (tmp_path / "self").write_text("0::/\n")
    monkeypatch.setattr("quantchat.cgroups.limits", lambda: limits(tmp_path, tmp_path / "self"))
    (tmp_path / "memory.current").write_text("3000000")
    (tmp_path / "memory.max").write_text("max\n")
    assert default_budgets("cpu")[0] == pytest.approx(free, rel=0.5)
    (tmp_path / "memory.max").write_text("4000000")
    assert default_budgets("cpu")[0] < 1000_000
