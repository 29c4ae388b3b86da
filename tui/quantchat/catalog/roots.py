"""Where models lie on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from quantchat import paths


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
    """Return the roots of this machine that exist.

    Args:
        extra: Folders of the settings and of `--models-dir`; scanned first, and kept when they do not exist.
    """
    asked = [Root(_expand(folder), "your folder", asked_for=True) for folder in extra]
    return asked + [root for root in usual_roots() if root.path.is_dir()]


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


def _expand(folder: str | Path) -> Path:
    return Path(os.path.abspath(os.path.expandvars(os.path.expanduser(folder))))
