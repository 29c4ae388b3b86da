"""What the program and its download process say to each other: one JSON object per line."""

from __future__ import annotations

from typing import Literal

import msgspec

from quantchat.domain.models import ModelInfo
from quantchat.errors import ErrorReport
from quantchat.services.pull.files import Offer, RemoteFile
from quantchat.services.pull.names import Wanted

FileState = Literal["waiting", "fetching", "checking", "done", "failed"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a download is.

    Attributes:
        parallel: Files at a time.
        retries: Attempts in a row that may bring no byte.
        pause: Seconds before the first of them; doubled for each further one, up to `longest_pause`.
        tick: Seconds between reports.
    """

    parallel: int = 4
    retries: int = 5
    pause: float = 1.0
    longest_pause: float = 30.0
    tick: float = 0.2


class Describe(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Say what a repository holds, and what a model its wanted files make."""

    wanted: Wanted
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    everything: bool = False


class Search(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Look for models by words of their names."""

    words: str
    limit: int = 30


class Fetch(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Download files of one commit into the hub cache."""

    wanted: Wanted
    commit: str
    files: tuple[RemoteFile, ...]
    cache: str
    limits: Limits = Limits()


Task = Describe | Search | Fetch


class Described(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What a repository holds.

    Attributes:
        offers: Its files, and which of them are taken.
        model: What the files would be as a model here; None if they are none.
        cache: The hub cache that they would go to.
        present: Bytes of the taken files that are there already, whole or in part, by path.
        gated: Whether its owner wants something before files may be fetched.
        note: What could not be worked out.
    """

    wanted: Wanted
    commit: str
    offers: tuple[Offer, ...]
    cache: str
    model: ModelInfo | None = None
    present: dict[str, int] = {}
    gated: bool = False
    note: str = ""


class Waiting(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A look-up goes on; `note` says what it waits for, if there is anything to say."""

    note: str = ""


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A repository that a search found."""

    repository: str
    downloads: int = 0
    likes: int = 0
    gated: bool = False
    tags: tuple[str, ...] = ()


class Found(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The repositories that a search found, most downloaded first."""

    hits: tuple[Hit, ...]


class FileMoved(msgspec.Struct, frozen=True, kw_only=True):
    """How far one file is; `note` says what it waits for."""

    path: str
    done: int
    state: FileState
    note: str = ""


class Moved(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What changed since the last report; `received` counts all bytes that came over the network."""

    files: tuple[FileMoved, ...]
    received: int


class Fetched(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """All files are there and sound; `folder` is the snapshot."""

    folder: str


class Broken(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The task failed; `kind` names the class of the error."""

    report: ErrorReport
    kind: Literal["usage", "fetch", "storage"] = "fetch"


Event = Waiting | Described | Found | Moved | Fetched | Broken

task_decoder: msgspec.json.Decoder[Task] = msgspec.json.Decoder(Task)
event_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode_line(word: Task | Event) -> bytes:
    """Write one message as one line."""
    return msgspec.json.encode(word) + b"\n"
