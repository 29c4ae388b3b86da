"""What the screen remembers between two starts. Losing it costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from quantchat import paths
from quantchat.store.atomic import write_atomic

ModelsOrder = Literal["name", "size", "fit", "used"]
SessionsOrder = Literal["changed", "created", "title", "messages"]
MOST_USED = 500
MOST_PLACES = 200


class ReadingPlace(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a reader left a session: a message, and what share of its lines stood above the screen."""

    message: str
    share: float = 0.0


class UiState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The last choices on the screen.

    Attributes:
        last_session: Id of the session that was shown.
        last_model: Path of the model that was loaded.
        used_models: When models were loaded last, by path, in seconds since the epoch.
        models_order: By what the list of models is sorted.
        sessions_order: By what the list of sessions is sorted.
        places: Where sessions were left that were not read at their end, by id, the last one last.
    """

    last_session: str | None = None
    last_model: str | None = None
    sidebar_hidden: bool = False
    used_models: dict[str, float] = {}
    models_order: ModelsOrder = "name"
    sessions_order: SessionsOrder = "changed"
    places: dict[str, ReadingPlace] = {}

    def used_with(self, path: str, now: float) -> dict[str, float]:
        """Return when models were used if one is used now, without those that were used longest ago."""
        used = sorted((self.used_models | {path: now}).items(), key=lambda one: one[1])
        return dict(used[-MOST_USED:])

    def places_with(self, session_id: str, place: ReadingPlace | None) -> dict[str, ReadingPlace]:
        """Return where sessions were left if one is left now; None is its end."""
        others = {name: kept for name, kept in self.places.items() if name != session_id}
        return others if place is None else dict([*others.items(), (session_id, place)][-MOST_PLACES:])


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
