"""The download process: one task on its standard input, events on its standard output, and it ends with its parent."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from quantchat.errors import FetchError, QuantchatError, StorageError, UsageError
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

T = TypeVar("T")
ATTEMPTS = 4
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
    # Threads may still wait for a connection that stalls.
    os._exit(0)


class _Voice:
    def __init__(self, events: BinaryIO) -> None:
        self._events = events

    def say(self, event: Event) -> None:
        self._events.write(encode_line(event))


def _end_with_parent() -> None:
    """Nothing more comes on the standard input; its end means that the parent is gone or wants no more."""
    sys.stdin.buffer.read()
    os._exit(ORPHANED)


def _do(task: Task, say: Callable[[Event], None]) -> Event:
    match task:
        case Fetch():
            from quantchat.services.pull import hub
            from quantchat.services.pull.transfer import Transfers

            hub.impatient()
            return Fetched(folder=Transfers(task, say).run())
        case Describe():
            return _patiently(lambda: _describe(task), str(task.wanted))
        case Search():
            return _patiently(lambda: _search(task), "The list of models")


def _patiently(work: Callable[[], T], what: str) -> T:
    from quantchat.services.pull import hub

    hub.impatient()
    for attempt in range(ATTEMPTS):
        try:
            return work()
        except hub.Retry as failure:
            why = str(failure)
            time.sleep(failure.seconds if failure.seconds is not None else 0.5 * 2**attempt)
    raise hub.gave_up(what, why)


def _search(task: Search) -> Found:
    from quantchat.services.pull import hub

    return Found(hits=hub.search(task.words, task.limit))


def _describe(task: Describe) -> Described:
    from quantchat.catalog.roots import hub_cache
    from quantchat.services.pull import hub
    from quantchat.services.pull.cache import RepositoryCache
    from quantchat.services.pull.files import offer_files
    from quantchat.services.pull.preview import Source, indexed_files, preview_model

    commit, files, gated = hub.list_repository(task.wanted)
    if not files:
        raise FetchError(f"{task.wanted} is empty", remedy="Choose another revision or repository")
    source, cache = Source(task.wanted, commit), hub_cache()
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
