"""A calibration conversation as the text that the model would have read, by its own chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from quantchat.domain.chat import ChatMessage
from quantchat.engine.prompt import FORMS
from quantchat.errors import JobError
from quantchat.quantize.examples import Example

Messages = Sequence[ChatMessage]
Change = Callable[[Messages], Messages]


FAULTS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What the code in a template may raise beside jinja2's own errors."""


def has_template(tokenizer: Any) -> bool:
    """Whether a model has a chat template of its own."""
    return bool(getattr(tokenizer, "chat_template", None))


def rendered(tokenizer: Any, example: Example) -> str:
    """Render a conversation as it stands, with nothing behind its last message.

    A template that refuses a role or an order of roles gets the same words in a form that it accepts.

    Raises:
        JobError: if it accepts none.
    """
    from jinja2 import TemplateError

    refusal: Exception | None = None
    for messages in _forms(example.messages):
        try:
            return _apply(tokenizer, messages)
        except (TemplateError, *FAULTS) as error:
            refusal = refusal or error
    raise JobError(
        "The model's chat template refused a calibration example",
        f"line {example.number}: {refusal}",
        "Take the example out, or calibrate with plain text (.txt)",
        code="calibration-template",
    ) from refusal


def _forms(messages: Messages) -> Iterator[Messages]:
    """Yield a conversation as it is, and then with ever more changed of its roles."""
    for change in CHANGES:
        for form in FORMS:
            yield form(change(messages))


def tools_as_user(messages: Messages) -> Messages:
    """Let the user say what tools answered, for templates without a role for tools."""
    return [
        message if message.role in ("system", "user", "assistant") else ChatMessage("user", message.content)
        for message in messages
    ]


def from_first_question(messages: Messages) -> Messages:
    """Leave out what was said before the user's first words, for templates that begin with those."""
    messages = tools_as_user(messages)
    first = next(place for place, message in enumerate(messages) if message.role == "user")
    return [message for place, message in enumerate(messages) if place >= first or message.role == "system"]


CHANGES: tuple[Change, ...] = (list, tools_as_user, from_first_question)


def _apply(tokenizer: Any, messages: Messages) -> str:
    rows = [{"role": message.role, "content": message.content} for message in messages]
    return str(tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=False))
