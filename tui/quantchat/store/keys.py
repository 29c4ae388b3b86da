"""API keys of servers: in a file of their own that nobody else can read, never in the settings."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from quantchat import paths
from quantchat.errors import UsageError
from quantchat.store.atomic import translate_os_error, write_atomic
from quantchat.store.fields import read_toml

MOST_LETTERS = 4096
_KEY = re.compile(r"[!-~]+")
_HEAD = "# API keys of quantchat's servers. `quantchat servers` writes them; the settings never hold them.\n\n"


def load_keys(path: Path | None = None) -> dict[str, str]:
    """Read the keys by the names of their servers (default: those of `paths`).

    Raises:
        UsageError: if others can read the file, or it does not parse.
        StorageError: if the disk refuses.
    """
    path = path or paths.keys_file()
    try:
        _require_private(path)
        table = read_toml(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise translate_os_error(error, path, reading=True) from error
    except ValueError as error:
        raise _unparsable(path, str(error)) from error
    wrong = [name for name, key in table.items() if not isinstance(key, str)]
    if wrong:
        raise _unparsable(path, f"`{wrong[0]}` is no text in quotes")
    return table


def keep_key(server: str, key: str, path: Path | None = None) -> None:
    """Write a server's key in place of the one that is there; an empty one takes it out.

    Raises:
        UsageError: if it can be no key, others can read the file, or it does not parse; it is then untouched.
        StorageError: if the disk refuses.
    """
    import tomlkit

    path = path or paths.keys_file()
    known = load_keys(path)
    if known.get(server, "") == key:
        return
    document = tomlkit.parse(path.read_text("utf-8-sig") if path.exists() else _HEAD)
    if key:
        document[server] = checked_key(key)
    else:
        del document[server]
    write_atomic(path, tomlkit.dumps(document).encode())


def checked_key(text: str) -> str:
    """Return a key as it was typed or pasted, without white space around it.

    Raises:
        UsageError: if it can be no key; the text is not repeated.
    """
    key = text.strip()
    if len(key) > MOST_LETTERS or not _KEY.fullmatch(key):
        raise UsageError("That is no API key", "Keys are one word of letters, digits and signs", "Copy it again")
    return key


def _require_private(path: Path) -> None:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        raise UsageError(
            "Others can read your API keys",
            f"{path} has mode {mode:04o}, so no key is taken from it",
            f"chmod 600 {path}",
            code="keys-readable",
        )


def _unparsable(path: Path, why: str) -> UsageError:
    return UsageError(
        "The file of API keys does not parse", f"{path}: {why}", 'Its lines are: name = "key"', code="keys-unreadable"
    )
