"""What several commands share: options, words on an ordinary terminal, and the models of this machine."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantchat.domain.text import clean
from quantchat.errors import Cancelled, ErrorReport, ModelError, QuantchatError, StorageError

if TYPE_CHECKING:
    from quantchat.catalog.roots import Root
    from quantchat.catalog.scan import ScanResult
    from quantchat.domain.models import ModelInfo

FOLDER = click.Path(path_type=Path, file_okay=False)
WORDS_OR_COMMAND = "[WORD]... | COMMAND [ARGS]..."

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Program(click.Group):
    """All commands. Ctrl+C where none of them has a word for it ends in silence, with the exit status of the others."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that is meant."""
        try:
            return super().invoke(context)
        except (KeyboardInterrupt, click.Abort):
            context.exit(Cancelled.exit_code)


class ListingGroup(click.Group):
    """A group whose arguments are words for its `list` where they name no command."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take what is no command as the words of a list."""
        if args and args[0] not in self.commands:
            return "list", self.commands["list"], args
        return super().resolve_command(context, args)


def say(text: str, *, err: bool = False) -> None:
    """Print a line that may hold file names; nothing in it commands the terminal."""
    click.echo(clean(text), err=err)


class explained:  # noqa: N801 - reads as a word in `with explained():`
    """Turns quantchat's errors, Ctrl+C and a full disk into a message on stderr and their exit code."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, QuantchatError):
            say(f"quantchat: {error}", err=True)
            sys.exit(error.exit_code)
        if isinstance(error, KeyboardInterrupt):
            say("quantchat: Stopped.", err=True)
            sys.exit(Cancelled.exit_code)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            # Of files that are kept quantchat's errors tell: these are the words that go to one.
            say(f"quantchat: The words could not be written. {error.strerror}.", err=True)
            sys.exit(StorageError.exit_code)


def scan_roots(context: click.Context, models_dirs: Sequence[Path]) -> tuple[list[Root], list[ErrorReport]]:
    """Return the folders to search, and what is wrong with the settings."""
    from quantchat.catalog.roots import default_roots
    from quantchat.store.settings import load_settings

    settings, problems = load_settings()
    own = [Path(folder) for folder in settings.models_dirs if folder.strip()]
    return default_roots([*_named_before(context), *models_dirs, *own]), list(problems)


def _named_before(context: click.Context) -> list[Path]:
    """`quantchat --models-dir D models show X` means the same as `quantchat models show X --models-dir D`."""
    folders: list[Path] = []
    parent = context.parent
    while parent is not None:
        folders = [*parent.params.get("models_dirs", ()), *folders]
        parent = parent.parent
    return folders


def find_models(context: click.Context, models_dirs: Sequence[Path]) -> tuple[ScanResult, list[ErrorReport]]:
    """Find the models of this machine and of the servers of the settings; also what is wrong with the settings.

    Servers that give no models are among the problems of the scan.
    """
    import msgspec

    found, problems = _find_here(context, models_dirs)
    models, silent = served_models()
    if not (models or silent):
        return found, problems
    return msgspec.structs.replace(
        found, models=(*found.models, *models), problems=(*found.problems, *silent)
    ), problems


def served_models() -> tuple[list[ModelInfo], list[ErrorReport]]:
    """Ask the servers of the settings for their models; also why some give none."""
    from quantchat.store.settings import load_settings

    servers = load_settings()[0].servers
    if not servers:
        return [], []
    import asyncio

    import msgspec

    from quantchat.services.serverlist import Servers

    asked = Servers(lambda _fact: None, servers)
    asyncio.run(asked.ask())
    silent = [
        msgspec.structs.replace(server.error, title=f"{server.name}: {server.error.title}")
        for server in asked.known
        if server.error is not None
    ]
    return list(asked.models), silent


def models_named(context: click.Context, models_dirs: Sequence[Path], names: Iterable[str]) -> list[ModelInfo]:
    """Find the models that a person means; `server:NAME/ID` is taken at its word, and its server not asked.

    Raises:
        ModelError: if none or several fit a name.
    """
    from functools import cache

    from quantchat.services.servers import assumed_model
    from quantchat.store.settings import load_settings

    find = cache(lambda: find_models(context, models_dirs)[0])
    servers = load_settings()[0].servers
    return [assumed_model(name, servers) or _named_among(find(), name) for name in names]


def _named_among(found: ScanResult, name: str) -> ModelInfo:
    """Find a model by its name; where there is none, servers that are silent may be why."""
    import msgspec

    from quantchat.catalog.scan import find_model

    try:
        return find_model(name, found.models)
    except ModelError as error:
        silent = [problem for problem in found.problems if problem.code.startswith("server")]
        said = " ".join((error.report.detail, *(problem.sentence() for problem in silent)))
        raise ModelError.from_report(msgspec.structs.replace(error.report, detail=said)) from None


def _find_here(context: click.Context, models_dirs: Sequence[Path]) -> tuple[ScanResult, list[ErrorReport]]:
    from quantchat.catalog.index import open_index
    from quantchat.catalog.readers import Readers
    from quantchat.catalog.scan import scan

    roots, problems = scan_roots(context, models_dirs)
    with Readers() as read:
        return scan(roots, index=open_index(), read=read, expect=read.expect), problems
