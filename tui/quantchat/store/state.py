"""What the screen remembers between two starts. Losing it costs nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quantchat import paths
from quantchat.store.atomic import write_atomic


class UiState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The last choices on the screen.

    Attributes:
        last_session: Id of the session that was shown.
        last_model: Path of the model that was loaded.
    """

    last_session: str | None = None
    last_model: str | None = None
    sidebar_hidden: bool = False


def load_state(path: Path | None = None) -> UiState:
    """Read the state (default: that of `paths`); whatever is wrong with it, start afresh."""
    try:
        return msgspec.json.decode((path or paths.state_file()).read_bytes(), type=UiState)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError):
        return UiState()


def save_state(state: UiState, path: Path | None = None) -> None:
    """Write the state.

    Raises:
        StorageError: if the disk refuses.
    """
    write_atomic(path or paths.state_file(), msgspec.json.encode(state))
