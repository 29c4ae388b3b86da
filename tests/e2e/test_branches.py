"""Prompts and answers that are changed, versions that are walked, answers that the user begins: with a real model."""

from __future__ import annotations

import pytest

from e2e.chat import Chat
from quantchat.domain.chat import Message, Session
from quantchat.domain.generation import TurnStatistics

pytestmark = pytest.mark.e2e

LIMIT = 48
CONFIG = f"[sampling]\ntemperature = 0.0\nseed = 1\nmax_new_tokens = {LIMIT}\n"
FRANCE, ITALY = "What is the capital of France?", "What is the capital of Italy?"
sizes = pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])


def cost(message: Message) -> TurnStatistics:
    assert message.statistics is not None
    return message.statistics


def shown(chat: Chat) -> list[str]:
    """The texts of the branch that the file shows."""
    return [message.text for message in chat.sessions[-1].branch()]


def stored(chat: Chat, *texts: str) -> Session:
    """Wait until the file shows a branch of these texts."""
    chat.terminal.wait_until(lambda: shown(chat) == list(texts))
    return chat.sessions[-1]


def change(chat: Chat, old: str, new: str) -> None:
    """In the dialog: write something else in place of the last words, and send it."""
    chat.sees(lambda text: "Change your prompt" in text or "Change the answer" in text)
    chat.terminal.press(*["backspace"] * len(old))
    chat.terminal.type(new)
    chat.sees(new.split()[-1])
    chat.terminal.press("enter")


@sizes
def test_a_changed_question_is_a_branch_and_versions_are_walked(chat: Chat, columns: int, lines: int) -> None:
    chat.resize(columns, lines)
    chat.ask(FRANCE)
    paris = chat.answer(1)
    assert "Paris" in paris.text
    chat.ask("/edit")
    change(chat, "France?", "Italy?")
    rome = chat.answer(2)
    assert "Ital" in rome.text
    assert cost(rome).reused_tokens >= 10, "the prompt up to the changed word was there"
    chat.sees("you · 2/2 · changed by you")
    session = stored(chat, ITALY, rome.text)
    first, second = (message for message in session.messages.values() if message.role == "user")
    assert (first.parent, second.parent, second.edited_from) == (None, None, first.id)

    chat.terminal.press("f6", "k", "<")
    chat.sees(lambda text: "you · 1/2" in text and FRANCE in text)
    stored(chat, FRANCE, paris.text)
    chat.terminal.press(">")
    chat.sees("you · 2/2 · changed by you")
    stored(chat, ITALY, rome.text)
    chat.terminal.press("<", "j", "r")
    again = chat.answer(3)
    assert "Paris" in again.text
    chat.sees("· 2/2")
    chat.terminal.press("D")
    stored(chat, FRANCE, paris.text)
    chat.terminal.press("u")
    # The two answers may be the same to the letter.
    chat.terminal.wait_until(lambda: chat.sessions[-1].head == again.id)
    assert shown(chat) == [FRANCE, again.text]
    chat.terminal.press("tab")


def test_a_changed_answer_goes_on_from_there_and_is_asked_with(chat: Chat) -> None:
    chat.ask(FRANCE)
    paris = chat.answer(1)
    chat.ask("/edit-answer")
    chat.sees("Change the answer")
    changed = f"{paris.text} Three facts about it:\n1. It lies on the"
    chat.terminal.type(" Three facts about it:")
    chat.terminal.press("ctrl+j")
    chat.terminal.type("1. It lies on the")
    chat.sees("1. It lies on the")
    chat.terminal.press("enter")
    stored(chat, FRANCE, changed)
    chat.sees(lambda text: "· 2/2 · changed by you" in text and "/continue goes on" in text)
    chat.ask("/continue")
    whole = chat.answer(2, where=lambda answer: len(answer.text) > len(changed))
    assert whole.text.startswith(changed)
    assert whole.edited_from == paris.id
    assert whole.run is not None
    assert whole.run.versions["torch"]
    kept = chat.sessions[-1].messages[paris.id]
    assert (kept.text, kept.finish) == (paris.text, paris.finish)

    before = cost(whole).prompt_tokens + cost(whole).new_tokens
    chat.ask("And of Italy?")
    assert cost(chat.answer(3)).prompt_tokens > before


@sizes
def test_the_user_begins_an_answer(chat: Chat, columns: int, lines: int) -> None:
    chat.resize(columns, lines)
    chat.ask(FRANCE)
    chat.answer(1)
    chat.ask("/begin")
    chat.sees("begins with")
    chat.terminal.type("Well, the capital of France is ")
    chat.terminal.press("enter")
    answer = chat.answer(2, where=lambda answer: answer.statistics)
    assert answer.given == "Well, the capital of France is"
    assert answer.text.startswith(answer.given)
    assert "Paris" in answer.text
    assert len(chat.sessions[-1].siblings(answer.id)) == 2
    chat.sees("Well, the capital of France is")


@sizes
def test_a_session_is_forked_and_the_run_card_tells_how_it_was_answered(chat: Chat, columns: int, lines: int) -> None:
    chat.resize(columns, lines)
    chat.ask(FRANCE)
    paris = chat.answer(1)
    chat.ask("And of Italy?")
    chat.answer(2)
    known = len(chat.sessions)
    chat.terminal.press("f6", "k", "k", "f")
    chat.sees("(fork)")
    chat.terminal.wait_until(lambda: len(chat.sessions) == known + 1)
    stored(chat, FRANCE, paris.text)
    chat.ask("And of Spain?")
    spain = chat.answer(2)
    assert "Madrid" in spain.text
    assert [len(session.messages) for session in chat.sessions[-2:]] == [4, 4]
    chat.ask("/card")
    chat.sees(lambda text: "Kernel" in text and "Written" in text)
    chat.terminal.press("G")
    chat.sees("gptqmodel")
    chat.terminal.press("esc")
    chat.sees(lambda text: "gptqmodel" not in text)


def test_a_session_is_changed_while_another_one_streams(chat: Chat) -> None:
    chat.ask("Write a very long story about a lighthouse keeper, with many chapters.")
    chat.streams()
    chat.new()
    chat.ask(FRANCE)
    chat.answer(1)
    chat.ask("/edit")
    change(chat, "France?", "Italy?")
    assert "Ital" in chat.answer(2).text
    chat.ask("/delete-message")
    stored(chat, ITALY)
    chat.ask("/undo")
    chat.terminal.wait_until(lambda: len(shown(chat)) == 2)
    story = chat.answer(session=-2)
    assert story.finish == "length"
    assert cost(story).new_tokens == LIMIT
