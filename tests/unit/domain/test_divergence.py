"""Where two streaming answers part."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.divergence import Divergence, Place


def said(*texts: str) -> list[tuple[str, int]]:
    return list(zip(texts, itertools.count(1), strict=False))


def both(left: list[tuple[str, int]], right: list[tuple[str, int]], *, whole: bool = True) -> Divergence:
    found = Divergence()
    for side, pieces in enumerate((left, right)):
        for text, tokens in pieces:
            found.add(side, "answer", text, tokens)
        found.end(side, whole=whole, tokens=len(pieces) + whole)
    return found


def test_the_first_differing_token_is_named_whole_on_both_sides() -> None:
    found = both(said("The", " capital", " is", " Paris"), said("The", " capital", " is", " Perth", "!"))
    assert found.verdict == "differs"
    assert found.found == (Place(4, "answer", 14, 20), Place(4, "answer", 14, 20))
    assert found.common == len("The capital is P")


def test_tokens_of_other_cuts_are_numbered_each_for_itself() -> None:
    found = both(said("The", " cap", "ital", " one"), said("The", " capital", " two"))
    assert found.found == (Place(4, "answer", 11, 15), Place(3, "answer", 11, 15))


def test_an_answer_that_ends_earlier_differs_at_its_end() -> None:
    found = both(said("Yes"), said("Yes", ", but"))
    assert found.found == (Place(2, "answer", 3, 3), Place(2, "answer", 3, 8))


def test_equal_answers_are_equal_and_cut_ones_only_so_far() -> None:
    assert both(said("a", "b"), said("ab")).verdict == "equal"
    assert both(said("a", "b"), said("a", "b", "c"), whole=False).verdict == "cut"
    assert both([], said("a")).found == (Place(1, "answer", 0, 0), Place(1, "answer", 0, 1))


def test_nothing_is_said_before_both_are_known() -> None:
    found = Divergence()
    found.add(0, "answer", "Hello", 1)
    found.end(0, whole=True, tokens=2)
    assert (found.verdict, found.found) == ("", None)
    found.add(1, "answer", "Hel", 1)
    assert found.verdict == ""
    found.add(1, "answer", "p", 2)
    assert found.found == (Place(1, "answer", 0, 5), Place(2, "answer", 3, 4))


def test_thinking_and_answer_are_told_apart() -> None:
    found = Divergence()
    for side, channel in enumerate(("thinking", "answer")):
        found.add(side, "thinking", "So", 2)
        found.add(side, channel, " be it", 4)
    assert found.found == (Place(3, "thinking", 2, 8), Place(4, "answer", 0, 6))


def test_a_token_that_gave_text_only_with_the_next_counts() -> None:
    found = both([("é", 2), ("x", 3)], [("é", 2), ("語", 5)])
    assert found.found == (Place(3, "answer", 1, 2), Place(3, "answer", 1, 2))


@pytest.mark.parametrize("seed", range(20))
def test_the_order_in_which_sides_stream_does_not_matter(seed: int) -> None:
    chance = random.Random(seed)
    pieces = [[(chance.choice("ab"), number) for number in range(1, 12)] for _ in range(2)]
    pieces[1][:4] = pieces[0][:4]
    expected = both(*pieces).found
    mixed, queues = Divergence(), [list(each) for each in pieces]
    while any(queues):
        side = chance.choice([number for number in (0, 1) if queues[number]])
        text, tokens = queues[side].pop(0)
        mixed.add(side, "answer", text, tokens)
    assert mixed.found == expected


@given(st.lists(st.text(max_size=4), max_size=12), st.lists(st.text(max_size=4), max_size=12))
def test_what_comes_before_is_the_same_and_what_follows_is_not(one: list[str], other: list[str]) -> None:
    found = both(said(*one), said(*other))
    texts = "".join(one), "".join(other)
    if texts[0] == texts[1]:
        assert found.verdict == "equal"
        return
    assert found.found is not None
    left, right = (text[place.start : place.end] for text, place in zip(texts, found.found, strict=True))
    assert (left, right) != ("", "")
    assert texts[0][: found.common] == texts[1][: found.common]
    assert texts[0][found.common : found.common + 1] != texts[1][found.common : found.common + 1]
    assert all(place.start <= found.common for place in found.found)
