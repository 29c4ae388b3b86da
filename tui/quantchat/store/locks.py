"""One writer per session: advisory locks that say who holds them.

Where the file system has `flock`, the kernel holds the lock and a holder that died holds nothing. Elsewhere the lock is
the name of its holder in the file: a process of this machine is asked for, and one of another machine must give a sign
of life now and then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from datetime import datetime
from pathlib import Path

import msgspec

from quantchat import paths
from quantchat.domain.chat import utc_now
from quantchat.errors import SessionLocked
from quantchat.store.atomic import private_dir, process_lives, temporary_name, translate_os_error, write_atomic
from quantchat.store.sessions import check_id

UNSUPPORTED = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
ATTEMPTS = 5
PAUSE_SECONDS = 0.01
SIGN_SECONDS = 60.0
"""How often the holder of a lock without `flock` touches its file."""
QUIET_SECONDS = 900.0
"""A holder on another machine that gave no sign for so long is gone."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes a session.

    Attributes:
        boot: Identifies the running kernel, as process ids start over with each boot; empty if unknown.
    """

    host: str
    pid: int
    since: datetime
    boot: str = ""

    @classmethod
    def me(cls) -> Holder:
        """This process, from now on."""
        return cls(host=socket.gethostname(), pid=os.getpid(), since=utc_now(), boot=_boot())

    def lives(self) -> bool:
        """Whether the process may still run; one on another machine is believed to."""
        if self.host != socket.gethostname():
            return True
        return self.boot == _boot() and process_lives(self.pid)


class SessionLock:
    """The right to write one session, until `release` or the end of the process."""

    def __init__(self, path: Path, holder: Holder, descriptor: int | None) -> None:
        self.path = path
        self.holder = holder
        self._descriptor = descriptor
        self._held = True

    def is_held(self) -> bool:
        """Whether the lock is still the one that was taken: its file may have been deleted, or taken over by name."""
        try:
            if self._descriptor is not None:
                return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
            return msgspec.json.decode(self.path.read_bytes(), type=Holder) == self.holder
        except (FileNotFoundError, msgspec.DecodeError):
            return False
        except OSError:
            # A disk that does not answer tells nothing about other writers.
            return True

    def give_sign(self) -> None:
        """Tell other machines that the holder lives, where the kernel does not."""
        if self._held and self._descriptor is None:
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        """Give the session back; a second call does nothing."""
        if not self._held:
            return
        self._held = False
        # Removed while still held: whoever waited for it then finds the name gone or new, and starts over.
        with contextlib.suppress(OSError):
            if self.is_held():
                self.path.unlink()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> SessionLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class SessionLocks:
    """The lock files of a sessions folder."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """The folder; by default that of `paths`, asked anew each time."""
        return self._root or paths.sessions_dir()

    def path(self, session_id: str) -> Path:
        """Return the lock file of a session."""
        return self.root / f"{check_id(session_id)}.lock"

    def acquire(self, session_id: str) -> SessionLock:
        """Take a session for writing; a lock whose process is gone is taken over.

        Raises:
            SessionLocked: if another process, or this one, holds it.
            StorageError: if the lock file cannot be made.
        """
        path = self.path(session_id)
        private_dir(self.root)
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_SECONDS)
            try:
                lock = _try_lock(path)
            except OSError as error:
                raise translate_os_error(error, path) from error
            if lock is not None:
                return lock
        raise _locked(path)

    def is_locked(self, session_id: str) -> bool:
        """Whether a live process holds a session; nothing is changed."""
        path = self.path(session_id)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return _held_by_name(path)
        finally:
            os.close(descriptor)
        return False

    def holder(self, session_id: str) -> Holder | None:
        """Say who holds a session, where that is known."""
        return read_holder(self.path(session_id)) if self.is_locked(session_id) else None

    def sign_age(self, session_id: str) -> float | None:
        """Seconds since the holder on another machine gave a sign; None if somebody else, or nobody, holds it."""
        path = self.path(session_id)
        holder = read_holder(path)
        if holder is None or holder.host == socket.gethostname() or not self.is_locked(session_id):
            return None
        return _age(path)

    def break_lock(self, session_id: str) -> None:
        """Take a lock away from a holder on another machine; the user says that it is gone.

        Raises:
            SessionLocked: if the kernel knows that it is held.
            StorageError: if the disk refuses.
        """
        path = self.path(session_id)
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return
        except BlockingIOError as error:
            raise _locked(path) from error
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise translate_os_error(error, path) from error
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def read_holder(path: Path) -> Holder | None:
    """Read a lock file; None if it is gone, empty or not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError):
        return None


def _try_lock(path: Path) -> SessionLock | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        if error.errno not in UNSUPPORTED:
            raise
        return _try_name(path)
    if not _is_same_file(descriptor, path):
        os.close(descriptor)
        return None
    holder = Holder.me()
    # The kernel holds the lock; on a full disk only the name of the holder is missing.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(holder), 0)
    return SessionLock(path, holder, descriptor)


def _try_name(path: Path) -> SessionLock | None:
    """Lock by the file's contents, where the file system has no flock.

    Looking and writing are two steps here; the second look tells the loser of a race.
    """
    if _held_by_name(path):
        return None
    holder = Holder.me()
    write_atomic(path, msgspec.json.encode(holder))
    return SessionLock(path, holder, None) if read_holder(path) == holder else None


def _held_by_name(path: Path) -> bool:
    holder = read_holder(path)
    if holder is None or not holder.lives():
        return False
    return holder.host == socket.gethostname() or _age(path) < QUIET_SECONDS


def _age(path: Path) -> float:
    """How long ago a file was touched, by the clock of the disk: that of another machine may be hours away."""
    probe = path.with_name(temporary_name(path.name))
    try:
        touched = path.stat().st_mtime
        probe.touch(0o600)
        try:
            return probe.stat().st_mtime - touched
        finally:
            probe.unlink()
    except OSError:
        return 0.0


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _locked(path: Path) -> SessionLocked:
    holder = read_holder(path)
    who = (
        f"Process {holder.pid} on {holder.host} has been writing it since {holder.since.astimezone():%Y-%m-%d %H:%M:%S}"
        if holder
        else "Another process is writing it"
    )
    # A holder on this machine is known to live: to delete its file would let two programs write.
    here = holder is not None and holder.host == socket.gethostname()
    gone = "" if here else f"; if that machine is gone for good, delete {path}"
    return SessionLocked("This session is open elsewhere", who, f"Read it here, or close it there{gone}")


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
