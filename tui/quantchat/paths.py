"""Where quantchat keeps things. `QUANTCHAT_HOME` moves all of it under one folder."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

APP = "quantchat"
PACKAGE = Path(__file__).resolve().parent


def _base(kind: str) -> Path:
    home = os.environ.get("QUANTCHAT_HOME")
    if home:
        return Path(home).expanduser().absolute() / kind
    return {
        "data": platformdirs.user_data_path,
        "config": platformdirs.user_config_path,
        "cache": platformdirs.user_cache_path,
        "state": platformdirs.user_state_path,
    }[kind](APP)


def data_dir() -> Path:
    """Sessions and the models that quantchat itself made."""
    return _base("data")


def sessions_dir() -> Path:
    """One JSON file per session."""
    return data_dir() / "sessions"


def quarantine_dir() -> Path:
    """Session files that did not parse."""
    return data_dir() / "quarantine"


def models_dir() -> Path:
    """Models that quantchat made, such as the demo's."""
    return data_dir() / "models"


def config_file() -> Path:
    """The user's settings."""
    return _base("config") / "config.toml"


def presets_dir() -> Path:
    """The user's own presets, a TOML file each, beside those of `config_file`."""
    return _base("config") / "presets"


def prompts_dir() -> Path:
    """The user's prompt templates, a text file each."""
    return _base("config") / "prompts"


def keys_file() -> Path:
    """API keys of servers, by their names; readable by the user alone."""
    return _base("config") / "keys.toml"


def calibration_file() -> Path:
    """Conversations that quantizers read if no other text is chosen; written for quantchat (MIT)."""
    return PACKAGE / "quantize" / "data" / "calibration.jsonl"


def held_out_file() -> Path:
    """Text on which models are measured; in none of the calibration samples, and written for quantchat (MIT)."""
    return PACKAGE / "quantize" / "data" / "heldout.txt"


def quality_dir() -> Path:
    """What was measured of models beside which nothing can or may be written."""
    return data_dir() / "quality"


def trash_dir() -> Path:
    """What was deleted or replaced."""
    return data_dir() / "trash"


def user_themes_dir() -> Path:
    """Themes of the user, which win over shipped ones of the same name."""
    return _base("config") / "themes"


def cache_dir() -> Path:
    """What can be deleted at any time."""
    return _base("cache")


def logs_dir() -> Path:
    """Logs of the screen and of the engine process."""
    return _base("state") / "logs"


def state_file() -> Path:
    """What the screen remembers between starts: last session, last model."""
    return _base("state") / "state.json"


def clipboard_file() -> Path:
    """The last text that was copied, where the terminal may not have taken it."""
    return _base("state") / "clipboard.txt"


def history_file() -> Path:
    """What was asked, in all sessions: one line of JSON each, the last one newest."""
    return _base("state") / "history.jsonl"


def shipped_themes_dir() -> Path:
    """The themes that come with quantchat: beside the package when installed, else in the checkout."""
    installed = PACKAGE / "themes"
    if installed.is_dir():
        return installed
    return PACKAGE.parent.parent / "themes"
