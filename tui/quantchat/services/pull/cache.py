"""Writing into the hub cache so that every tool finds it: `blobs/<etag>`, links in `snapshots/<commit>`, `refs/<name>`.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. A blob is written as `<etag>.incomplete` and
renamed when it is whole and sound. huggingface_hub deletes or forgets its own partial files; ours are gone on with.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from huggingface_hub import constants

from quantchat.services.pull.files import RemoteFile
from quantchat.services.pull.names import Wanted

PIECE = 4 * 1024**2
LOCK_POLL = 0.2
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
QUIET_SECONDS = 60.0
"""A partial file of another program that nobody wrote to for so long is taken over."""


class RepositoryCache:
    """The folder of one repository in a hub cache."""

    def __init__(self, cache: Path, wanted: Wanted) -> None:
        name = "models--" + wanted.repository.replace("/", "--")
        self.folder = cache / name
        self._locks = cache / ".locks" / name
        self._revision = wanted.revision

    def blob(self, file: RemoteFile) -> Path:
        """Where a file's content is, once it is whole."""
        return self.folder / "blobs" / file.etag

    def partial(self, file: RemoteFile) -> Path:
        """Where a file's content grows."""
        return self.folder / "blobs" / f"{file.etag}.incomplete"

    def snapshot(self, commit: str) -> Path:
        """The folder that looks like the repository at a commit."""
        return self.folder / "snapshots" / commit

    def shown(self, file: RemoteFile, commit: str) -> Path:
        """The file in the snapshot: a link to the blob, or the content itself where there are no links."""
        return self.snapshot(commit).joinpath(*file.path.split("/"))

    def content(self, file: RemoteFile, commit: str) -> Path | None:
        """Where a file's content is already, if it is there."""
        shown = self.shown(file, commit)
        if not shown.is_symlink() and shown.is_file():
            return shown
        return self.blob(file) if self.blob(file).exists() else None

    def present_bytes(self, file: RemoteFile, commit: str) -> int:
        """Bytes of a file that need not be fetched any more."""
        with contextlib.suppress(OSError):
            content = self.content(file, commit)
            return min((content or self.partial(file)).stat().st_size, file.size)
        return 0

    def prepare(self, file: RemoteFile) -> None:
        """Make the folders, and take over what another program left half done."""
        partial = self.partial(file)
        partial.parent.mkdir(parents=True, exist_ok=True)
        if partial.exists():
            return
        left = [path for path in partial.parent.glob(f"{file.etag}.*.incomplete") if _is_prefix(path, file.size)]
        if left:
            max(left, key=lambda path: path.stat().st_size).replace(partial)

    def keep(self, file: RemoteFile) -> None:
        """Make the blob of a partial file that is whole and sound."""
        partial = self.partial(file)
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        partial.replace(self.blob(file))

    def link(self, file: RemoteFile, commit: str) -> None:
        """Let the snapshot show a blob under the file's name; where there are no links, it moves there."""
        place = self.shown(file, commit)
        if self.content(file, commit) == place:
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(self.blob(file), place.parent)
        if place.is_symlink() and os.readlink(place) == target:
            return
        # A name of its own: the file's, with something added, may be longer than the disk allows.
        fresh = place.with_name(f".{file.etag[:16]}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        try:
            _symlink(fresh, target)
            fresh.replace(place)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self.blob(file).replace(place)

    def name_commit(self, commit: str) -> None:
        """Let the revision's name mean this commit from now on."""
        if self._revision == commit:
            return
        ref = self.folder.joinpath("refs", *self._revision.split("/"))
        ref.parent.mkdir(parents=True, exist_ok=True)
        fresh = ref.with_name(f".{ref.name}.{os.getpid()}")
        fresh.write_text(commit, encoding="ascii")
        fresh.replace(ref)

    @contextlib.contextmanager
    def locked(self, file: RemoteFile, wait: Callable[[float], None]) -> Iterator[None]:
        """Hold the lock under which the hub's own tools write a blob; `wait` is called while another holds it."""
        self._locks.mkdir(parents=True, exist_ok=True)
        with open(self._locks / f"{file.etag}.lock", "a", encoding="ascii") as lock:
            while not _try_lock(lock.fileno()):
                wait(LOCK_POLL)
            yield


def is_sound(path: Path, file: RemoteFile) -> bool:
    """Whether a file on the disk is what the hub says: sha256 of the content, or git's sha1 where there is none."""
    if path.stat().st_size != file.size:
        return False
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with open(path, "rb") as content:
        while piece := content.read(PIECE):
            digest.update(piece)
    return digest.hexdigest() == file.etag


def _symlink(place: Path, target: str) -> None:
    if constants.HF_HUB_DISABLE_SYMLINKS:
        raise OSError(errno.EPERM, "links are switched off")
    place.symlink_to(target)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Some network file systems have no locks; the worst is that two programs fetch the same file.
        return True
    return True


def _is_prefix(path: Path, size: int) -> bool:
    """Whether a partial file is the beginning of the whole: nobody writes to it, and it has no holes."""
    try:
        status = path.stat()
    except OSError:
        return False
    quiet = time.time() - status.st_mtime > QUIET_SECONDS
    return quiet and 0 < status.st_size <= size and status.st_blocks * 512 >= status.st_size
