"""The chat template of a model folder: where it stands, and what it makes of a sample conversation.

Where templates stand and which one is taken follows `tokenization_utils_base.py` of transformers 5.23.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from quantchat.catalog.files import Folder, open_regular
from quantchat.catalog.gguf import read_gguf
from quantchat.catalog.problems import Defect, clean
from quantchat.catalog.rendering import Reply, Request
from quantchat.catalog.tokens import CONFIG
from quantchat.domain.sections import Piece

DEFAULT = "default"
FILE = "chat_template.jinja"
FILES = "additional_chat_templates"
PROCESSOR_FILE = "chat_template.json"
TEMPLATE_LIMIT = 1024**2
"""Bytes; the largest templates known have 40 KB."""
SECONDS = 20.0
"""Real time that rendering may take; its processor time is limited far below."""
_LOOKS_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>")

GUESSED = "What looks like a special token is marked; the vocabulary was not read."
QUESTION = "And of Italy?"
SAMPLE = (
    ("system", "You are a helpful assistant."),
    ("user", "What is the capital of France?"),
    ("assistant", "Paris."),
    ("user", QUESTION),
)
FORM_NOTES = (
    "",
    "It wants the content of messages as a list of parts.",
    "It takes no system message: quantchat puts its text before the first question.",
    "It takes no system message, and wants the content of messages as a list of parts.",
)


class ChatTemplate(msgspec.Struct, frozen=True):
    """A template and the file that holds it."""

    name: str
    file: str
    text: str


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A sample conversation as the model gets it.

    Attributes:
        name: Name of the template, `default` unless the folder names several.
        file: Where it stands.
        others: Names of further templates.
        pieces: The text in its parts; empty if it could not be rendered.
        notes: What is worth knowing about the template, a sentence each.
        problem: Why it could not be rendered, in one line.
    """

    name: str
    file: str
    others: tuple[str, ...] = ()
    pieces: tuple[Piece, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(piece.text for piece in self.pieces)


def sample_of(path: Path) -> Sample | None:
    """Render the template of a model folder or GGUF file; None if there is none.

    Takes tenths of a second, and never raises.
    """
    try:
        if path.is_file():
            return _sample_of_gguf(path)
        folder = Folder(path)
    except (Defect, OSError):
        return None
    templates = read_templates(folder)
    chosen = _choose(templates)
    if chosen is None:
        return None
    others = tuple(clean(template.name, 40) for template in templates if template is not chosen)
    return render_sample(chosen, path, others)


def _sample_of_gguf(path: Path) -> Sample | None:
    text = read_gguf(path).text("tokenizer.chat_template")
    if not text:
        return None
    sample = render_sample(ChatTemplate(DEFAULT, path.name, text))
    # The vocabulary of the file, with the special tokens in it, is not read.
    marked = split(sample.text, set(_LOOKS_SPECIAL.findall(sample.text)))
    notes = (*sample.notes, *([GUESSED] if len(marked) > 1 else []))
    return msgspec.structs.replace(sample, pieces=marked if sample.pieces else (), notes=notes)


def render_sample(template: ChatTemplate, folder: Path | None = None, others: tuple[str, ...] = ()) -> Sample:
    """Render the sample conversation with one template, and the special tokens of a folder."""
    name, file = clean(template.name, 40), clean(template.file, 80)
    where = None if folder is None else os.fsencode(folder)
    reply = _render(Request(template=template.text, forms=_forms(), expected=QUESTION, folder=where))
    if reply.error:
        return Sample(name=name, file=file, others=others, problem=clean(reply.error))
    notes = tuple(_notes(reply, template, others))
    return Sample(name=name, file=file, others=others, pieces=split(reply.text, reply.tokens), notes=notes)


def _notes(reply: Reply, template: ChatTemplate, others: tuple[str, ...]) -> Iterator[str]:
    if FORM_NOTES[reply.form]:
        yield FORM_NOTES[reply.form]
    if not reply.complete:
        yield "The last question is not in the text: the template leaves out what the user says."
    if reply.cut:
        yield "The text is longer than is shown here."
    if others and template.name != DEFAULT:
        yield "None of its templates is called default, so transformers takes none by itself."
    if template.file == PROCESSOR_FILE:
        yield f"Only processors of multimodal models read {PROCESSOR_FILE}; its tokenizer alone has no template."
    strange = sorted(set(_LOOKS_SPECIAL.findall(reply.text)) - set(reply.tokens)) if reply.tokens_known else []
    if strange:
        yield f"The tokenizer does not know {clean(', '.join(strange), 80)} as special tokens."


# Templates


def read_templates(folder: Folder) -> list[ChatTemplate]:
    """Return the templates of a folder; files of their own stand in place of what tokenizer_config.json says."""
    found = [*_own_file(folder), *_further_files(folder)]
    if not found:
        found = list(_in_config((folder.json(CONFIG) or {}).get("chat_template")))
    if not found:
        text = (folder.json(PROCESSOR_FILE) or {}).get("chat_template")
        found = [ChatTemplate(DEFAULT, PROCESSOR_FILE, text)] if text and isinstance(text, str) else []
    return found


def _choose(templates: list[ChatTemplate]) -> ChatTemplate | None:
    first = next(iter(templates), None)
    return next((template for template in templates if template.name == DEFAULT), first)


def _own_file(folder: Folder) -> Iterator[ChatTemplate]:
    if FILE in folder and (text := _read(folder.path / FILE)):
        yield ChatTemplate(DEFAULT, FILE, text)


def _further_files(folder: Folder) -> Iterator[ChatTemplate]:
    try:
        inner = Folder(folder.path / FILES)
    except Defect:
        return
    for name in inner.names(".jinja"):
        if text := _read(inner.path / name):
            yield ChatTemplate(name.removesuffix(".jinja"), f"{FILES}/{name}", text)


def _in_config(value: object) -> Iterator[ChatTemplate]:
    if isinstance(value, str) and value:
        yield ChatTemplate(DEFAULT, CONFIG, value)
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict) and isinstance(item.get("template"), str):
            yield ChatTemplate(str(item.get("name") or DEFAULT), CONFIG, item["template"])


def _read(path: Path) -> str:
    try:
        with open_regular(path) as (file, size):
            return file.read(TEMPLATE_LIMIT).decode("utf-8", "replace") if size <= TEMPLATE_LIMIT else ""
    except Defect:
        return ""


def split(text: str, tokens: Iterable[str]) -> tuple[Piece, ...]:
    """Cut a text at its special tokens; of two that begin alike the longer one is meant."""
    longest = sorted(tokens, key=len, reverse=True)
    if not longest:
        return (Piece(text),)
    parts = re.split(f"({'|'.join(map(re.escape, longest))})", text)
    return tuple(Piece(part, special=index % 2 == 1) for index, part in enumerate(parts) if part)


# Rendering


def _forms() -> list[list[dict[str, object]]]:
    plain: list[dict[str, object]] = [{"role": role, "content": content} for role, content in SAMPLE]
    system, first, *rest = plain
    merged = [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *rest]
    return [plain, _in_parts(plain), merged, _in_parts(merged)]


def _in_parts(messages: list[dict[str, object]]) -> list[dict[str, object]]:
    return [message | {"content": [{"type": "text", "text": message["content"]}]} for message in messages]


def _render(request: Request) -> Reply:
    # -P: what lies in the current folder must not be taken for a library.
    command = [sys.executable, "-P", "-m", "quantchat.catalog.rendering"]
    try:
        done = subprocess.run(command, input=msgspec.json.encode(request), capture_output=True, timeout=SECONDS)
        return msgspec.json.decode(done.stdout, type=Reply) if done.returncode == 0 else _died(done.returncode)
    except subprocess.TimeoutExpired:
        return _died(-signal.SIGKILL)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        return Reply(error=f"it could not be rendered: {error}")


def _died(code: int) -> Reply:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return Reply(error="it takes far longer than a template should")
    return Reply(error="it ends the process that renders it")
