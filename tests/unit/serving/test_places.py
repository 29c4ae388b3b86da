"""Where a model is served: how many cards, how it is divided, how much memory, how long a context."""

from __future__ import annotations

import msgspec
import pytest

from quantchat.domain.memory import GIB
from quantchat.services.serving.parallel import Split, obstacle, split
from quantchat.services.serving.room import Place, best, longest_context, memory_share, places
from unit.serving.networks import GPTQ, PLAIN, card, network


@pytest.mark.parametrize(
    ("sizes", "gpus", "nodes", "wanted"),
    [
        ({}, 1, 1, Split(1, 1)),
        ({}, 2, 1, Split(2, 1)),
        ({}, 4, 1, Split(4, 1)),
        # 32 heads and three cards: a pipeline of three.
        ({}, 3, 1, Split(1, 3)),
        # 6 cards: two share a matrix, in three runs of layers.
        ({}, 6, 1, Split(2, 3)),
        # Matrices stay within a machine.
        ({}, 8, 2, Split(8, 2)),
        ({}, 3, 2, Split(1, 6)),
        # 9 heads as in SmolLM2: not even two.
        ({"heads": 9, "kv_heads": 3, "hidden": 576, "inner": 1536}, 2, 1, Split(1, 2)),
        # 12 heads, but heads for keys and values that neither divide 3 nor are divided by it.
        ({"heads": 12, "kv_heads": 2, "hidden": 1536}, 3, 1, Split(1, 3)),
        # 2 heads for keys and values among 4 cards: each is kept twice.
        ({"heads": 32, "kv_heads": 2}, 4, 1, Split(4, 1)),
        # Groups of 128 in 18944 features, 148 of them: four cards get whole groups each, eight do not.
        ({"heads": 28, "kv_heads": 4, "hidden": 3584, "inner": 18944}, 4, 1, Split(4, 1)),
        ({"heads": 64, "kv_heads": 8, "hidden": 8192, "inner": 18944}, 8, 1, Split(4, 2)),
        ({"heads": 64, "kv_heads": 8, "hidden": 8192, "inner": 18944, "quant": PLAIN}, 8, 1, Split(8, 1)),
        # More cards than layers.
        ({"heads": 9, "kv_heads": 3, "hidden": 576, "inner": 1536, "layers": 3}, 4, 1, None),
    ],
)
def test_how_a_model_is_divided(sizes: dict[str, object], gpus: int, nodes: int, wanted: Split | None) -> None:
    assert split(network(**sizes), gpus, nodes) == wanted


def test_why_it_is_not_divided_otherwise() -> None:
    assert obstacle(network(), 1) == ""
    assert obstacle(network(), 2) == ""
    assert "32 attention heads cannot be divided by 3" in obstacle(network(), 3)
    assert "keys and values" in obstacle(network(heads=30, kv_heads=4), 3)
    wide = network(heads=64, hidden=8192, inner=18944)
    assert "18944 input features" in obstacle(wide, 8)
    grouped = network(inner=14336, quant=msgspec.structs.replace(GPTQ, group_size=1024))
    assert "in groups of 1024" in obstacle(grouped, 8)


def test_the_options_of_a_division() -> None:
    assert list(Split().options()) == []
    assert list(Split(4, 2).options()) == ["--tensor-parallel-size", "4", "--pipeline-parallel-size", "2"]


def test_the_share_is_what_is_free_on_the_fullest_card() -> None:
    assert memory_share([card()]) == 0.9
    assert memory_share([card(free=12.5)]) == 0.51
    assert memory_share([card(), card(1, free=6.25)]) == 0.25
    assert memory_share([card(free=0)]) == 0.05
    assert memory_share([]) is None
    assert memory_share([card(), msgspec.structs.replace(card(1), free=None)]) is None


def test_the_context_grows_with_the_memory_and_ends_at_the_window() -> None:
    model = network()
    lengths = [longest_context(model, [card(total=total)], Split(), 0.9) for total in (8, 12, 16, 24, 48)]
    assert lengths[0] == 0
    assert lengths == sorted(lengths)
    assert 0 < lengths[1] < lengths[2] < lengths[3]
    assert lengths[-1] == model.context_window
    assert all(length % 16 == 0 for length in lengths[:-1])


def test_the_cache_and_the_weights_fit_together() -> None:
    """8 KV heads of 128 numbers in 32 layers: 128 KiB a token."""
    model = network(window=1 << 20)
    length = longest_context(model, [card()], Split(), 0.9)
    token = 2 * 32 * 8 * 128 * 2
    assert 0.5 * (0.9 * 24 - 6) * GIB < length * token < (0.9 * 24 - 6) * GIB


def test_two_cards_have_room_for_more_than_twice_the_context() -> None:
    model = network(window=1 << 20)
    one = longest_context(model, [card(total=12)], Split(), 0.9)
    two = longest_context(model, [card(total=12), card(1, total=12)], Split(2), 0.9)
    assert two > 2 * one > 0


def test_heads_that_are_kept_twice_take_twice_the_room() -> None:
    few = network(heads=32, kv_heads=2, window=1 << 22)
    cards = [card(index) for index in range(4)]
    copied, divided = (longest_context(few, cards, parts, 0.9) for parts in (Split(4), Split(2, 2)))
    assert 0.4 < copied / divided < 0.6


def test_as_many_cards_are_taken_as_a_good_context_needs() -> None:
    model = network()
    assert best(places(model, [card(), card(1)]), 131072).split == Split()
    small = best(places(model, [card(total=8), card(1, total=8)]), 131072)
    assert small.split == Split(2)
    assert small.context
    none = best(places(model, [card(total=5)]), 131072)
    assert none.context == 0


def test_the_emptiest_card_is_taken_and_the_numbers_stay_in_order() -> None:
    cards = [card(free=4), card(1, free=20), card(2, free=23)]
    found = places(network(), cards)
    assert [[gpu.index for gpu in place.gpus] for place in found] == [[2], [1, 2], [0, 1, 2]]
    assert best(found, 131072).gpus == (cards[2],)


def test_what_the_user_wants_is_the_only_way() -> None:
    cards = [card(index) for index in range(4)]
    assert [place.split for place in places(network(), cards, 1, Split(2))] == [Split(2)]
    assert [place.split for place in places(network(), cards, 2)] == [Split(4, 2)]


@pytest.mark.parametrize("nodes", [1, 2])
def test_without_a_card_nothing_is_divided_here(nodes: int) -> None:
    assert places(network(), [], nodes) == [Place(split=Split(1, nodes))]


def test_a_silent_driver_limits_nothing() -> None:
    silent = msgspec.structs.replace(card(), free=None)
    place = best(places(network(), [silent]), 131072)
    assert (place.split, place.share, place.context) == (Split(), None, None)
