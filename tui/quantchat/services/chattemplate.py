"""Chat templates that sessions use in place of the model's own: looked at, tried, refused where they cannot work."""

from __future__ import annotations

from pathlib import Path

from quantchat.catalog.files import Folder
from quantchat.catalog.problems import Defect
from quantchat.catalog.sample import FORM_NOTES, Sample
from quantchat.catalog.template import render_sample
from quantchat.catalog.templates import DEFAULT, ChatTemplate, chosen, read_templates, template_of_gguf
from quantchat.domain.template import CHATML
from quantchat.errors import UsageError
from quantchat.store.library import read_small

_IN_PARTS = (FORM_NOTES[1], FORM_NOTES[3])


def own_template(model: str | None) -> str:
    """Return the template of a model folder or GGUF file; the one that is used without any where it has none."""
    path = Path(model) if model else None
    try:
        if path is not None and path.is_file():
            found = template_of_gguf(path)
        else:
            found = chosen(read_templates(Folder(path))) if path is not None else None
    except Defect:
        found = None
    return found.text if found is not None else CHATML


def sample(text: str, model: str | None) -> Sample:
    """Render the sample conversation with a template, with the special tokens of a model folder.

    Takes tenths of a second in a process of its own, within limits of time and memory.
    """
    folder = Path(model) if model and Path(model).is_dir() else None
    return render_sample(ChatTemplate(DEFAULT, "this session", text), folder)


def checked(text: str, model: str | None) -> str:
    """Return a template that can be used.

    Raises:
        UsageError: if it cannot; it says why.
    """
    if not text.strip():
        raise _refused("it is empty")
    tried = sample(text, model)
    if tried.problem:
        raise _refused(tried.problem)
    if any(note in _IN_PARTS for note in tried.notes):
        raise _refused("it wants the content of messages as a list of parts, and quantchat gives plain text")
    if any(note.startswith("The last question is not in the text") for note in tried.notes):
        raise _refused("it leaves out what the user says")
    return text


def read_template(path: str, model: str | None) -> str:
    """Read a template file and check it.

    Raises:
        UsageError: if it is no text, or cannot be used.
        StorageError: if it cannot be read.
    """
    return checked(read_small(Path(path).expanduser()), model)


def _refused(reason: str) -> UsageError:
    remedy = "It is a Jinja template over `messages`, with `role` and `content` each, and `add_generation_prompt`"
    return UsageError("This chat template cannot be used", reason, remedy, code="template")
