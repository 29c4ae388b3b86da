"""A session's own chat template: it may have come with somebody's file, so it runs in the sandbox it was checked in."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from quantchat.domain.sandbox import environment
from quantchat.errors import GenerationError

TEXT_LIMIT = 64 * 1024**2
"""Characters; more is a loop without an end rather than a conversation."""
CPU_SECONDS = 2.0
"""Thousands of messages take a tenth of a second. Stop is not heard meanwhile."""


def render_override(
    template: str,
    messages: Sequence[Mapping[str, str]],
    special: Mapping[str, Any],
    *,
    generation_prompt: bool = True,
) -> str:
    """Render a conversation up to where the answer starts.

    Args:
        template: Jinja text.
        special: The special tokens of the tokenizer by their names, such as `bos_token`.
        generation_prompt: Whether the start of the answer is written (`add_generation_prompt`).

    Raises:
        jinja2.TemplateError: whatever is wrong with it.
        GenerationError: if it takes too long, which another form of the conversation would not mend.
    """
    from jinja2 import TemplateError

    given = {**special, "messages": messages, "tools": None, "documents": None}
    given["add_generation_prompt"] = generation_prompt
    try:
        compiled = _compiled(template)
        with _limited():
            return _joined(compiled.generate(given))
    except (TemplateError, GenerationError):
        raise
    except Exception as error:
        raise TemplateError(f"{type(error).__name__}: {error}") from error


@contextmanager
def _limited() -> Iterator[None]:
    """Give the lines of templates that run on this thread so much time."""
    end, before = time.thread_time() + CPU_SECONDS, sys.gettrace()

    def trace(frame: Any, event: str, value: Any) -> Any:
        if frame.f_code.co_filename != "<template>":
            return None
        if time.thread_time() > end:
            raise GenerationError(
                "The chat template refused this conversation",
                "it runs without an end",
                "/template own puts the model's own back.",
                code="template",
            )
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _joined(parts: Iterable[str]) -> str:
    from jinja2 import TemplateError

    kept: list[str] = []
    length = 0
    for part in parts:
        kept.append(part)
        length += len(part)
        if length > TEXT_LIMIT:
            raise TemplateError("it writes without an end")
    return "".join(kept)


@lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    return environment().from_string(template)
