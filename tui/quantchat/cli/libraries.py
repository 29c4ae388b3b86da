"""`quantchat presets` and `quantchat prompts`: what is in the libraries, and in and out of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from quantchat.cli.common import explained, json_option, say

if TYPE_CHECKING:
    from quantchat.services.libraries import Kind

replace_option = click.option("--replace", is_flag=True, help="Put them in the place of others of the same name.")
OUTPUT = "A file for all of them, a folder for one file each, or - for the terminal."


def _list_presets(as_json: bool) -> None:
    import msgspec

    from quantchat.domain.presets import describe_preset
    from quantchat.services.presets import Presets
    from quantchat.store.settings import load_settings

    presets = Presets(load_settings()[0].presets)
    known = presets.known()
    if as_json:
        rows = [
            {"name": name, "from": presets.home_of(name), "values": msgspec.to_builtins(values)}
            for name, values in known.items()
        ]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        for name, values in known.items():
            say(f"{name:20} {presets.home_of(name):12} {describe_preset(values)}")
    for problem in presets.problems:
        say(f"quantchat: {problem.sentence()}", err=True)


def _list_prompts(as_json: bool) -> None:
    from quantchat.services.promptbook import PromptBook

    templates, problems = PromptBook().look()
    if as_json:
        rows = [{"name": one.name, "fields": one.fields, "text": one.text} for one in templates]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        for one in templates:
            fields = " ".join(f"{{{field}}}" for field in one.fields)
            say(f"{one.name:20} {fields:24} {one.summary}".rstrip())
    for problem in problems:
        say(f"quantchat: {problem.sentence()}", err=True)


def _import(kind: Kind, sources: tuple[str, ...], replace: bool) -> None:
    from quantchat.services.libraries import import_from

    with explained():
        done = import_from(kind, sources, replace=replace)
    for verb, names in (("added", done.added), ("replaced", done.replaced), ("there already", done.same)):
        for name in names:
            say(f"{name}: {verb}")


def _export(kind: Kind, names: tuple[str, ...], output: str, replace: bool) -> None:
    from quantchat.errors import UsageError
    from quantchat.services.libraries import STANDARD, bundle_of, export_to, texts_of

    with explained():
        texts = texts_of(kind, names)
        if not texts:
            raise UsageError(f"There are no {kind} to export", "The library is empty")
        if output == STANDARD:
            click.echo(bundle_of(kind, texts).rstrip("\n"))
            return
        for path in export_to(kind, texts, output, replace=replace):
            say(f"{path}: written", err=True)


def _show(kind: Kind, name: str) -> None:
    from quantchat.services.libraries import texts_of

    with explained():
        say(texts_of(kind, [name])[name])


@click.group("presets", invoke_without_command=True)
@json_option
@click.pass_context
def presets(context: click.Context, as_json: bool) -> None:
    """List the sampling presets, quantchat's and your own."""
    if context.invoked_subcommand is None:
        _list_presets(as_json)


@presets.command("show")
@click.argument("name")
def show_preset(name: str) -> None:
    """Print a preset of your presets folder."""
    _show("presets", name)


@presets.command("import")
@click.argument("sources", nargs=-1, required=True, metavar="FILE...")
@replace_option
def import_presets(sources: tuple[str, ...], replace: bool) -> None:
    """Take presets into your library: TOML files, folders of them, files with [presets.NAME] tables, or -."""
    _import("presets", sources, replace)


@presets.command("export")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--output", "-o", default="-", metavar="PATH", help=OUTPUT)
@replace_option
def export_presets(names: tuple[str, ...], output: str, replace: bool) -> None:
    """Write presets of your library into a file or folder, all of them if none is named."""
    _export("presets", names, output, replace)


@click.group("prompts", invoke_without_command=True)
@json_option
@click.pass_context
def prompts(context: click.Context, as_json: bool) -> None:
    """List the prompt templates of your library."""
    if context.invoked_subcommand is None:
        _list_prompts(as_json)


@prompts.command("show")
@click.argument("name")
def show_prompt(name: str) -> None:
    """Print a prompt template."""
    _show("prompts", name)


@prompts.command("import")
@click.argument("sources", nargs=-1, required=True, metavar="FILE...")
@replace_option
def import_prompts(sources: tuple[str, ...], replace: bool) -> None:
    """Take prompts into your library: text files, folders of them, TOML files with a [prompts] table, or -."""
    _import("prompts", sources, replace)


@prompts.command("export")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--output", "-o", default="-", metavar="PATH", help=OUTPUT)
@replace_option
def export_prompts(names: tuple[str, ...], output: str, replace: bool) -> None:
    """Write prompts of your library into a file or folder, all of them if none is named."""
    _export("prompts", names, output, replace)
