"""`quantchat models`: what is on this machine, everything about one model, and its removal."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from quantchat.cli.common import (
    FOLDER,
    WORDS_OR_COMMAND,
    ListingGroup,
    explained,
    find_models,
    json_option,
    models_named,
    say,
    scan_roots,
)
from quantchat.domain.text import clean
from quantchat.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from quantchat.domain.models import ModelInfo
    from quantchat.services.removal import Removal

SHOWN_PATHS = 20
Order = Literal["name", "size", "fit", "modified"]

models_dir_option = click.option(
    "--models-dir", "models_dirs", type=FOLDER, multiple=True, help="Scan this folder too; may be repeated."
)
sort_option = click.option("--sort", "order", type=click.Choice(get_args(Order)), help="In which order.")


@click.group("models", cls=ListingGroup, invoke_without_command=True, subcommand_metavar=WORDS_OR_COMMAND)
@models_dir_option
@json_option
@sort_option
@click.pass_context
def models_command(context: click.Context, models_dirs: tuple[Path, ...], as_json: bool, order: Order | None) -> None:
    """List the models on this machine and on servers; WORDs keep those that hold them all."""
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
    """List the models on this machine and on servers; WORDs keep those that hold them all."""
    assert context.parent is not None
    above = context.parent.params
    _list(context, words, models_dirs, as_json or above["as_json"], order or above["order"])


def _list(
    context: click.Context, words: tuple[str, ...], models_dirs: tuple[Path, ...], as_json: bool, order: Order | None
) -> None:
    from quantchat.cli.modeltable import as_objects, json_text, lines, ordered, wanted

    with explained():
        scanned, problems = find_models(context, models_dirs)
    found = ordered(wanted(scanned.models, words), order or "name")
    if as_json:
        click.echo(json_text(as_objects(found)))
    else:
        _print(lines(found))
    for problem in (*problems, *scanned.problems):
        say(problem.sentence(), err=True)
    if not found:
        _say_nothing_found(scanned.models, words)


def _print(lines: list[str]) -> None:
    for line in lines:
        say(clean(line, newlines=False))


def _say_nothing_found(models: tuple[ModelInfo, ...], words: tuple[str, ...]) -> None:
    if models and words:
        say(f"None of {len(models)} models holds {' '.join(words)}.", err=True)
    else:
        say("No models found. `quantchat demo` makes a small one.", err=True)


@click.command("show")
@click.argument("name")
@models_dir_option
@json_option
@click.pass_context
def show_command(context: click.Context, name: str, models_dirs: tuple[Path, ...], as_json: bool) -> None:
    """Show everything that is known about a model: what is wrong, memory, settings, chat template, how to load it.

    NAME is a path, a name from `quantchat models`, or a part of one.
    """
    from quantchat.cli.modelcard import as_json as card_as_json
    from quantchat.cli.modelcard import card_of, printed

    with explained():
        known = card_of(*models_named(context, models_dirs, [name]))
    if as_json:
        click.echo(card_as_json(known))
    else:
        click.echo(printed(known, styled=sys.stdout.isatty()))


@click.command("rm")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@models_dir_option
@click.pass_context
def remove_command(context: click.Context, name: str, yes: bool, models_dirs: tuple[Path, ...]) -> None:
    """Delete a model from the disk, after showing what goes; of a hub cache only what no other snapshot needs.

    NAME is a path, a name from `quantchat models`, or a part of one; with --yes no part.
    """
    from quantchat.catalog.scan import find_model
    from quantchat.services.removal import plan_removal, remove, require_free

    with explained():
        scanned, _ = find_models(context, models_dirs)
        found = find_model(name, scanned.models)
        model = _as_named(found, name)
        if yes:
            _require_whole_name(model, name)
        models = [model if one is found else one for one in scanned.models]
        roots = [root.path for root in scan_roots(context, models_dirs)[0]]
        plan = plan_removal(model, models, roots)
        require_free(model.path)
        _print(removal_lines(plan))
        if not yes:
            _confirm(model)
        try:
            remove(plan, model, models, roots)
        except KeyboardInterrupt:
            raise _stopped(model) from None
    say(f"Removed {model.name}.")


def _as_named(model: ModelInfo, name: str) -> ModelInfo:
    """Return a model under the path by which it was named: a link is then refused, and what it leads to is not."""
    import msgspec

    path = os.path.abspath(os.path.expanduser(name))
    if not _is_path_of(path, model) or _own_place(path) == _own_place(model.path):
        return model
    copies = (model.path, *(copy for copy in model.copies if _own_place(copy) != _own_place(path)))
    return msgspec.structs.replace(model, path=path, copies=copies)


def _own_place(path: str) -> str:
    """Return where a file, folder or link itself lies; a hub cache is made of links."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _is_path_of(path: str, model: ModelInfo) -> bool:
    return os.path.realpath(path) == os.path.realpath(model.path)


def _require_whole_name(model: ModelInfo, name: str) -> None:
    """A part of a name that is given again, in a script, fits the next model when the first is gone."""
    whole = f"/{model.name}".casefold().endswith(f"/{name}".casefold()) or _is_path_of(os.path.expanduser(name), model)
    if not whole:
        detail = f"{clean(name)} is only a part of the name {model.name}"
        raise UsageError("Nothing was deleted", detail, "With --yes give the whole name, or the path.")


def removal_lines(plan: Removal) -> list[str]:
    """Say what a removal deletes."""
    from quantchat.domain.memory import format_bytes

    going = [*(f"{folder}{os.sep}" for folder in plan.folders), *plan.files]
    more = len(going) - SHOWN_PATHS
    kept = f"; {format_bytes(plan.kept)} stay, which others need" if plan.kept else ""
    return [
        f"This deletes {plan.name} and frees {format_bytes(plan.freed)}{kept}:",
        *(f"  {clean(path, newlines=False)}" for path in going[:SHOWN_PATHS]),
        *([f"  and {more} more files"] if more > 0 else []),
        *plan.notes,
    ]


def _confirm(model: ModelInfo) -> None:
    if not sys.stdin.isatty():
        raise UsageError("Nothing was deleted", "There is no terminal to ask on.", "Add --yes to delete it.")
    try:
        agreed = click.confirm(clean(f"Delete {model.name}?", newlines=False), err=not sys.stdout.isatty())
    except click.Abort:
        click.echo(err=True)
        agreed = False
    if not agreed:
        raise Cancelled("Nothing was deleted")


def _stopped(model: ModelInfo) -> Cancelled:
    detail = "Some of its files are deleted, and it cannot be loaded any more."
    return Cancelled(f"The removal of {model.name} was stopped", detail, "The same command removes the rest.")


for _command in (list_command, show_command, remove_command):
    models_command.add_command(_command)
