"""Whether this user may read and write what quantchat keeps, and whether others may."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from quantchat import paths
from quantchat.catalog.roots import hub_cache
from quantchat.services.doctor.caches import VARIABLE, cache_folder
from quantchat.services.doctor.disk import existing
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.mending import own

LOOKED_AT = 5000
"""Session files whose owner is asked for."""


def look_at_folders(machine: Machine) -> Iterator[Finding]:
    """Try the folders of quantchat, and those that it shares with other programs."""
    own_folders = {
        "sessions": paths.sessions_dir(),
        "models": paths.models_dir(),
        "config": paths.config_file().parent,
        "cache": paths.cache_dir(),
        "logs": paths.logs_dir(),
    }
    findings = [
        *(_written(name, folder) for name, folder in own_folders.items()),
        _written("hub", hub_cache(), "HF_HOME=$HOME/huggingface"),
        _written("kernels", cache_folder(machine), f"{VARIABLE}=$HOME/quantchat-kernels"),
        _private(paths.data_dir()),
        _foreign_files(paths.sessions_dir()),
        *(_read(folder) for folder in machine.models_dirs),
        *look_at_tmp(machine),
    ]
    wrong = [finding for finding in findings if finding is not None]
    yield from wrong
    if not wrong:
        home = os.environ.get("QUANTCHAT_HOME") or paths.data_dir()
        yield Finding(id="folders", title="Permissions", found=f"all folders can be written ({home})")


def look_at_tmp(machine: Machine) -> Iterator[Finding]:
    """Check the folder of temporary files: the engine works in one of its own there, compilers write to it."""
    folder = machine.scratch
    mend = "mkdir -p $HOME/.cache/tmp && export TMPDIR=$HOME/.cache/tmp"
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        words = f"{folder} cannot be written: the engine cannot start."
        yield Finding(id="tmp", title="Temporary files", level="red", found=words, fix=mend)
    elif os.statvfs(folder).f_flag & os.ST_NOEXEC:
        words = f"{folder} is mounted noexec: what PyTorch and Triton compile there cannot be loaded."
        yield Finding(id="tmp.noexec", title="Temporary files", level="yellow", found=words, fix=mend)


def _written(name: str, folder: Path, elsewhere: str = "QUANTCHAT_HOME=$HOME/quantchat") -> Finding | None:
    place = existing(folder)
    if os.access(place, os.W_OK | os.X_OK):
        return None
    missing = "" if place == folder else f" and {folder} is not there"
    return Finding(
        id=f"folder.{name}",
        title=f"Folder: {name}",
        level="red",
        found=f"{place} cannot be written{_why(place)}{missing}.",
        fix=_mend(place) or f"export {elsewhere}",
    )


def _why(place: Path) -> str:
    try:
        if os.statvfs(place).f_flag & os.ST_RDONLY:
            return ", its disk is mounted read-only"
        owner = place.stat().st_uid
    except OSError as error:
        return f" ({error.strerror})"
    return "" if owner == os.geteuid() else f", it belongs to user {owner}"


def _mend(place: Path) -> str:
    quoted = shlex.quote(str(place))
    try:
        if os.statvfs(place).f_flag & os.ST_RDONLY:
            return f"sudo mount -o remount,rw $(stat -c %m {quoted})"
        mine = place.stat().st_uid == os.geteuid()
    except OSError:
        mine = False
    if mine:
        return f"chmod u+rwx {quoted}"
    # A home folder is given back; what belongs to the system stays the system's.
    if place.is_relative_to(Path.home()):
        return own(str(place))
    return ""


def _read(folder: Path) -> Finding | None:
    if not os.path.exists(folder):
        words = f"{folder} is not there, though it is named as a folder of models."
        return Finding(id="folder.models-dir", title="Folder of models", level="yellow", found=words)
    if os.access(folder, os.R_OK | os.X_OK):
        return None
    words = f"{folder} cannot be read{_why(folder)}."
    return Finding(id="folder.models-dir", title="Folder of models", level="red", found=words, fix=_mend(folder))


def _private(folder: Path) -> Finding | None:
    """Sessions are nobody else's business; a folder that is shared with intent is sticky."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return None
    if not mode & 0o077 or mode & stat.S_ISVTX:
        return None
    words = f"{folder} can be read by other users of this machine."
    fix = f"chmod 700 {shlex.quote(str(folder))}"
    return Finding(id="folder.private", title="Folder: data", level="yellow", found=words, fix=fix)


def _foreign_files(folder: Path) -> Finding | None:
    """Files of another user, such as root's after a start with sudo, cannot be replaced or read."""
    foreign = 0
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= LOOKED_AT:
                    break
                foreign += entry.stat(follow_symlinks=False).st_uid != os.geteuid()
    except OSError:
        return None
    if not foreign or os.geteuid() == 0:
        return None
    words = f"{foreign} files in {folder} belong to another user."
    return Finding(id="folder.owner", title="Sessions", level="red", found=words, fix=own(str(folder)))
