"""A session's own system prompt and chat template, with the real model."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.chat import Chat
from quantchat.domain.chat import Message
from quantchat.domain.generation import TurnStatistics

pytestmark = pytest.mark.e2e

CONFIG = "[sampling]\ntemperature = 0.0\nmax_new_tokens = 48\n"
QUESTION = "What is the capital of France?"
PLAIN = (
    "{% for m in messages %}{{ 'Question' if m['role'] == 'user' else 'Answer' }}: {{ m['content'] }}\n\n{% endfor %}"
    "Answer:"
)


def cost(message: Message) -> TurnStatistics:
    assert message.statistics is not None
    return message.statistics


def test_the_template_changes_in_the_middle_and_comes_back(chat: Chat, tmp_path: Path) -> None:
    template = tmp_path / "plain.jinja"
    template.write_text(PLAIN)
    chat.ask(QUESTION)
    own = chat.answer()
    assert "Paris" in own.text
    chat.ask(f"/template {template}")
    chat.sees("This session asks with its own")
    chat.ask(QUESTION)
    plain = chat.answer(2)
    assert "Paris" in plain.text
    # Its turns end with words, which an answer must not run beyond.
    assert "Question:" not in plain.text
    assert cost(plain).reused_tokens < cost(own).prompt_tokens
    assert chat.sessions[-1].template == PLAIN
    chat.ask("/template own")
    chat.sees("asks with the model's")
    chat.ask(QUESTION)
    back = chat.answer(3)
    assert "Paris" in back.text
    chat.ask(QUESTION)
    last = chat.answer(4)
    assert cost(last).reused_tokens > cost(back).prompt_tokens


def test_a_system_prompt_counts_from_the_next_answer_on(chat: Chat) -> None:
    chat.ask(QUESTION)
    first = chat.answer()
    chat.ask("/system You are a pirate. Answer every question with the one word Arrr and nothing else.")
    chat.sees("It counts from the next answer on")
    chat.terminal.press("ctrl+r")
    second = chat.answer(2)
    # The model's template has a system prompt of its own, in whose place this one stands.
    assert cost(second).prompt_tokens != cost(first).prompt_tokens
    assert cost(second).reused_tokens < cost(first).prompt_tokens
    assert chat.sessions[-1].system_prompt.startswith("You are a pirate.")
    chat.ask("/system")
    chat.sees("Ctrl+P library")
    chat.terminal.press("esc")
    chat.sees(lambda text: "Ctrl+P library" not in text)
