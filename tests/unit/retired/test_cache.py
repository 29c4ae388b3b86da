"""The KV cache over transformers 4's, of which this is the part that is used; the real one is in the contract's run."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.engine
LAYERS = 3


class DynamicCache:
    """As in transformers 4.51: positive crops, tuples of keys and values, lengths told by the first layer."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Any, Any]] = []

    def update(self, states: Any, layer: int) -> None:
        import torch

        if layer == len(self.pairs):
            self.pairs.append((states.clone(), states.clone()))
        else:
            self.pairs[layer] = tuple(torch.cat([held, states], dim=2) for held in self.pairs[layer])

    def crop(self, length: int) -> None:
        if self.pairs and self.pairs[0][0].shape[2] > length:
            self.pairs = [(keys[:, :, :length], values[:, :, :length]) for keys, values in self.pairs]

    def to_legacy_cache(self) -> tuple[tuple[Any, Any], ...]:
        return tuple(self.pairs)

    @classmethod
    def from_legacy_cache(cls, pairs: tuple[tuple[Any, Any], ...]) -> DynamicCache:
        made = cls()
        made.pairs = list(pairs)
        return made


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Any:
    from quantchat.engine.backends.retired import cache

    monkeypatch.setattr(cache, "DynamicCache", DynamicCache)
    return cache.RetiredCache()


def compute(cache: Any, ids: list[int], layers: int = LAYERS) -> None:
    """A forward pass over some tokens; one that fails comes to some layers only."""
    import torch

    states = torch.tensor(ids, dtype=torch.float32).reshape(1, 1, -1, 1)
    for layer in range(layers):
        cache.cache.update(states, layer)
    if layers == LAYERS:
        cache.append(ids)


def held(cache: Any) -> list[list[float]]:
    return [keys.flatten().tolist() for keys, _ in cache.cache.to_legacy_cache()]


def test_what_the_next_prompt_begins_with_stays(cache: Any) -> None:
    compute(cache, [1, 2, 3, 4])
    assert cache.reuse([1, 2, 9, 4]) == 2
    assert held(cache) == [[1, 2]] * LAYERS
    compute(cache, [9, 4])
    assert cache.ids == [1, 2, 9, 4]
    assert held(cache) == [[1, 2, 9, 4]] * LAYERS


@pytest.mark.parametrize("prompt", [[1, 2, 3, 4], [1, 2, 3]])
def test_a_token_is_always_left_to_compute(cache: Any, prompt: list[int]) -> None:
    compute(cache, [1, 2, 3, 4])
    assert cache.reuse(prompt) == len(prompt) - 1
    assert held(cache) == [prompt[:-1]] * LAYERS


def test_another_conversation_begins_anew(cache: Any) -> None:
    compute(cache, [1, 2, 3])
    assert cache.reuse([7, 2, 3]) == 0
    assert held(cache) == []
    compute(cache, [7])
    assert held(cache) == [[7]] * LAYERS


@pytest.mark.parametrize("layers", [1, 2])
def test_a_pass_that_failed_half_way_leaves_nothing_behind(cache: Any, layers: int) -> None:
    compute(cache, [1, 2])
    compute(cache, [3, 4], layers)
    cache.recover()
    assert held(cache) == [[1, 2]] * LAYERS
    compute(cache, [3])
    assert held(cache) == [[1, 2, 3]] * LAYERS


def test_drafts_that_were_wrong_are_dropped(cache: Any) -> None:
    compute(cache, [1, 2, 3, 4])
    cache.rollback(3)
    assert (cache.ids, held(cache)) == ([1], [[1]] * LAYERS)


def test_a_session_that_waits_holds_no_more_than_it_needs(cache: Any) -> None:
    compute(cache, list(range(1, 101)))
    whole = cache.nbytes
    cache.reuse([1, 2, 0])
    assert cache.nbytes == whole, "a view keeps its storage"
    cache.compact()
    assert cache.nbytes == whole // 50
    assert held(cache) == [[1, 2]] * LAYERS
