"""Where the chat templates of a model stand: files of their own, configs, GGUF headers.

Which one is taken follows `tokenization_utils_base.py` of transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from quantchat.catalog.files import Folder, RegularFile
from quantchat.catalog.gguf import read_gguf
from quantchat.catalog.problems import Defect
from quantchat.catalog.tokens import CONFIG

DEFAULT = "default"
FILE = "chat_template.jinja"
FILES = "additional_chat_templates"
PROCESSOR_FILE = "chat_template.json"
TEMPLATE_LIMIT = 1024**2
"""Bytes; the largest templates known have 40 KB."""


class ChatTemplate(msgspec.Struct, frozen=True):
    """A template and the file that holds it."""

    name: str
    file: str
    text: str


def read_templates(folder: Folder) -> list[ChatTemplate]:
    """Return the templates of a folder; files of their own stand in place of what tokenizer_config.json says."""
    found = [*_own_file(folder), *_further_files(folder)]
    if not found:
        found = list(_in_config((folder.json(CONFIG) or {}).get("chat_template")))
    if not found:
        text = (folder.json(PROCESSOR_FILE) or {}).get("chat_template")
        found = [ChatTemplate(DEFAULT, PROCESSOR_FILE, text)] if text and isinstance(text, str) else []
    return found


def template_of_gguf(file: Path) -> ChatTemplate | None:
    """Return the template of a GGUF file.

    Raises:
        Defect: It is no GGUF file.
    """
    text = read_gguf(file).text("tokenizer.chat_template")
    return ChatTemplate(DEFAULT, file.name, text) if text else None


def chosen(templates: list[ChatTemplate]) -> ChatTemplate | None:
    """Return the template that is taken when none is asked for by name."""
    first = next(iter(templates), None)
    return next((template for template in templates if template.name == DEFAULT), first)


def _own_file(folder: Folder) -> Iterator[ChatTemplate]:
    if FILE in folder and (text := _read(folder.join(FILE))):
        yield ChatTemplate(DEFAULT, FILE, text)


def _further_files(folder: Folder) -> Iterator[ChatTemplate]:
    try:
        inner = Folder(folder.path / FILES)
    except Defect:
        return
    for name in inner.names(".jinja"):
        if text := _read(inner.join(name)):
            yield ChatTemplate(name.removesuffix(".jinja"), f"{FILES}/{name}", text)


def _in_config(value: object) -> Iterator[ChatTemplate]:
    if isinstance(value, str) and value:
        yield ChatTemplate(DEFAULT, CONFIG, value)
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict) and isinstance(item.get("template"), str):
            yield ChatTemplate(str(item.get("name") or DEFAULT), CONFIG, item["template"])


def _read(path: str) -> str:
    try:
        with RegularFile(path) as file:
            return file.read(file.size).decode("utf-8", "replace") if file.size <= TEMPLATE_LIMIT else ""
    except Defect:
        return ""
