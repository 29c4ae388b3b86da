"""A long prompt is read before it is answered: that can be watched, and stopped."""

from __future__ import annotations

import time

import pytest

from e2e.chat import HANG_SECONDS, Chat
from quantchat.domain.chat import Message

pytestmark = pytest.mark.e2e

CONFIG = "[sampling]\ntemperature = 0.0\nseed = 1\nmax_new_tokens = 24\n"
RIVERS = "\n".join(f"The river number {number} has {number * 7 % 13} bridges." for number in range(100))
QUESTION = "What is the capital of France?"
"""Its answer is certain: texts that are nearly as probable as others would turn at the last bit of a sum."""


def watched(chat: Chat) -> list[tuple[int, int]]:
    """What the screen says of the reading, as long as there is something to say, each step once."""
    steps = [chat.terminal.wait_until(lambda: chat.reading, HANG_SECONDS)]
    while (step := chat.reading) is not None:
        if step != steps[-1]:
            steps.append(step)
        chat.terminal.pump(0.02)
    return steps


def whole_answer(chat: Chat) -> Message:
    """Ask, and let the prompt be read and answered."""
    chat.ask_pasted(RIVERS, QUESTION)
    return chat.answer()


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
def test_how_far_the_prompt_was_read_rises_on_the_screen(chat: Chat, columns: int, lines: int) -> None:
    chat.resize(columns, lines)
    chat.ask_pasted(RIVERS, QUESTION)
    steps = watched(chat)
    answer = chat.answer()
    assert answer.statistics is not None
    total = answer.statistics.prompt_tokens
    done = [done for done, _ in steps]
    assert total > 1000
    assert {total for _, total in steps} == {total}
    assert done == sorted(set(done))
    assert len([step for step in done if 0 < step < total]) >= 2
    assert answer.statistics.reused_tokens == 0
    chat.sees(answer.text.split()[0])


def test_esc_stops_inside_a_long_prompt_and_keeps_what_was_read(chat: Chat) -> None:
    whole = whole_answer(chat)
    assert whole.statistics is not None

    chat.new()
    chat.ask_pasted(RIVERS, QUESTION)
    chat.sees(lambda _: (chat.reading or (0, 0))[0] > 0)
    done, total = chat.reading or (0, 0)
    begun = time.monotonic()
    chat.terminal.press("esc")
    chat.rests()
    waited = time.monotonic() - begun
    rest = whole.statistics.prefill_seconds * (1 - done / total)
    assert waited < rest / 2, f"stopped after {waited:.2f} s, when the rest of the prompt takes {rest:.2f} s"
    stopped = chat.answer()
    assert stopped.finish == "stopped"
    assert stopped.text == ""

    chat.terminal.press("ctrl+r")
    again = chat.answer(2)
    assert again.statistics is not None
    assert again.text == whole.text
    assert again.finish == whole.finish
    assert done <= again.statistics.reused_tokens < again.statistics.prompt_tokens
    assert again.statistics.prompt_tokens == whole.statistics.prompt_tokens
