"""From a conversation to a prompt, by the model's chat template or a named fallback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from quantchat.domain.chat import ChatMessage
from quantchat.domain.template import CHATML as CHATML
from quantchat.domain.thinking import Tag
from quantchat.engine.override import render_override
from quantchat.engine.protocol import Partial
from quantchat.engine.spoken import Spoken as Spoken
from quantchat.engine.spoken import splice
from quantchat.engine.thinking import beginning, opened_by
from quantchat.errors import GenerationError

OWN = "model"
FALLBACK = "chatml"
CHATML_END = "<|im_end|>"


class Prompt(msgspec.Struct, frozen=True):
    """A rendered conversation: the exact text and its token ids.

    Attributes:
        opened: The tag that the template has written where the answer starts.
        begun: The ids at the end that are the beginning of the answer, when it goes on.
    """

    text: str
    ids: list[int]
    opened: Tag | None = None
    begun: int = 0


def template_name(tokenizer: Any) -> str:
    """Say whose template is used: the model's own or the fallback."""
    return OWN if getattr(tokenizer, "chat_template", None) else FALLBACK


def render(
    tokenizer: Any,
    messages: Sequence[ChatMessage],
    spoken: Spoken | None = None,
    resume: Partial | None = None,
    *,
    session: str = "",
    template: str = "",
) -> Prompt:
    """Render a conversation up to where the answer starts, or to where its beginning breaks off.

    A template that refuses a role gets the same words in a form that it accepts. The ids depend on the conversation,
    on the template and on what was sampled in the session, on nothing else.

    Args:
        template: A Jinja template in place of the tokenizer's own; empty for that.

    Raises:
        GenerationError: if the template takes none of the forms.
    """
    text, rows = _rendered(tokenizer, messages, template)
    opened = opened_by(text, messages)
    if spoken is not None and session and getattr(tokenizer, "is_fast", False):
        ids = splice(tokenizer, text, rows, lambda answer: spoken.answer(session, answer))
    else:
        ids = _tokenize(tokenizer, text)
    if not ids:
        raise _refused("it makes no text of it", template)
    if resume is None:
        return Prompt(text, ids, opened)
    words = beginning(tokenizer, opened, resume, template)
    # By itself, as the first token of an answer reads otherwise than one that goes on.
    begun = (spoken.partial(session, resume, template) if spoken is not None else []) or _tokenize(tokenizer, words)
    return Prompt(text + words, ids + begun, opened, len(begun))


def _tokenize(tokenizer: Any, text: str) -> list[int]:
    # The template writes the special tokens itself; adding them again would double the start token.
    ids = tokenizer(text, add_special_tokens=False, return_token_type_ids=False)["input_ids"]
    return [int(token) for token in ids]


def render_text(
    tokenizer: Any, messages: Sequence[ChatMessage], template: str = "", *, generation_prompt: bool = True
) -> str:
    """Render to text, trying the forms of `FORMS` in their order."""
    return _rendered(tokenizer, messages, template, generation_prompt)[0]


def _rendered(
    tokenizer: Any, messages: Sequence[ChatMessage], template: str, generation_prompt: bool = True
) -> tuple[str, list[ChatMessage]]:
    """Render to text; return it with the messages in the form that the template took."""
    from jinja2 import TemplateError

    refusal: Exception | None = None
    for form in FORMS:
        rows = form(messages)
        try:
            return _apply(tokenizer, rows, template, generation_prompt), rows
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            refusal = refusal or error
    raise _refused(str(refusal), template) from refusal


def _refused(reason: str, template: str) -> GenerationError:
    return GenerationError(
        "The chat template refused this conversation",
        reason,
        "/template own puts the model's own back." if template else "Try another model or report its template.",
        code="template",
    )


def _apply(tokenizer: Any, messages: Iterable[ChatMessage], template: str, generation_prompt: bool) -> str:
    own = None if template_name(tokenizer) == OWN else CHATML
    rows = [{"role": message.role, "content": message.content} for message in messages]
    if template:
        return render_override(template, rows, tokenizer.special_tokens_map, generation_prompt=generation_prompt)
    return str(
        tokenizer.apply_chat_template(rows, chat_template=own, tokenize=False, add_generation_prompt=generation_prompt)
    )


def system_into_user(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Put the system text at the start of the first user message, for templates without a system role."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    rest = [message for message in messages if message.role != "system"]
    first = next((index for index, message in enumerate(rest) if message.role == "user"), None)
    if not system or first is None:
        return rest
    merged = ChatMessage("user", f"{system}\n\n{rest[first].content}")
    return [*rest[:first], merged, *rest[first + 1 :]]


def merge_same_roles(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Join neighbours of one role, for templates that want user and assistant in turn."""
    merged: list[ChatMessage] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            message = ChatMessage(message.role, f"{merged.pop().content}\n\n{message.content}")
        merged.append(message)
    return merged


FORMS: tuple[Callable[[Sequence[ChatMessage]], list[ChatMessage]], ...] = (
    list,
    merge_same_roles,
    system_into_user,
    lambda messages: merge_same_roles(system_into_user(messages)),
)
