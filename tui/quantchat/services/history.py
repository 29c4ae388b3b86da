"""A conversation as a plain list of messages in a file: gone on with, and saved whole or not at all.

`[{"role": "user", "content": "…"}, …]`, the same as JSONL, or an object that holds such a list as `messages`. What else
stands in a message or beside the list is kept as it was found, and so is the form.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from quantchat import paths
from quantchat.domain.chat import ChatMessage, Role, new_id
from quantchat.domain.text import without_surrogates
from quantchat.errors import StorageError, UsageError
from quantchat.store.atomic import private_dir, translate_os_error, write_atomic
from quantchat.store.exchange.messages import ROLES, NotAMessage

Form = Literal["list", "lines", "object"]
LINES_SUFFIX = ".jsonl"
STANDARD_INPUT = "-"
MESSAGES = "messages"
REMEDY = 'A history is a JSON list of {"role": "user", "content": "…"}, or JSONL with a message on each line'


class History:
    """The messages of a conversation, in the order in which they were said.

    Attributes:
        form: How a file holds them.
    """

    def __init__(
        self, rows: Iterable[dict[str, Any]] = (), form: Form = "list", about: Mapping[str, Any] | None = None
    ) -> None:
        """Take `rows` that `ChatMessage`s can be made of; `about` is what stands beside them in an object.

        Raises:
            NotAMessage: if one of them is no message; it says which and why.
        """
        self._rows = list(rows)
        self._messages = [_message(row, number) for number, row in enumerate(self._rows, 1)]
        self._about = dict(about or {})
        self.form: Form = form

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """What a model is asked with."""
        return tuple(self._messages)

    @property
    def open_question(self) -> str | None:
        """The last message, if it is a question that nobody has answered."""
        last = self._messages[-1] if self._messages else None
        return last.content if last is not None and last.role == "user" else None

    def add(self, role: Role, content: str) -> None:
        """Put a message at the end."""
        self._insert(len(self._rows), role, content)

    def take_back(self) -> None:
        """Drop the last message."""
        self._rows.pop()
        self._messages.pop()

    def set_system(self, text: str) -> None:
        """Begin with this system prompt, in place of the one that is there; with none, if it is empty."""
        if self._messages and self._messages[0].role == "system":
            del self._rows[0], self._messages[0]
        if text:
            self._insert(0, "system", text)

    def _insert(self, place: int, role: Role, content: str) -> None:
        self._rows.insert(place, {"role": role, "content": content})
        self._messages.insert(place, ChatMessage(role, content))

    def encode(self) -> bytes:
        """Return the contents of its file."""
        rows = without_surrogates(self._rows)
        if self.form == "lines":
            return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        whole = rows if self.form == "list" else {**without_surrogates(self._about), MESSAGES: rows}
        return (json.dumps(whole, ensure_ascii=False, indent=2) + "\n").encode()


def _message(row: Mapping[str, Any], number: int) -> ChatMessage:
    role = row.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise NotAMessage(f"message {number} has the role {str(role)[:40]!r}")
    content = row.get("content")
    if isinstance(content, str):
        return ChatMessage(ROLES[role], content)
    if isinstance(content, list) and all(isinstance(part, dict) and _text(part) is not None for part in content):
        return ChatMessage(ROLES[role], "".join(_text(part) or "" for part in content))
    raise NotAMessage(f"the content of message {number} is no text")


def _text(part: Mapping[str, Any]) -> str | None:
    text = part.get("text") if part.get("type", "text") == "text" else None
    return text if isinstance(text, str) else None


def parse_history(data: bytes, name: str, *, form: Form = "list") -> History:
    """Make a history of a file's contents; of an empty file one that is empty, in the given form.

    Raises:
        StorageError: if it is none.
    """
    try:
        text = data.decode("utf-8-sig")
        return _parsed(text) if text.strip() else History(form=form)
    except RecursionError:
        raise _unreadable(name, "it is nested too deeply") from None
    except ValueError as error:
        # Also what is no UTF-8, and what msgspec says of JSON.
        raise _unreadable(name, str(error)) from error


def _parsed(text: str) -> History:
    if "\n" in text.strip() and text.lstrip().startswith("{"):
        lines = _lines(text)
        if lines is not None:
            return History(lines, "lines")
    value = msgspec.json.decode(text)
    if isinstance(value, dict) and isinstance(value.get(MESSAGES), list):
        about = {key: item for key, item in value.items() if key != MESSAGES}
        return History(_objects(value[MESSAGES]), "object", about)
    if isinstance(value, dict):
        return History([value], "lines")
    if not isinstance(value, list):
        raise NotAMessage("it is no list of messages")
    return History(_objects(value))


def _lines(text: str) -> list[dict[str, Any]] | None:
    """Read JSONL; None of a text whose first line is only the beginning of an object."""
    rows: list[Any] = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if line.strip():
                rows.append(msgspec.json.decode(line))
        except msgspec.DecodeError as error:
            if not rows:
                return None
            raise NotAMessage(f"line {number}: {error}") from error
    if len(rows) > 1 and any(isinstance(row, dict) and MESSAGES in row for row in rows):
        raise NotAMessage("it holds several conversations")
    return None if len(rows) == 1 else _objects(rows)


def _objects(rows: list[Any]) -> list[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise NotAMessage(f"message {number} is no object with role and content")
    return rows


def _unreadable(name: str, reason: str) -> StorageError:
    title = f"{name} is no history of messages"
    return StorageError(title, f"{reason}. It was left as it is", REMEDY, code="history-unreadable")


def read_history(path: Path) -> History:
    """Read a history that is not going to be saved there; it may also come through a pipe.

    Raises:
        StorageError: if it cannot be read, or is none.
    """
    source = Path("/dev/stdin") if str(path) == STANDARD_INPUT else path
    try:
        return parse_history(source.read_bytes(), str(path))
    except OSError as error:
        raise translate_os_error(error, path, reading=True) from error


class HistoryFile:
    """A file that a history is kept in. What others wrote there meanwhile is never replaced.

    Attributes:
        path: Where the history is saved now.
        moved: It had to go beside the file that was asked for, which somebody else has changed.
    """

    def __init__(self, path: Path) -> None:
        """Look at the file, if there is one.

        Raises:
            UsageError: if nothing can be saved there.
            StorageError: if there is something that cannot be read, or is no history.
        """
        self.path = path
        self.moved = False
        self._form: Form = "lines" if path.suffix == LINES_SUFFIX else "list"
        self._known = self._contents()
        self._found = parse_history(self._known or b"", str(path), form=self._form)
        # A link is followed.
        folder = Path(os.path.realpath(path)).parent
        if not folder.is_dir():
            raise UsageError(f"{path} cannot be written", f"there is no folder {folder}", "Make it first")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"{path} cannot be written", f"you may not write into {folder}", "Name another file")

    def read(self) -> History:
        """Return what the file held."""
        return self._found

    def new(self, begun: History | None = None) -> History:
        """Return a history to be kept here in place of what the file held: an empty one, or what was `begun`."""
        history = begun or History()
        history.form = self._form
        return history

    def _contents(self) -> bytes | None:
        """What the file holds; None if there is none."""
        try:
            # Without waiting: nobody may ever write into a pipe.
            with open(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise UsageError(f"{self.path} is no regular file", "a history cannot be kept there")
                return file.read()
        except FileNotFoundError:
            return None
        except IsADirectoryError as error:
            raise UsageError(f"{self.path} is a folder", remedy="Name a file in it") from error
        except OSError as error:
            raise translate_os_error(error, self.path, reading=True) from error

    def save(self, history: History) -> None:
        """Write a history; beside the file if that holds something else by now than what was read or written here.

        Raises:
            StorageError: if the disk refuses; what was there is untouched.
        """
        data, changed = history.encode(), self._is_changed()
        path = self.path.with_name(_apart(self.path)) if changed else self.path
        write_atomic(path, data)
        self.path, self.moved, self._known = path, self.moved or changed, data

    def _is_changed(self) -> bool:
        try:
            return self._contents() != self._known
        except UsageError:
            return True

    def save_elsewhere(self, history: History) -> Path:
        """Write a history among quantchat's own files, as its disk refuses; return where.

        Raises:
            StorageError: if that disk refuses, too.
        """
        path = private_dir(paths.data_dir() / "histories") / _apart(self.path)
        write_atomic(path, history.encode())
        return path


def _apart(path: Path) -> str:
    """A name that is taken by nobody."""
    return f"{path.stem}.{new_id()}{path.suffix}"
