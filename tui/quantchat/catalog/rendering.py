"""Render a chat template in a process of its own: `python -m quantchat.catalog.rendering`.

A template is a program that came with the model. It runs in jinja2's sandbox and within limits of processor time and
memory, which end the process. A `Request` comes on stdin, a `Reply` goes to stdout, both as JSON.
What templates are given follows `utils/chat_template_utils.py` of transformers 5.23.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from quantchat.catalog.files import Folder
from quantchat.catalog.problems import Defect
from quantchat.catalog.tokens import Tokens, read_tokens

TEXT_LIMIT = 40_000
"""Characters that are kept of what a template writes."""
CPU_SECONDS = 2
MEMORY_BYTES = 512 * 1024**2


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to render: the first of several forms of one conversation in which `expected` comes out.

    Attributes:
        folder: Where the special tokens stand; None if they are not known.
    """

    template: str
    forms: list[list[dict[str, Any]]]
    expected: str
    folder: bytes | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The text and the form that gave it, or why none did.

    Attributes:
        form: Number of the form that was taken.
        complete: Whether `expected` is in the text.
        cut: Whether there was more text.
        tokens: The special tokens that occur in the text.
        tokens_known: Whether the folder names any.
    """

    text: str = ""
    form: int = 0
    complete: bool = True
    cut: bool = False
    error: str = ""
    tokens: tuple[str, ...] = ()
    tokens_known: bool = False


def render(request: Request, named: Mapping[str, str]) -> Reply:
    """Render a request with named special tokens; errors of the template are put in words."""
    try:
        template = _environment().from_string(request.template)
    except Exception as error:  # noqa: BLE001 - the parser meets anything
        return Reply(error=_words(error))
    replies = []
    for number, messages in enumerate(request.forms):
        reply = _render(template, messages, number, request, named)
        if reply.complete and not reply.error:
            return reply
        replies.append(reply)
    # Text that lacks something says more than an error does.
    return next((reply for reply in replies if not reply.error), replies[0])


def _render(
    template: Any, messages: list[dict[str, Any]], number: int, request: Request, named: Mapping[str, str]
) -> Reply:
    parts: list[str] = []
    length = 0
    try:
        for part in template.generate(
            messages=messages, tools=None, documents=None, add_generation_prompt=True, **named
        ):
            parts.append(part)
            length += len(part)
            if length > TEXT_LIMIT:
                break
    except Exception as error:  # noqa: BLE001 - templates raise anything
        return Reply(form=number, error=_words(error))
    text = "".join(parts)
    return Reply(text=text[:TEXT_LIMIT], form=number, complete=request.expected in text, cut=length > TEXT_LIMIT)


def _words(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it wants more memory than a template should"
    if isinstance(error, RecursionError):
        return "it calls itself without an end"
    line = getattr(error, "lineno", None)
    return f"{error or type(error).__name__}" + (f" (line {line})" if line else "")


def _environment() -> Any:
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """`{% generation %}` marks what the assistant says, for training; here it is only a block."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    class PublicNamespace(Namespace):
        """Refuses names that begin with an underscore, which reach into Python."""

        def __init__(*args: Any, **named: Any) -> None:
            self, *rest = args
            _check(dict(*rest, **named))
            Namespace.__init__(self, *rest, **named)

        def __setitem__(self, name: str, value: Any) -> None:
            _check({name: value})
            super().__setitem__(name, value)

    class Dict:
        """What templates make objects with; the class itself would give them its attributes."""

        def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
            return dict(*args, **named)

        def fromkeys(self, *args: Any) -> dict[Any, Any]:
            return dict.fromkeys(*args)

    def _check(names: dict[str, Any]) -> None:
        if hidden := [name for name in names if str(name).startswith("_")]:
            raise SecurityError(f"it stores {hidden[0]!r}, and names that begin with an underscore are refused")

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": Dict(),
        "namespace": PublicNamespace,
    }
    return environment


def _limit() -> None:
    limits = {
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for kind, value in limits.items():
        hardest = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hardest == resource.RLIM_INFINITY else min(value, hardest), hardest))


def main() -> None:
    """Answer one request."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    tokens = _tokens(request.folder)
    _environment()
    _limit()
    reply = render(request, tokens.named)
    found = tuple(text for text in tokens.texts if text in reply.text)
    reply = msgspec.structs.replace(reply, tokens=found, tokens_known=bool(tokens.texts))
    sys.stdout.buffer.write(msgspec.json.encode(reply))


def _tokens(folder: bytes | None) -> Tokens:
    try:
        return read_tokens(Folder(Path(os.fsdecode(folder)))) if folder is not None else Tokens()
    except Defect:
        return Tokens()


if __name__ == "__main__":
    main()
