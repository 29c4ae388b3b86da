"""Prompt lookup: what it guesses stood there before, and it stops where guessing costs more than it brings."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from quantchat.engine.lookup import LONGEST, PAUSE, PLAIN_STEPS, SIZES, PromptLookup

texts = st.lists(st.integers(0, 3), max_size=60)


def ready(prompt: list[int], ends: tuple[int, ...] = ()) -> PromptLookup:
    lookup = PromptLookup(prompt, ends)
    for _ in range(PLAIN_STEPS):
        lookup.measured(0, 0, 1.0)
    return lookup


def naive_place(ids: list[int]) -> int | None:
    """Where the continuation of the latest earlier occurrence of the last tokens begins, searched anew."""
    for size in SIZES:
        for end in range(len(ids) - 1, size - 1, -1):
            if ids[end - size : end] == ids[len(ids) - size :]:
                return end
    return None


@given(texts, texts, st.integers(0, 12))
def test_a_guess_is_what_followed_the_latest_earlier_occurrence(prompt, answer, limit):
    lookup = ready(prompt)
    for token in answer:
        lookup.append(token)
    ids = prompt + answer
    place = naive_place(ids)
    draft = lookup.propose(limit)
    assert len(draft) <= limit
    assert bool(draft) == (place is not None and limit > 0)
    for offset, token in enumerate(draft):
        assert token == (ids + draft)[place + offset]


@given(texts, st.sets(st.integers(0, 3), max_size=2))
def test_a_guess_ends_where_an_answer_is_over(prompt, ends):
    draft = ready(prompt, tuple(ends)).propose(9)
    assert not set(draft[:-1]) & ends


def test_nothing_is_guessed_before_a_plain_step_is_known():
    lookup = PromptLookup([1, 2, 3, 1, 2, 3])
    assert lookup.propose(5) == []
    assert ready([1, 2, 3, 1, 2, 3]).propose(5) == [1, 2, 3]


def decode(lookup: PromptLookup, text: list[int], width_cost: float) -> float:
    """Say a text as a model would whose passes cost 1 and `width_cost` for each further token; return the seconds."""
    spent, said = 0.0, 0
    while said < len(text):
        draft = lookup.propose(8)
        rest = text[said : said + len(draft) + 1]
        accepted = 0
        while accepted < min(len(draft), len(rest) - 1) and draft[accepted] == rest[accepted]:
            accepted += 1
        for token in rest[: accepted + 1]:
            lookup.append(token)
        said += accepted + 1
        seconds = 1 + width_cost * len(draft)
        lookup.measured(len(draft), accepted, seconds)
        spent += seconds
    return spent


def misleading(length: int) -> list[int]:
    """A text in which the last tokens stood before nearly always, and something else follows."""
    source = random.Random(4)
    return [source.randrange(6) for _ in range(length)]


def test_repeated_text_is_said_in_fewer_passes():
    prompt = [random.Random(1).randrange(10_000) for _ in range(400)]
    lookup = PromptLookup(prompt)
    spent = decode(lookup, prompt[100:400], width_cost=0.1)
    assert spent < 150
    assert lookup.accepted > 0.9 * lookup.drafted > 200


def test_drafts_grow_while_they_are_right_and_shrink_when_they_are_wrong():
    prompt = list(range(300)) * 2
    lookup = ready(prompt[:310])
    lengths = []
    for _ in range(3):
        draft = lookup.propose(99)
        lengths.append(len(draft))
        for token in draft:
            lookup.append(token)
        lookup.measured(len(draft), len(draft), 1.0)
    assert lengths == [3, 6, LONGEST]
    lookup.measured(LONGEST, 1, 1.0)
    assert len(lookup.propose(99)) == 2


def test_guessing_that_loses_costs_next_to_nothing():
    text = misleading(2_000)
    lookup = PromptLookup(misleading(500))
    assert decode(lookup, text, width_cost=0.5) < 1.05 * len(text)
    assert 0 < lookup.drafted < 200


def test_it_pauses_when_it_loses_and_comes_back_when_the_text_repeats_itself():
    prompt = [random.Random(2).randrange(10_000) for _ in range(300)]
    lookup = ready(prompt + misleading(300))
    while not lookup.paused:
        decode(lookup, misleading(3), width_cost=0.9)
    before = lookup.drafted
    decode(lookup, prompt[:100], width_cost=0.1)
    assert not lookup.paused
    assert lookup.accepted > 60
    assert lookup.drafted > before


def test_it_tries_again_after_a_while_and_waits_longer_each_time():
    lookup = ready([1, 2, 3, 1, 2, 3, 1, 2])
    waits = []
    for _ in range(3):
        while not lookup.paused:
            lookup.measured(4, 0, 4.0)
        waits.append(0)
        while lookup.paused:
            lookup.append(1000 + len(waits) * 5000 + waits[-1])
            waits[-1] += 1
    assert waits == [PAUSE, 2 * PAUSE, 4 * PAUSE]


def test_one_pass_that_something_held_up_does_not_end_a_good_run():
    lookup = ready([1, 2, 3, 1, 2, 3])
    for _ in range(6):
        lookup.measured(4, 4, 1.2)
    lookup.measured(1, 1, 500.0)
    assert not lookup.paused
