"""What several commands share: options, words on an ordinary terminal, and the models of this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantchat.domain.text import clean
from quantchat.errors import Cancelled, ErrorReport, QuantchatError

if TYPE_CHECKING:
    from quantchat.catalog.roots import Root
    from quantchat.catalog.scan import ScanResult

FOLDER = click.Path(path_type=Path, file_okay=False)
WORDS_OR_COMMAND = "[WORD]... | COMMAND [ARGS]..."

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


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
    """Turns quantchat's errors, and Ctrl+C, into a message on stderr and their exit code."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, QuantchatError):
            say(f"quantchat: {error}", err=True)
            sys.exit(error.exit_code)
        if isinstance(error, KeyboardInterrupt):
            say("quantchat: Stopped.", err=True)
            sys.exit(Cancelled.exit_code)


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
    """Find the models of this machine; also what is wrong with the settings."""
    from quantchat.catalog.index import open_index
    from quantchat.catalog.readers import Readers
    from quantchat.catalog.scan import scan

    roots, problems = scan_roots(context, models_dirs)
    with Readers() as read:
        return scan(roots, index=open_index(), read=read, expect=read.expect), problems
