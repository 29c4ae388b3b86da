"""The download process: one task on its standard input, events on its standard output, and it ends with its parent."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from quantchat.errors import ErrorReport, FetchError, QuantchatError, StorageError, UsageError
from quantchat.services.pull.words import (
    Broken,
    Describe,
    Described,
    Event,
    Fetch,
    Fetched,
    Found,
    Search,
    Task,
    encode_line,
    task_decoder,
)

if TYPE_CHECKING:
    from quantchat.services.pull.patience import Patience

ORPHANED = 3
"""Exit status of a process whose parent is gone."""


def main() -> None:
    """Do the task."""
    # Only events may go to the parent: what libraries print goes where their errors go.
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    task = task_decoder.decode(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    say = _Voice(events).say
    try:
        say(_do(task, say))
    except QuantchatError as error:
        kind = "usage" if isinstance(error, UsageError) else "storage" if isinstance(error, StorageError) else "fetch"
        say(Broken(report=error.report, kind=kind))  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        say(Broken(report=_unexpected(error)))
    # Threads may still wait for a connection that stalls.
    os._exit(0)


class _Voice:
    def __init__(self, events: BinaryIO) -> None:
        self._events = events
        self._lock = threading.Lock()

    def say(self, event: Event) -> None:
        line = memoryview(encode_line(event))
        with self._lock:
            while line:
                line = line[self._events.write(line) or 0 :]


def _unexpected(error: Exception) -> ErrorReport:
    """What a bug of ours or of a library says; its trace goes to the standard error."""
    import traceback

    from quantchat.services.pull.refusals import AGAIN, shown

    traceback.print_exception(error)
    detail = f"{type(error).__name__}: {shown(error)}"
    return ErrorReport(code="fetch", title="The download failed unexpectedly", detail=detail, remedy=AGAIN)


def _require_numbers() -> None:
    """huggingface_hub does not even import with a wrong one."""
    for name in ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"):
        said = os.environ.get(name, "")
        if said and not said.strip().isdecimal():
            raise UsageError(f"{name} is {said!r}", "it must be a whole number of seconds", "Unset it, or set it to 30")


def _end_with_parent() -> None:
    """Nothing more comes on the standard input; its end means that the parent is gone or wants no more."""
    # Not by `sys.stdin`: an interpreter that ends while a thread reads from it dies of that.
    while os.read(0, 1):
        continue
    os._exit(ORPHANED)


def _do(task: Task, say: Callable[[Event], None]) -> Event:
    _require_numbers()
    from quantchat.services.pull import hub
    from quantchat.services.pull.patience import Patience

    hub.prepare()
    match task:
        case Fetch():
            from quantchat.services.pull.transfer import Transfers

            return Fetched(folder=Transfers(task, say).run())
        case Describe():
            return _describe(task, Patience(say))
        case Search():
            return Found(hits=Patience(say).ask(lambda: hub.search(task.words, task.limit), "The list of models"))


def _describe(task: Describe, patience: Patience) -> Described:
    from quantchat.catalog.roots import hub_cache
    from quantchat.services.pull import hub
    from quantchat.services.pull.cache import RepositoryCache
    from quantchat.services.pull.files import offer_files
    from quantchat.services.pull.preview import Source, indexed_files, preview_model

    commit, files, gated = patience.ask(lambda: hub.list_repository(task.wanted), str(task.wanted))
    if not files:
        raise FetchError(f"{task.wanted} is empty", remedy="Choose another revision or repository")
    source, cache = Source(task.wanted, commit, patience), hub_cache()
    place = RepositoryCache(cache, task.wanted)
    offers = offer_files(
        files,
        include=task.include,
        exclude=task.exclude,
        everything=task.everything,
        indexed=indexed_files(source, files),
    )
    taken = [offer.file for offer in offers if offer.taken]
    model, note = None, ""
    try:
        model = preview_model(source, taken, place.snapshot(commit))
    except OSError as error:
        note = f"What model it makes cannot be worked out here: {error.strerror or error}."
    return Described(
        wanted=task.wanted,
        commit=commit,
        offers=tuple(offers),
        cache=str(cache),
        model=model,
        present={file.path: place.present_bytes(file, commit) for file in files},
        gated=gated,
        note=note,
    )


if __name__ == "__main__":
    main()
