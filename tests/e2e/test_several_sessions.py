"""Sessions side by side: their caches stay warm, and two are answered at once."""

from __future__ import annotations

import pytest

from e2e.chat import LOAD_SECONDS, Chat
from quantchat.domain.chat import Message
from quantchat.domain.generation import TurnStatistics

pytestmark = pytest.mark.e2e

LIMIT = 120
CONFIG = f"[sampling]\ntemperature = 0.0\nseed = 1\nmax_new_tokens = {LIMIT}\n"
STORY = "Write a very long story about a lighthouse keeper, with many chapters."
VOLCANOES = "Explain how volcanoes are made, in great detail."


def cost(message: Message) -> TurnStatistics:
    assert message.statistics is not None
    return message.statistics


def computed(message: Message) -> int:
    """Tokens whose KV the session keeps after an answer: all but the last sampled one."""
    return cost(message).prompt_tokens + cost(message).new_tokens - 1


def grown(chat: Chat, before: dict[str, str]) -> bool:
    """Whether two answers stream and both have said more than before."""
    now = chat.journals
    return len(now) == 2 and all(len(now[session]) > len(before.get(session, "")) for session in now)


def ask_in_both(chat: Chat) -> None:
    """Ask for a story and, in another session, for volcanoes; return when both answers have grown together."""
    chat.ask(STORY)
    chat.streams()
    chat.new()
    chat.ask(VOLCANOES)
    chat.streams()
    chat.terminal.wait_until(lambda: len(chat.journals) == 2)
    before = chat.journals
    chat.terminal.wait_until(lambda: grown(chat, before))


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
def test_sessions_stay_warm_while_others_are_asked(chat: Chat, columns: int, lines: int) -> None:
    chat.resize(columns, lines)
    chat.ask("What is the capital of France?")
    first = chat.answer(1)
    assert cost(first).reused_tokens == 0
    chat.ask("And what is the capital of Italy?")
    second = chat.answer(2)
    assert cost(second).reused_tokens >= computed(first)

    chat.new()
    chat.ask("What is the capital of Spain?")
    other = chat.answer(1)
    assert cost(other).reused_tokens == 0
    chat.terminal.press("f3")
    chat.sees(lambda _: [("warm" in row) for row in chat.rows[:2]] == [True, True])
    assert ["Spain" in chat.rows[0], "France" in chat.rows[1]] == [True, True]
    chat.terminal.type("gj")
    chat.terminal.press("enter")
    chat.sees(lambda text: "Italy" in text)
    chat.ask("And what is the capital of Greece?")
    third = chat.answer(3, session=-2)
    assert cost(third).reused_tokens >= computed(second)
    chat.sees(f"{cost(third).new_tokens} tokens")


def test_two_sessions_are_answered_at_once_and_stopped_one_by_one(chat: Chat) -> None:
    ask_in_both(chat)
    assert "+1 answering" in chat.terminal.screen_text
    chat.terminal.press("f3")
    chat.sees(lambda _: [row[0] for row in chat.rows[:2]] == ["*", "*"])
    chat.terminal.press("esc")
    chat.sees(lambda text: "─ Sessions " not in text)
    chat.terminal.press("esc")
    volcanoes = chat.answer()
    assert volcanoes.finish == "stopped"
    assert "volcano" in volcanoes.text.lower()
    assert "lighthouse" not in volcanoes.text.lower()
    chat.terminal.wait_until(lambda: list(chat.journals) == [chat.sessions[-2].id])
    before = len(next(iter(chat.journals.values())))
    chat.terminal.wait_until(lambda: len(next(iter(chat.journals.values()), "")) > before)
    story = chat.answer(session=-2)
    assert story.finish == "length"
    assert cost(story).new_tokens == LIMIT
    assert "lighthouse" in story.text.lower()
    assert "volcano" not in story.text.lower()


def test_unloading_leaves_no_session_warm_and_the_text_is_the_same(chat: Chat) -> None:
    chat.ask("What is the capital of France?")
    warm = chat.answer(1)
    chat.terminal.press("f3")
    chat.sees(lambda _: ["warm" in row for row in chat.rows[:1]] == [True])
    chat.terminal.press("f7")
    chat.sees(lambda _: chat.rows and not [row for row in chat.rows if "warm" in row])
    chat.terminal.press("esc", "ctrl+r")
    cold = chat.terminal.wait_until(lambda: next((a for a in chat.answers()[1:] if a.finish), None), LOAD_SECONDS)
    assert cost(cold).reused_tokens == 0
    assert cold.text == warm.text
