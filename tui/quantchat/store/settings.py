"""The user's settings: `config.toml`, written by hand and by the program, and never thrown away."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, MutableSequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from quantchat import paths
from quantchat.domain.backends import Interpreters
from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.servers import ServerName, ServerSpec
from quantchat.errors import ErrorReport, UsageError
from quantchat.store.atomic import translate_os_error, write_atomic
from quantchat.store.fields import Fault, convert_table, line_of, read_toml

if TYPE_CHECKING:
    from tomlkit import TOMLDocument


ClipboardSetting = Literal["auto", "osc52", "tmux", "file"]
LinkSetting = Literal["auto", "local", "ssh", "slow"]
DecodingSetting = Literal["auto", "eager", "generate"]
ParallelTurns = Annotated[int, msgspec.Meta(ge=1, le=16)]
Minutes = Annotated[int, msgspec.Meta(ge=0, le=7 * 24 * 60)]
Gibibytes = Annotated[float, msgspec.Meta(ge=0, le=16384)]
Placement = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(cuda:\d+(=\d+(\.\d+)?)?(, ?(?=c)|$))*$", examples=["cuda:0, cuda:1", "cuda:0=2, cuda:1=1"]
    ),
]
"""Devices in the order of the layers, with or without shares, such as `cuda:0=2, cuda:1=1`."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the user has chosen.

    Attributes:
        models_dirs: Further folders to look for models in.
        sampling: Sampling for all sessions; a session's own wins.
        presets: The user's own presets by name, each with some sampling settings.
        system_prompt: For new sessions.
        keys: Command id to keys, such as `{"stop": "ctrl+x"}`; a table may hold those of one part of the screen.
        kernel: A kernel name of the policy table; None lets quantchat choose.
        device: `cpu`, `cuda:0`, ...; None takes the first GPU, else the CPU.
        placement: How several GPUs share the layers; empty takes one if it is large enough, else all by free memory.
        decoding: `eager` leaves out CUDA graphs, `generate` takes transformers' own loop, without KV reuse.
        kv_cache_gib: What the KV caches of all sessions may hold on the device; None takes a share of what is free.
        kv_cache_host_gib: The same for caches that wait in host memory.
        idle_unload_minutes: A model that answered nothing for so long is unloaded; 0 never.
        parallel_turns: So many sessions may be answered at once; further prompts wait.
        automatic_titles: The loaded model names new sessions, while it has nothing else to do.
        reopen: Start with the session that was shown last, where it was read, as `--continue` does.
        allow_pickle: Also read weights from pickle files, which can run code.
        clipboard: Where copied text goes: `osc52` to the terminal, `tmux` into its buffer, `file` into a file; `auto`
            chooses by the terminal.
        link: How good the line to the terminal is: how often text is shown and in how many colours; `auto` looks for an
            SSH session.
        servers: OpenAI-compatible servers by name, whose models stand beside those of this machine.
        engine: Other Python interpreters for the engine processes.
    """

    theme: str = "quantchat-dark"
    models_dirs: list[str] = []
    sampling: SamplingOverrides = SamplingOverrides()
    presets: dict[str, SamplingOverrides] = {}
    system_prompt: str = ""
    keys: dict[str, str | dict[str, str]] = {}
    kernel: str | None = None
    device: str | None = None
    placement: Placement = ""
    decoding: DecodingSetting = "auto"
    kv_cache_gib: Gibibytes | None = None
    kv_cache_host_gib: Gibibytes | None = None
    idle_unload_minutes: Minutes = 0
    parallel_turns: ParallelTurns = 4
    automatic_titles: bool = True
    reopen: bool = False
    allow_pickle: bool = False
    clipboard: ClipboardSetting = "auto"
    link: LinkSetting = "auto"
    servers: dict[ServerName, ServerSpec] = {}
    engine: Interpreters = Interpreters()


def load_settings(path: Path | None = None) -> tuple[Settings, list[ErrorReport]]:
    """Read the settings (default: those of `paths`). Never raises.

    What is wrong is reported by line and key, and only that has its default value.
    """
    path = path or paths.config_file()
    try:
        table = read_toml(path)
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        return Settings(), []
    except OSError as error:
        return Settings(), [translate_os_error(error, path, reading=True).report]
    except ValueError as error:
        return Settings(), [_unparsable(path, error).report]
    good, faults = convert_table(table, Settings)
    return Settings(**good), [_fault_report(path, text, fault) for fault in faults]


def update_settings(path: Path | None = None, **changes: Any) -> Settings:
    """Change some settings in the file, keeping its comments and order, and return what it now says.

    None takes a setting out of the file. A table (`sampling`, `keys`) is replaced as a whole.

    Raises:
        UsageError: if a value is not allowed or the file does not parse; it is then untouched.
        StorageError: if the disk refuses.
    """
    import tomlkit

    path = path or paths.config_file()
    wanted = {key: msgspec.to_builtins(value) for key, value in changes.items()}
    _require_allowed({key: value for key, value in wanted.items() if value is not None})
    document = _read_document(path)
    for key, value in wanted.items():
        _put(document, key, value)
    write_atomic(path, tomlkit.dumps(document).encode())
    return load_settings(path)[0]


def update_entry(table: str, name: str, value: object, path: Path | None = None) -> Settings:
    """Write one entry of a table of settings, such as a server, and return what the file now says.

    Others in it stay as they are, also those that are wrong; None takes the entry out.

    Raises:
        UsageError: if the entry is not allowed or the file does not parse; it is then untouched.
        StorageError: if the disk refuses.
    """
    import tomlkit

    path = path or paths.config_file()
    wanted = msgspec.to_builtins(value)
    _require_allowed({table: {name: wanted}} if value is not None else {})
    document = _read_document(path)
    entries = document.setdefault(table, tomlkit.table(is_super_table=True))
    if not isinstance(entries, MutableMapping):
        raise UsageError("That setting cannot be changed", f"{path}: `{table}` is no table", "Correct that line")
    _put(entries, name, wanted)
    if not entries:
        del document[table]
    write_atomic(path, tomlkit.dumps(document).encode())
    return load_settings(path)[0]


def _require_allowed(changes: Mapping[str, Any]) -> None:
    faults = convert_table(changes, Settings)[1]
    if faults:
        raise UsageError("That setting is not allowed", "; ".join(f"`{key}`: {reason}" for key, reason in faults))


def _read_document(path: Path) -> TOMLDocument:
    # Only a change of settings needs the library that keeps comments; the first frame does not wait for it.
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return tomlkit.document()
    except OSError as error:
        raise translate_os_error(error, path, reading=True) from error
    except (TOMLKitError, ValueError) as error:
        raise _unparsable(path, error) from error


def _put(table: MutableMapping[str, Any], key: str, value: Any) -> None:
    present = table.get(key)
    if value is None:
        table.pop(key, None)
    elif isinstance(value, Mapping) and isinstance(present, MutableMapping):
        for gone in [name for name in present if name not in value]:
            del present[gone]
        for name, item in value.items():
            _put(present, name, item)
    elif isinstance(value, list) and isinstance(present, MutableSequence) and _put_items(present, value):
        return
    elif present is None or getattr(present, "unwrap", lambda: present)() != value:
        table[key] = value


def _put_items(present: MutableSequence[Any], value: list[Any]) -> bool:
    """Take out what is gone and append what is new, so that items keep their comments; say whether that was all."""
    for place in reversed(range(len(present))):
        if present[place] not in value:
            del present[place]
    present.extend(item for item in value if item not in present)
    return list(present) == value


def _unparsable(path: Path, error: Exception) -> UsageError:
    return UsageError(
        "The settings file does not parse",
        f"{path}: {error}. It was left as it is, and the defaults are used",
        "Correct that line and start again",
        code="settings-unreadable",
    )


def _fault_report(path: Path, text: str, fault: Fault) -> ErrorReport:
    line = line_of(text, fault.key)
    unknown = fault.reason.startswith("is not a known key")
    return ErrorReport(
        code="setting-unknown" if unknown else "setting-wrong",
        title="A setting is not known" if unknown else "A setting is wrong",
        detail=f"{path}{f', line {line}' if line else ''}: `{fault.key}` {fault.reason}",
        remedy=_consequence(fault, unknown=unknown),
    )


def _consequence(fault: Fault, *, unknown: bool) -> str:
    if unknown:
        return "It is ignored until you change it"
    if fault.key.startswith("servers."):
        return "The server is left out until you change it"
    return "Its default is used until you change it"
