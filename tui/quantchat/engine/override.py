"""A session's own chat template: it may have come with somebody's file, so it runs in the sandbox it was checked in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from quantchat.domain.sandbox import environment

TEXT_LIMIT = 64 * 1024**2
"""Characters; more is a loop without an end rather than a conversation."""


def render_override(template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, Any]) -> str:
    """Render a conversation up to where the answer starts.

    Args:
        template: Jinja text.
        special: The special tokens of the tokenizer by their names, such as `bos_token`.

    Raises:
        jinja2.TemplateError: whatever is wrong with it.
    """
    from jinja2 import TemplateError

    given = {**special, "messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
    try:
        return _joined(_compiled(template).generate(given))
    except TemplateError:
        raise
    except Exception as error:
        raise TemplateError(f"{type(error).__name__}: {error}") from error


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
