"""Where models lie on this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from quantchat import paths

PATIENCE = 2.0
"""Seconds. A network disk whose server is gone answers never, and keeps everybody waiting who asks it."""
_asking: dict[Path, threading.Thread] = {}
_beginning = threading.Lock()
"""Whoever finds a thread in `_asking` may wait for it: it runs."""


class Root(msgspec.Struct, frozen=True):
    """A folder to scan.

    Attributes:
        label: Where it comes from, in words to show.
        asked_for: The user named it, so its absence is worth a message.
    """

    path: Path
    label: str
    asked_for: bool = False


def hub_cache() -> Path:
    """Return the hub cache's folder, as huggingface_hub itself finds it (its `constants.py`)."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(variable):
            return _expand(folder)
    if home := os.environ.get("HF_HOME"):
        return _expand(home) / "hub"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expand(cache) / "huggingface" / "hub"


def default_roots(extra: Sequence[Path] = ()) -> list[Root]:
    """Return the roots of this machine that exist, or whose disk does not say.

    Args:
        extra: Folders of the settings and of `--models-dir`; scanned first, and kept when they do not exist.
    """
    asked = [Root(_expand(folder), "your folder", asked_for=True) for folder in extra]
    return asked + [root for root in usual_roots() if not answers(root.path) or root.path.is_dir()]


def usual_roots() -> list[Root]:
    """Return where programs of this kind keep models, there or not."""
    return [
        Root(paths.models_dir(), "made by quantchat"),
        Root(hub_cache(), "hub cache"),
        *(Root(_expand(folder), "LM Studio") for folder in ("~/.lmstudio/models", "~/.cache/lm-studio/models")),
        *(
            Root(_expand(folder), "text-generation-webui")
            for folder in ("~/text-generation-webui/user_data/models", "~/text-generation-webui/models")
        ),
    ]


def answers(folder: Path) -> bool:
    """Whether the disk says anything about a folder, within `PATIENCE`."""
    with _beginning:
        asking = _asking.get(folder)
        if asking is None:
            # A daemon: nothing can end it while the disk is silent, and nobody may have to wait for it at the end.
            asking = _asking[folder] = threading.Thread(target=os.path.exists, args=(folder,), daemon=True)
            asking.start()
    asking.join(PATIENCE)
    if asking.is_alive():
        return False
    _asking.pop(folder, None)
    return True


def _expand(folder: str | Path) -> Path:
    return Path(os.path.abspath(os.path.expandvars(os.path.expanduser(folder))))
