"""What leaves a prompt when the context window is full."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.chat import CONTEXT_FULL, ChatMessage
from quantchat.engine.context import Fitted, fit, reserve_for, turn_starts, without
from quantchat.engine.protocol import Partial
from quantchat.errors import GenerationError

FRAME = 3
"""Tokens that the template of these tests adds to each message; the opening of the answer has one more."""


class Words:
    """A tokenizer of one token per word, and a template of `FRAME` words per message."""

    chat_template = "words"
    is_fast = False

    def convert_tokens_to_ids(self, _: str) -> None:
        return None

    def __init__(self) -> None:
        self.rendered = self.longest = 0

    def apply_chat_template(self, rows, **_) -> str:
        self.rendered += 1
        return "".join(f"< {row['role']} > {row['content']} " for row in rows) + "<answer>"

    def __call__(self, text: str, **_) -> dict[str, list[int]]:
        self.longest = max(self.longest, len(text.split()))
        return {"input_ids": [hash(word) & 0xFFFF for word in text.split()]}


def words(count: int) -> str:
    return " ".join(["word"] * count)


def chat(*sizes: int, system: int = 0) -> list[ChatMessage]:
    """Questions and answers in turn, of so many tokens each, all of their template's included."""
    roles = ("user", "assistant")
    rows = [ChatMessage(roles[index % 2], words(size - FRAME)) for index, size in enumerate(sizes)]
    return [ChatMessage("system", words(system - FRAME)), *rows] if system else rows


def size_of(messages) -> int:
    return sum(FRAME + len(message.content.split()) for message in messages) + 1


def fitted(messages, window: int, reserve: int = 25, **options) -> Fitted:
    return fit(Words(), messages, window, reserve, **options)


def test_what_fits_is_left_whole() -> None:
    conversation = chat(10, 20, 10, system=9)
    result = fitted(conversation, 100)
    assert (result.dropped, len(result.prompt.ids), result.reserve) == (0, 50, 25)


def test_an_unknown_window_keeps_everything() -> None:
    result = fitted(chat(1000, 1000, 10), 0, reserve=512)
    assert (result.dropped, len(result.prompt.ids), result.reserve) == (0, 2011, 512)


@pytest.mark.parametrize(
    ("wanted", "window", "kept"), [(1024, 4096, 1024), (1024, 2048, 512), (16, 4096, 16), (0, 8, 1)]
)
def test_the_reply_gets_a_quarter_of_the_window_at_most(wanted: int, window: int, kept: int) -> None:
    assert reserve_for(wanted, window) == kept


def test_whole_turns_leave_down_to_three_quarters_of_the_room() -> None:
    # The room is 75; 81 are too many, 61 would fit but leave little, 41 leave a quarter free.
    conversation = chat(10, 10, 10, 10, 10, 10, 10, 10)[:-1] + chat(10)
    assert size_of(conversation) == 81
    result = fitted(conversation, 100)
    assert result.dropped == 4
    assert len(result.prompt.ids) == 41


def test_the_system_prompt_stays_wherever_it_stands() -> None:
    first = fitted([ChatMessage("system", "law"), *chat(30, 30, 30)], 100)
    assert first.dropped == 2
    assert first.prompt.text.startswith("< system > law < user >")
    within = [*chat(30, 30), ChatMessage("system", "law"), *chat(30)]
    assert without(within, 2) == within[2:]


def test_turns_that_were_dropped_stay_away_while_enough_is_seen() -> None:
    conversation = chat(20, 20, 20, 20, 20, 20, 20)
    first = fitted(conversation[:5], 100)
    assert first.dropped == 4
    grown = fitted(conversation, 100, first=first.dropped)
    assert grown.dropped == 4
    assert grown.prompt.ids[: len(first.prompt.ids) - 1] == first.prompt.ids[:-1]
    assert fitted(conversation, 100).dropped == 6


def test_a_branch_that_fits_again_is_seen_whole_again() -> None:
    assert fitted(chat(20, 20, 20), 100, first=2).dropped == 0


def test_what_was_dropped_comes_back_where_too_little_would_be_seen() -> None:
    conversation = chat(20, 20, 20, 20, 5)
    assert fitted(conversation, 100, first=4).dropped == 2
    assert fitted(conversation, 100, first=3).dropped == 2
    assert fitted(conversation, 100, first=99).dropped == 2


def test_a_long_question_may_take_what_is_kept_for_the_reply() -> None:
    result = fitted(chat(40, 20, 89), 100)
    assert (result.dropped, len(result.prompt.ids), result.reserve) == (2, 90, 10)


def test_a_question_that_fills_the_room_leaves_no_more_than_it_must() -> None:
    # Without hysteresis to gain, the turn before it stays.
    assert fitted(chat(20, 20, 5, 5, 60), 100).dropped == 2


def test_a_question_that_does_not_fit_is_refused_with_numbers_and_a_remedy() -> None:
    with pytest.raises(GenerationError) as caught:
        fitted(chat(10, 10, 1230, system=9), 1000)
    report = caught.value.report
    assert report.code == CONTEXT_FULL
    assert "1,240" in report.detail
    assert "1,000" in report.detail
    assert "larger window" in report.remedy
    assert "question" in report.title


def test_an_answer_that_goes_on_uses_up_what_was_kept_for_it() -> None:
    conversation = chat(40, 20, 10)
    assert fitted(conversation, 100, resume=Partial(text=words(15))).dropped == 0
    assert fitted(conversation, 100, resume=Partial(text=words(24))).dropped == 2
    went_on = fitted(conversation, 100, resume=Partial(text=words(24)))
    assert went_on.prompt.begun == 24
    assert went_on.prompt.text.endswith(words(24))


def test_an_answer_that_fills_the_window_with_its_question_cannot_go_on() -> None:
    with pytest.raises(GenerationError) as caught:
        fitted(chat(40), 100, resume=Partial(text=words(60)))
    assert caught.value.report.code == CONTEXT_FULL
    assert "answer" in caught.value.report.title


def test_turns_begin_with_questions_whatever_stands_between() -> None:
    roles = ("assistant", "user", "system", "user", "assistant", "user")
    assert turn_starts([ChatMessage(role, "x") for role in roles]) == [0, 1, 2, 4]
    assert turn_starts([]) == [0]


def test_the_search_renders_few_candidates() -> None:
    tokenizer = Words()
    found = fit(tokenizer, chat(*[10] * 2001), 1000, 100)
    assert 0.5 * 1000 < len(found.prompt.ids) < 0.75 * 1000
    assert tokenizer.rendered <= 16
    assert tokenizer.longest < 2.5 * 1000
    tokenizer = Words()
    assert fit(tokenizer, chat(*[10] * 2003), 1000, 100, first=found.dropped).dropped == found.dropped
    assert tokenizer.rendered == 1


def test_a_long_conversation_of_few_tokens_is_seen_whole() -> None:
    conversation = [ChatMessage("user", "m" * 5000), ChatMessage("assistant", "m" * 5000), *chat(10)]
    assert fitted(conversation, 100).dropped == 0
    assert fitted([*chat(60, 20), *conversation], 100).dropped == 2


@st.composite
def conversations(draw) -> list[ChatMessage]:
    sizes = draw(st.lists(st.integers(FRAME, 40), min_size=1, max_size=31).filter(lambda sizes: len(sizes) % 2))
    return chat(*sizes, system=draw(st.sampled_from([0, FRAME, 20])))


@given(conversations(), st.integers(70, 400), st.integers(0, 200), st.integers(0, 40))
def test_the_result_fits_keeps_order_and_drops_no_turn_in_vain(
    conversation: list[ChatMessage], window: int, reserve: int, first: int
) -> None:
    kept = reserve_for(reserve, window)
    room = window - kept
    starts = turn_starts(conversation)
    result = fitted(conversation, window, reserve, first=first)
    seen = without(conversation, result.dropped)
    least = size_of(without(conversation, starts[-1]))
    assert len(result.prompt.ids) == size_of(seen) <= max(room, least)
    assert result.reserve == min(kept, window - len(result.prompt.ids)) > 0
    assert [message for message in conversation if message.role == "system"] == [
        message for message in seen if message.role == "system"
    ]
    assert seen[-1] is conversation[-1]
    assert result.dropped in starts
    if result.dropped and result.dropped != first:
        earlier = size_of(without(conversation, starts[starts.index(result.dropped) - 1]))
        assert earlier > room - room // 4
    if result.dropped:
        assert size_of(conversation) > room


@given(conversations(), st.integers(70, 400))
def test_the_beginning_stays_the_same_for_several_turns(conversation: list[ChatMessage], window: int) -> None:
    first, dropped = 0, []
    for end in range(1, len(conversation) + 1):
        if conversation[end - 1].role == "user":
            first = fitted(conversation[:end], window, 10, first=first).dropped
            dropped.append(first)
    assert dropped == sorted(dropped)
