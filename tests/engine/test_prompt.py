"""Prompts from conversations, through templates that are friendly and ones that are not."""

from __future__ import annotations

import pytest

from engine import tiny
from quantchat.domain.chat import ChatMessage
from quantchat.engine import prompt
from quantchat.errors import GenerationError

pytestmark = pytest.mark.engine
SYSTEM = ChatMessage("system", "Be brief.")
USER = ChatMessage("user", "Why?")
ANSWER = ChatMessage("assistant", "Because.")
STRICT = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
)


@pytest.fixture
def tokenizer():
    return tiny.make_tokenizer()


def test_own_template_and_no_doubled_start_token(tokenizer) -> None:
    rendered = prompt.render(tokenizer, [SYSTEM, USER])
    assert rendered.text == "<s><|system|>Be brief.</s><|user|>Why?</s><|assistant|>"
    assert rendered.ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(rendered.ids) == rendered.text
    assert prompt.template_name(tokenizer) == "model"


def test_without_a_template_the_fallback_is_named(tokenizer) -> None:
    tokenizer.chat_template = None
    assert prompt.template_name(tokenizer) == "chatml"
    text = prompt.render(tokenizer, [USER]).text
    assert text == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


def test_a_refused_system_role_goes_into_the_first_user_message(tokenizer) -> None:
    tokenizer.chat_template = STRICT
    assert prompt.render_text(tokenizer, [SYSTEM, USER, ANSWER, USER]) == (
        "[user]Be brief.\n\nWhy?[assistant]Because.[user]Why?"
    )


def test_neighbours_of_one_role_are_joined_only_if_refused(tokenizer) -> None:
    assert prompt.render_text(tokenizer, [USER, USER]).count("<|user|>") == 2
    tokenizer.chat_template = STRICT
    assert prompt.render_text(tokenizer, [USER, USER]) == "[user]Why?\n\nWhy?"
    assert prompt.render_text(tokenizer, [SYSTEM, USER, USER]) == "[user]Be brief.\n\nWhy?\n\nWhy?"


def test_a_template_that_takes_nothing_is_an_explained_error(tokenizer) -> None:
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(GenerationError, match="never") as caught:
        prompt.render(tokenizer, [USER])
    assert caught.value.report.code == "template"
