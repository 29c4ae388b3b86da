"""Files in a prompt: which ones it mentions, and what they hold."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from quantchat.domain.attachments import LANGUAGE_OF, Attachment, Draft, next_number
from quantchat.domain.text import plain
from quantchat.errors import UsageError

FILE_BYTES = 256 << 10
_MENTION = re.compile(r'(?<!\S)@(?:"([^"\n]+)"|([^\s"]\S*))')
_PUNCTUATION = ".,;:!?)]}'\""
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP})


def mentions(text: str) -> list[str]:
    """Return what follows each `@` at the start of a word; most of it may name no file."""
    return [quoted or bare for quoted, bare in _MENTION.findall(text)]


def with_mentioned_files(draft: Draft) -> Draft:
    """Attach the files that a prompt mentions as `@path`; reads the disk.

    Words that name no file and do not look like a path, such as `@property`, stay words.

    Raises:
        UsageError: if a file cannot be attached, or what looks like a path names none.
    """
    number = max(next_number(draft.text), next_number(" ".join(a.token for a in draft.attachments)))
    there = {attachment.name for attachment in draft.attachments}
    files: list[Attachment] = []
    for name in dict.fromkeys(mentions(draft.text)):
        file = _mentioned(name, number + len(files))
        if file is not None and file.name not in there:
            there.add(file.name)
            files.append(file)
    return draft.with_files(files)


def _mentioned(name: str, number: int) -> Attachment | None:
    found = next((shorter for shorter in _without_punctuation(name) if os.path.exists(locate(shorter))), None)
    if found is None:
        if _is_path(name.rstrip(_PUNCTUATION)):
            raise _missing(name)
        return None
    try:
        return read_file(found, number)
    except UsageError:
        if _is_path(found):
            raise
        return None


def _without_punctuation(name: str) -> Iterator[str]:
    yield name
    while name and name[-1] in _PUNCTUATION:
        name = name[:-1]
        if name:
            yield name


def _is_path(name: str) -> bool:
    """Whether words can only mean a file: `@types/node` and `@app.get` may be something else."""
    if name.startswith(("/", "./", "../", "~/")):
        return True
    first, slash, _ = name.partition("/")
    return Path(name).suffix.lower() in LANGUAGE_OF or (bool(slash) and os.path.isdir(locate(first)))


def locate(name: str) -> str:
    """Return the path that a name means, from the current folder and with `~` for the home folder."""
    try:
        return os.path.expanduser(name)
    except ValueError:
        return name


def read_file(name: str, number: int = 1) -> Attachment:
    """Read a text file as an attachment.

    Raises:
        UsageError: if it is missing, unreadable, a folder, too large, or no text.
    """
    data = _read(name)
    if len(data) > FILE_BYTES:
        raise _refused(name, f"it is larger than {FILE_BYTES >> 10} KiB", "Paste the part that matters")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise _refused(name, "it is not a text file in UTF-8", "Only text can be attached")
    return Attachment.file(number, name, plain(text))


def _read(name: str) -> bytes:
    path = locate(name)
    try:
        # Not opened before it is known to be a file: a pipe would wait for its writer.
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise _refused(name, "it is a folder", "Name a file in it")
        if not stat.S_ISREG(mode):
            raise _refused(name, "it is not a regular file", "Only text files can be attached")
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _refused(name, "it is not a regular file", "Only text files can be attached")
            return file.read(FILE_BYTES + 1)
    except OSError as error:
        if error.errno in _MISSING:
            raise _missing(name) from error
        raise _refused(name, error.strerror or str(error), "Check its permissions") from error
    except ValueError as error:
        raise _missing(name) from error


def _open_at_once(path: str, flags: int) -> int:
    # Another program may have put a pipe there since the look at it.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _missing(name: str) -> UsageError:
    return _refused(name, "there is no such file", "Correct the name; @ followed by Tab lists files")


def _refused(name: str, reason: str, remedy: str) -> UsageError:
    return UsageError(f"{name} cannot be attached: {reason}", "", remedy, code="attachment")
