from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from quantchat.domain.chat import new_id, utc_now
from quantchat.errors import SessionLocked, StorageError
from quantchat.store import locks as module
from quantchat.store.locks import Holder, SessionLocks, read_holder

HOLD = """
import sys
from pathlib import Path
from quantchat.store.locks import SessionLocks
lock = SessionLocks(Path(sys.argv[1])).acquire(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(root: Path, session_id: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), session_id], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", refuse)


def test_one_writer(locks: SessionLocks) -> None:
    session_id = new_id()
    assert not locks.is_locked(session_id)
    lock = locks.acquire(session_id)
    assert locks.is_locked(session_id)
    with pytest.raises(SessionLocked):
        locks.acquire(session_id)
    lock.release()
    lock.release()
    assert not locks.is_locked(session_id)
    assert os.listdir(locks.root) == []
    with locks.acquire(session_id) as again:
        assert again.path.stat().st_mode & 0o777 == 0o600


def test_another_process_is_named(locks: SessionLocks) -> None:
    session_id = new_id()
    with another_process(locks.root, session_id) as child:
        assert locks.is_locked(session_id)
        holder = locks.holder(session_id)
        assert holder is not None
        assert (holder.host, holder.pid) == (socket.gethostname(), child.pid)
        with pytest.raises(SessionLocked) as caught:
            locks.acquire(session_id)
        assert f"Process {child.pid} on {socket.gethostname()}" in str(caught.value)
        assert f"{holder.since.astimezone():%Y-%m-%d %H:%M:%S}" in str(caught.value)
        assert locks.path(session_id).exists()


def test_the_lock_of_a_killed_process_is_taken_over(locks: SessionLocks) -> None:
    session_id = new_id()
    with another_process(locks.root, session_id) as child:
        child.kill()
        child.wait()
        assert locks.path(session_id).exists()
        assert not locks.is_locked(session_id)
        assert locks.holder(session_id) is None
        with locks.acquire(session_id) as lock:
            assert lock.holder.pid == os.getpid()
            assert read_holder(lock.path) == lock.holder


def test_a_name_removed_between_open_and_flock_is_no_lock(locks: SessionLocks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The former holder removes the file while the next one waits: two files of one name would be two writers."""
    session_id = new_id()
    real = module.fcntl.flock
    removed = []

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        if not removed:
            removed.append(locks.path(session_id).unlink())

    monkeypatch.setattr(module.fcntl, "flock", flock)
    with locks.acquire(session_id):
        assert locks.is_locked(session_id)
        assert removed


def test_a_broken_lock_file_still_says_something(locks: SessionLocks) -> None:
    session_id = new_id()
    with locks.acquire(session_id) as lock:
        lock.path.write_bytes(b"")
        with pytest.raises(SessionLocked, match="Another process is writing it"):
            locks.acquire(session_id)


def test_a_lock_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        SessionLocks(tmp_path / "file" / "sessions").acquire(new_id())


@pytest.mark.usefixtures("without_flock")
class TestWithoutFlock:
    def test_one_writer(self, locks: SessionLocks) -> None:
        session_id = new_id()
        lock = locks.acquire(session_id)
        assert locks.is_locked(session_id)
        with pytest.raises(SessionLocked, match=str(os.getpid())):
            locks.acquire(session_id)
        lock.release()
        assert not locks.is_locked(session_id)
        locks.acquire(session_id).release()

    @pytest.mark.parametrize("stale", ["dead process", "before the last boot"])
    def test_a_stale_lock_is_taken_over(self, locks: SessionLocks, stale: str) -> None:
        child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        session_id, me = new_id(), Holder.me()
        if stale == "dead process":
            holder = msgspec.structs.replace(me, pid=int(child.stdout))
        else:
            holder = msgspec.structs.replace(me, boot="another")
        locks.root.mkdir(parents=True)
        locks.path(session_id).write_bytes(msgspec.json.encode(holder))
        assert not locks.is_locked(session_id)
        with locks.acquire(session_id) as lock:
            assert read_holder(lock.path) == lock.holder

    def test_another_machine_is_believed(self, locks: SessionLocks) -> None:
        session_id = new_id()
        locks.root.mkdir(parents=True)
        holder = Holder(host="gpu-box-7", pid=1, since=utc_now())
        locks.path(session_id).write_bytes(msgspec.json.encode(holder))
        assert locks.is_locked(session_id)
        with pytest.raises(SessionLocked, match="gpu-box-7"):
            locks.acquire(session_id)

    def test_a_machine_that_gave_no_sign_for_long_is_gone(self, locks: SessionLocks) -> None:
        session_id = new_id()
        locks.root.mkdir(parents=True)
        path = locks.path(session_id)
        path.write_bytes(msgspec.json.encode(Holder(host="gpu-box-7", pid=1, since=utc_now())))
        # By the clock of the disk, not by ours.
        long_ago = path.stat().st_mtime - module.QUIET_SECONDS - 1
        os.utime(path, (long_ago, long_ago))
        assert not locks.is_locked(session_id)
        with locks.acquire(session_id) as lock:
            assert read_holder(lock.path) == lock.holder
            assert os.listdir(locks.root) == [path.name], "the probe is gone"

    def test_signs_of_life_keep_a_lock(self, locks: SessionLocks) -> None:
        lock = locks.acquire(new_id())
        os.utime(lock.path, (0, 0))
        lock.give_sign()
        assert lock.path.stat().st_mtime > 0
        lock.release()
        lock.give_sign()
        assert not lock.path.exists()

    def test_a_lock_that_was_taken_away_is_noticed_and_left_to_its_new_holder(self, locks: SessionLocks) -> None:
        session_id = new_id()
        lock = locks.acquire(session_id)
        assert lock.is_held()
        other = msgspec.json.encode(Holder(host="gpu-box-7", pid=1, since=utc_now()))
        lock.path.write_bytes(other)
        assert not lock.is_held()
        lock.release()
        assert locks.path(session_id).read_bytes() == other

    def test_the_user_breaks_the_lock_of_another_machine(self, locks: SessionLocks) -> None:
        session_id = new_id()
        assert locks.sign_age(session_id) is None
        locks.root.mkdir(parents=True)
        path = locks.path(session_id)
        path.write_bytes(msgspec.json.encode(Holder(host="gpu-box-7", pid=1, since=utc_now())))
        os.utime(path, (path.stat().st_mtime - 100, path.stat().st_mtime - 100))
        age = locks.sign_age(session_id)
        assert age is not None
        assert 100 <= age < 130
        locks.break_lock(session_id)
        locks.break_lock(session_id)
        locks.acquire(session_id).release()


def test_a_lock_that_the_kernel_holds_cannot_be_broken(locks: SessionLocks) -> None:
    session_id = new_id()
    with another_process(locks.root, session_id) as child:
        assert locks.sign_age(session_id) is None, "a process of this machine needs no sign"
        with pytest.raises(SessionLocked, match=str(child.pid)):
            locks.break_lock(session_id)
        assert locks.is_locked(session_id)


def test_a_deleted_lock_file_is_noticed_and_its_successor_left_alone(locks: SessionLocks) -> None:
    session_id = new_id()
    first = locks.acquire(session_id)
    assert first.is_held()
    first.path.unlink()
    assert not first.is_held()
    second = locks.acquire(session_id)
    first.release()
    assert second.is_held()
    second.release()
    assert os.listdir(locks.root) == []
