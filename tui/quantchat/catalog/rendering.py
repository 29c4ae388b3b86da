"""Look for a model's chat template and render it, in a process of its own: `python -m quantchat.catalog.rendering`.

A template is a program that came with the model, and the files around it may be of any size. It runs in jinja2's
sandbox, and all of this within limits of processor time and memory, which end the process. A `Request` comes on stdin,
a `Sample` or null goes to stdout, as JSON.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from quantchat.catalog.files import Folder
from quantchat.catalog.problems import Defect, clean
from quantchat.catalog.sample import (
    FORM_NOTES,
    GUESSED,
    LONGER,
    LOOKS_SPECIAL,
    QUESTION,
    Message,
    Sample,
    bounded,
    forms,
    split,
)
from quantchat.catalog.templates import (
    DEFAULT,
    PROCESSOR_FILE,
    ChatTemplate,
    chosen,
    read_templates,
    template_of_gguf,
)
from quantchat.catalog.tokens import Tokens, read_tokens
from quantchat.domain.sandbox import environment

TEXT_LIMIT = 20_000
"""Characters that are kept of what a template writes."""
ERROR_LIMIT = 1000
CPU_SECONDS = 2
"""What a template may take."""
READING_SECONDS = 10
MEMORY_BYTES = 384 * 1024**2
READING_BYTES = 1024**3


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to render.

    Attributes:
        path: A model folder, whose special tokens count, or a GGUF file; None if there is none.
        template: The template; the model's own if None.
    """

    path: bytes | None = None
    template: ChatTemplate | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The text and the form that gave it, or why none did.

    Attributes:
        form: Number of the form that was taken.
        complete: Whether the last question is in the text.
        cut: Whether there was more text.
    """

    text: str = ""
    form: int = 0
    complete: bool = True
    cut: bool = False
    error: str = ""


def sample(request: Request) -> Sample | None:
    """Answer a request; None if there is no template."""
    path = Path(os.fsdecode(request.path)) if request.path is not None else None
    if path is not None and path.is_file():
        return _sample_of_gguf(path)
    folder = None if path is None else Folder(path)
    templates = [request.template] if request.template else read_templates(folder) if folder else []
    template = chosen(templates)
    if template is None:
        return None
    others = tuple(clean(other.name, 40) for other in templates[:50] if other is not template)
    return _sample(template, read_tokens(folder) if folder else Tokens(), others)


def _sample_of_gguf(file: Path) -> Sample | None:
    template = template_of_gguf(file)
    # The vocabulary of the file, with the special tokens in it, is not read.
    return _sample(template, None, ()) if template else None


def _sample(template: ChatTemplate, tokens: Tokens | None, others: tuple[str, ...]) -> Sample:
    told = Sample(name=clean(template.name, 40), file=clean(template.file, 80), others=others)
    reply = _bounded_render(template, tokens.named if tokens else {})
    if reply.error:
        return msgspec.structs.replace(told, problem=clean(reply.error))
    texts = tokens.texts if tokens else LOOKS_SPECIAL.findall(reply.text)
    pieces = split(reply.text, {text for text in texts if text in reply.text})
    shown = bounded(pieces)
    notes = list(_notes(reply, template, tokens or Tokens(), others))
    notes += [LONGER] * (reply.cut or pieces != shown) + [GUESSED] * (tokens is None and len(pieces) > 1)
    return msgspec.structs.replace(told, pieces=shown, notes=tuple(notes))


def _notes(reply: Reply, template: ChatTemplate, tokens: Tokens, others: tuple[str, ...]) -> Iterator[str]:
    if FORM_NOTES[reply.form]:
        yield FORM_NOTES[reply.form]
    if not reply.complete:
        yield "The last question is not in the text: the template leaves out what the user says."
    if others and template.name != DEFAULT:
        yield "None of its templates is called default, so transformers takes none by itself."
    if template.file == PROCESSOR_FILE:
        yield f"Only processors of multimodal models read {PROCESSOR_FILE}; its tokenizer alone has no template."
    strange = sorted(set(LOOKS_SPECIAL.findall(reply.text)) - tokens.texts) if tokens.texts else []
    if strange:
        yield f"The tokenizer does not know {clean(', '.join(strange), 80)} as special tokens."


# Rendering


def _bounded_render(template: ChatTemplate, named: Mapping[str, str]) -> Reply:
    sandbox = environment()
    _limit(_used_seconds() + CPU_SECONDS, _used_bytes() + MEMORY_BYTES)
    return render(sandbox, template.text, named)


def render(sandbox: Any, text: str, named: Mapping[str, str]) -> Reply:
    """Render the first form of the sample that comes out whole; errors of the template are put in words."""
    try:
        template = sandbox.from_string(text)
    except Exception as error:  # noqa: BLE001 - the parser meets anything
        return Reply(error=_words(error))
    replies = []
    for number, messages in enumerate(forms()):
        reply = _render(template, messages, number, named)
        if reply.complete and not reply.error:
            return reply
        replies.append(reply)
    # Text that lacks something says more than an error does.
    return next((reply for reply in replies if not reply.error), replies[0])


def _render(template: Any, messages: list[Message], number: int, named: Mapping[str, str]) -> Reply:
    parts: list[str] = []
    length = 0
    # The sample's own names last: no token may stand in their place.
    given = {**named, "messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
    try:
        for part in template.generate(given):
            parts.append(part)
            length += len(part)
            if length > TEXT_LIMIT:
                break
    except Exception as error:  # noqa: BLE001 - templates raise anything
        return Reply(form=number, error=_words(error))
    text = "".join(parts)
    return Reply(text=text[:TEXT_LIMIT], form=number, complete=QUESTION in text, cut=length > TEXT_LIMIT)


def _words(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it wants more memory than a template should"
    if isinstance(error, RecursionError):
        return "it calls itself without an end"
    line = getattr(error, "lineno", None)
    said = str(error)[:ERROR_LIMIT] or type(error).__name__
    return said + (f" (line {line})" if line else "")


# The process


def _limit(seconds: int, memory: int) -> None:
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for kind, value in limits.items():
        hardest = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hardest == resource.RLIM_INFINITY else min(value, hardest), hardest))


def _used_seconds() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int(used.ru_utime + used.ru_stime)


def _used_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return READING_BYTES - MEMORY_BYTES


def main() -> None:
    """Answer one request."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    _limit(READING_SECONDS, READING_BYTES)
    try:
        answer = sample(request)
    except (Defect, OSError):
        answer = None
    except MemoryError:
        answer = Sample(problem="the files around it are larger than any that are known")
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
