"""`quantchat models`: what is on this machine, everything about one model, and its removal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from quantchat.cli.common import FOLDER, explained, find_models, say

if TYPE_CHECKING:
    from quantchat.domain.models import ModelInfo

Order = Literal["name", "size", "fit", "modified"]

models_dir_option = click.option(
    "--models-dir", "models_dirs", type=FOLDER, multiple=True, help="Scan this folder too; may be repeated."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
sort_option = click.option("--sort", "order", type=click.Choice(get_args(Order)), help="In which order.")


class Models(click.Group):
    """A group whose arguments are words to filter by where they name no command."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take what is no command as the words of a list."""
        if args and args[0] not in self.commands:
            return "list", list_command, args
        return super().resolve_command(context, args)


@click.group("models", cls=Models, invoke_without_command=True, subcommand_metavar="[WORD]... | COMMAND [ARGS]...")
@models_dir_option
@json_option
@sort_option
@click.pass_context
def models_command(context: click.Context, models_dirs: tuple[Path, ...], as_json: bool, order: Order | None) -> None:
    """List the models on this machine; WORDs keep those that hold them all."""
    if context.invoked_subcommand is None:
        _list(context, (), models_dirs, as_json, order)


@click.command("list", hidden=True)
@click.argument("words", nargs=-1, metavar="[WORD]...")
@models_dir_option
@json_option
@sort_option
@click.pass_context
def list_command(
    context: click.Context, words: tuple[str, ...], models_dirs: tuple[Path, ...], as_json: bool, order: Order | None
) -> None:
    """List the models on this machine; WORDs keep those that hold them all."""
    assert context.parent is not None
    above = context.parent.params
    _list(context, words, models_dirs, as_json or above["as_json"], order or above["order"])


def _list(
    context: click.Context, words: tuple[str, ...], models_dirs: tuple[Path, ...], as_json: bool, order: Order | None
) -> None:
    from quantchat.cli.modeltable import as_objects, lines, ordered, wanted

    with explained():
        scanned, problems = find_models(context, models_dirs)
    found = ordered(wanted(scanned.models, words), order or "name")
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(as_objects(found)))
    else:
        _print(lines(found))
    for problem in (*problems, *scanned.problems):
        say(problem.sentence(), err=True)
    if not found:
        _say_nothing_found(scanned.models, words)


def _print(lines: list[str]) -> None:
    for line in lines:
        say(line)


def _say_nothing_found(models: tuple[ModelInfo, ...], words: tuple[str, ...]) -> None:
    if models and words:
        say(f"None of {len(models)} models holds {' '.join(words)}.", err=True)
    else:
        say("No models found. `quantchat demo` makes a small one.", err=True)


models_command.add_command(list_command)
