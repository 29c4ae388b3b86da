"""Downloading the files of one commit: several at a time, each from where it stopped, checked before it counts."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from quantchat.domain.memory import format_bytes
from quantchat.errors import FetchError, StorageError
from quantchat.services.pull import hub, xet
from quantchat.services.pull.cache import RepositoryCache, is_sound
from quantchat.services.pull.files import RemoteFile
from quantchat.services.pull.refusals import AGAIN, RangeRefused, Retry, gave_up
from quantchat.services.pull.words import Fetch, FileMoved, FileState, Moved

SMALL = 1024**2
FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your quota is used up", errno.EFBIG: "files may not be larger"}
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Stopped(Exception):
    """Another file failed, so this one need not go on."""


class Progress:
    """How far one file is; written by its thread, read by the one that reports."""

    def __init__(self, file: RemoteFile) -> None:
        self.file = file
        self.done = 0
        self.received = 0
        self.state: FileState = "waiting"
        self.note = ""

    def snapshot(self) -> FileMoved:
        """Return what to report."""
        return FileMoved(path=self.file.path, done=self.done, state=self.state, note=self.note)


class Transfers:
    """One download.

    Args:
        task: What to fetch.
        tell: Hears what changed, a few times per second.
    """

    def __init__(self, task: Fetch, tell: Callable[[Moved], None]) -> None:
        self._task, self._tell = task, tell
        self._cache = RepositoryCache(Path(task.cache), task.wanted)
        self._stop = threading.Event()
        self._progress = [Progress(file) for file in task.files]
        self._told: dict[str, FileMoved] = {}

    def run(self) -> str:
        """Fetch everything; return the snapshot's folder.

        Raises:
            FetchError: if a file cannot be had.
            StorageError: if the disk refuses.
        """
        # Small files first, so that what the model is stands there early; then the largest, which take longest.
        order = sorted(self._progress, key=lambda one: (one.file.size > SMALL, -one.file.size))
        pool = ThreadPoolExecutor(max(self._task.limits.parallel, 1))
        try:
            self._watch([pool.submit(self._fetch, one) for one in order])
        finally:
            # Not waited for: a connection that stalls would hold up the bad news, and the process ends anyway.
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        with _disk_explained(self._cache.folder):
            self._cache.name_commit(self._task.commit)
        return str(self._cache.snapshot(self._task.commit))

    def _watch(self, futures: list[Future[None]]) -> None:
        running = set(futures)
        while running:
            done, running = wait(running, self._task.limits.tick, return_when=FIRST_EXCEPTION)
            self._report()
            for future in done:
                future.result()

    def _report(self) -> None:
        now = {one.file.path: one.snapshot() for one in self._progress}
        changed = tuple(moved for path, moved in now.items() if self._told.get(path) != moved)
        self._told = now
        # Also when nothing changed: silence would mean that this process hangs.
        self._tell(Moved(files=changed, received=sum(one.received for one in self._progress)))

    def _fetch(self, one: Progress) -> None:
        try:
            with _disk_explained(self._cache.folder), self._cache.locked(one.file, lambda s: self._wait_lock(one, s)):
                self._bring(one)
                self._cache.link(one.file, self._task.commit)
            one.state, one.note, one.done = "done", "", one.file.size
        except Stopped:
            one.state = "waiting"
        except Exception:
            one.state = "failed"
            self._stop.set()
            raise

    def _wait_lock(self, one: Progress, seconds: float) -> None:
        one.state, one.note = "fetching", "another program fetches it"
        one.done = min(_size(self._cache.partial(one.file)), one.file.size)
        self._pause(seconds)

    def _bring(self, one: Progress) -> None:
        """Make sure that the blob is there and sound."""
        file, content = one.file, self._cache.content(one.file, self._task.commit)
        if content is not None:
            if self._check(one, content):
                return
            content.unlink()
            one.note = "what was here is corrupt: fetching it again"
        self._cache.prepare(file)
        partial = self._cache.partial(file)
        for _ in range(2):
            self._fill(one, partial)
            if self._check(one, partial):
                self._cache.keep(file)
                return
            partial.unlink()
            one.note = "it arrived corrupt: fetching it again"
        detail = "what arrives, twice, has another checksum than the hub says; the bad bytes are deleted"
        raise FetchError(f"{file.path} arrives corrupt", detail, f"{AGAIN}, or try another mirror", code="corrupt")

    def _check(self, one: Progress, path: Path) -> bool:
        one.state, one.done = "checking", one.file.size
        return is_sound(path, one.file)

    def _fill(self, one: Progress, partial: Path) -> None:
        """Fetch until a partial file has the size that it should have."""
        one.state = "fetching"
        limits, fruitless = self._task.limits, 0
        partial.touch()
        if _size(partial) > one.file.size:
            os.truncate(partial, 0)
        # The most that ever was there: a file that comes from its beginning over and over does not go on.
        most = one.done = _size(partial)
        while most != one.file.size:
            why, seconds = self._attempt(one, partial)
            one.done = now = _size(partial)
            if now == one.file.size:
                return
            fruitless, most = (0, now) if now > most else (fruitless + 1, most)
            if fruitless > limits.retries:
                raise gave_up(one.file.path, why)
            one.note = f"{why}; trying again"
            self._pause(seconds or min(limits.pause * 2 ** max(fruitless - 1, 0), limits.longest_pause))

    def _attempt(self, one: Progress, partial: Path) -> tuple[str, float | None]:
        """Fetch once; return why it did not go on, and how long the hub wants to be left alone."""
        try:
            if not self._by_xet(one, partial):
                self._by_http(one, partial)
        except Retry as failure:
            return str(failure), failure.seconds
        except RangeRefused:
            partial.unlink(missing_ok=True)
            return "the file is shorter than the hub says", None
        return "the connection broke off", None

    def _by_xet(self, one: Progress, partial: Path) -> bool:
        if not one.file.sha256 or not xet.is_wanted():
            return False
        url = hub.file_url(self._task.wanted, self._task.commit, one.file.path)
        with xet.open_stream(self._task.wanted, url, one.file.size, _size(partial)) as pieces:
            if pieces is None:
                return False
            self._write(one, partial, pieces)
        return _size(partial) == one.file.size

    def _by_http(self, one: Progress, partial: Path) -> None:
        begin = _size(partial)
        if begin == one.file.size:
            return
        url = hub.file_url(self._task.wanted, self._task.commit, one.file.path)
        with hub.open_range(self._task.wanted, url, begin) as (pieces, heeded):
            if begin and not heeded:
                partial.unlink()
                one.done = 0
            self._write(one, partial, pieces)

    def _write(self, one: Progress, partial: Path, pieces: Iterator[bytes]) -> None:
        # Unbuffered: what has arrived is kept when the process is killed.
        with open(partial, "ab", buffering=0) as written:
            room = one.file.size - os.fstat(written.fileno()).st_size
            for piece in pieces:
                if self._stop.is_set():
                    raise Stopped
                if not room:
                    # More than the file has: let the checksum decide, and not the disk fill up.
                    break
                piece = piece[:room]
                _write_all(written.fileno(), piece)
                room -= len(piece)
                one.done += len(piece)
                one.received += len(piece)
                one.note = ""

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped


def _write_all(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class _disk_explained:  # noqa: N801 - reads as a word in `with _disk_explained(folder):`
    """Turns the disk's refusals into our own errors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            why = FULL.get(error.errno or 0) or error.strerror or str(error)
            kept = sum(_size(path) for path in self._folder.glob("blobs/*"))
            detail = f"{why}; the {format_bytes(kept)} that are there are kept and gone on with" if kept else why
            raise StorageError(f"Cannot write into {self._folder}", detail, _remedy(error), code="disk") from error


def _remedy(error: OSError) -> str:
    if error.errno in FULL:
        return "Free some space, or move the cache with HF_HUB_CACHE"
    if error.errno in CLOSED:
        return "Let yourself write there, or name another folder in HF_HUB_CACHE"
    if error.errno == errno.ENAMETOOLONG:
        return "Leave the file with the long name out (--exclude)"
    return "Look at that folder and its disk, or name another one in HF_HUB_CACHE"
