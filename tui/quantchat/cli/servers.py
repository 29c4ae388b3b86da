"""`quantchat servers`: the OpenAI-compatible servers whose models are used, asked, added and taken out."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from quantchat.cli.common import explained, json_option, say
from quantchat.errors import FetchError, UsageError

if TYPE_CHECKING:
    from quantchat.domain.served import ServerListing
    from quantchat.domain.servers import ServerSpec
    from quantchat.services.serverlist import Known


@click.group("servers", invoke_without_command=True)
@json_option
@click.pass_context
def servers_command(context: click.Context, as_json: bool) -> None:
    """List the servers of the settings, without asking them."""
    if context.invoked_subcommand is None:
        _list(as_json)


@servers_command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the servers of the settings, without asking them."""
    _list(as_json)


def _list(as_json: bool) -> None:
    from quantchat.store.settings import load_settings

    settings, problems = load_settings()
    if as_json:
        click.echo(_json([_object(name, spec) for name, spec in settings.servers.items()]))
    else:
        _print_specs(settings.servers)
    for problem in problems:
        if "`servers." in problem.detail:
            say(problem.sentence(), err=True)


def _print_specs(servers: Mapping[str, ServerSpec]) -> None:
    from quantchat.services.servers import key_words

    for name, spec in servers.items():
        say(f"{name:16}  {spec.url}  key: {key_words(name, spec)}")
    if not servers:
        say("No servers yet. `quantchat servers add URL` adds one.", err=True)


@servers_command.command("check")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
def check_command(names: tuple[str, ...], as_json: bool) -> None:
    """Ask servers, all if none is named, and say what comes back.

    The exit status is 6 if one gives no models.
    """
    from quantchat.services.serverlist import Servers
    from quantchat.store.settings import load_settings

    with explained():
        specs = _named(load_settings()[0].servers, names)
        servers = Servers(lambda _fact: None, specs)
        asyncio.run(servers.ask())
    if as_json:
        click.echo(_json([_object(known.name, known.spec, known.listing) for known in servers.known]))
    else:
        for known in servers.known:
            _print_known(known)
    if any(known.error is not None for known in servers.known):
        sys.exit(FetchError.exit_code)


def _named(specs: Mapping[str, ServerSpec], names: Sequence[str]) -> dict[str, ServerSpec]:
    for name in names:
        if name not in specs:
            raise UsageError(f"There is no server {name}", remedy=f"There are: {', '.join(specs) or 'none'}")
    return {name: spec for name, spec in specs.items() if not names or name in names}


def _print_known(known: Known) -> None:
    from quantchat.domain.text import shortened
    from quantchat.services.servers import server_rows

    say(f"{known.name}  {known.spec.url}")
    for row in server_rows(known.name, known.spec, known.listing):
        say(f"  {row.label:8}  {row.value}")
    for model in known.models if known.error is None else ():
        window = f"  {model.context_window:,} tokens" if model.context_window else ""
        say(f"    {shortened(model.name, 200)}{window}")


@servers_command.command("add")
@click.argument("url")
@click.option("--name", metavar="NAME", help="What to call it; made from the URL if left out.")
@click.option("--key-env", metavar="VARIABLE", default="", help="The environment variable that holds its API key.")
@click.option("--key", "ask_key", is_flag=True, help="Read the API key from standard input, and keep it in a file.")
@click.option("--no-key", is_flag=True, help="With --replace: without the key of the one that was there.")
@click.option("--model", "models", metavar="ID", multiple=True, help="Use only this model; may be repeated.")
@click.option("--context-window", metavar="TOKENS", type=click.IntRange(min=1), help="If the server does not tell it.")
@click.option("--replace", is_flag=True, help="Put it in the place of one of the same name, whose key it keeps.")
@click.option("--no-check", is_flag=True, help="Keep it without asking it first.")
def add_command(
    url: str,
    name: str | None,
    key_env: str,
    ask_key: bool,
    no_key: bool,
    models: tuple[str, ...],
    context_window: int | None,
    replace: bool,
    no_check: bool,
) -> None:
    """Add the server at URL, such as http://box:8000/v1, once it has answered.

    A key is never an argument: others can read command lines.
    """
    from quantchat.domain.servers import ServerSpec
    from quantchat.services.servers import checked_name, checked_variable, completed_url, suggested_name
    from quantchat.store.settings import load_settings

    with explained():
        if bool(key_env) + ask_key + no_key > 1:
            raise UsageError("The key comes from two places", remedy="Give one of --key-env, --key and --no-key")
        there = load_settings()[0].servers
        place = completed_url(url)
        called = checked_name(name, () if replace else there) if name else suggested_name(place, there)
        spec = ServerSpec(
            url=place, key_env=checked_variable(key_env), models=models, context_window=context_window or 0
        )
        key: str | None = _read_key() if ask_key else ""
        if called in there and not (key_env or ask_key or no_key):
            spec, key = _keyed_as(called, there[called], spec), None
        _add(called, spec, key, check=not no_check)


def _keyed_as(name: str, old: ServerSpec, new: ServerSpec) -> ServerSpec:
    """Return a server that takes its key from where the one in whose place it is put has it.

    Raises:
        UsageError: if that key was given for another place.
    """
    import msgspec

    from quantchat.domain.servers import host_of
    from quantchat.services.servers import key_of

    if host_of(old.url) != host_of(new.url) and (old.key_env or key_of(name, old)):
        raise UsageError(
            f"The key of {name} was given for {host_of(old.url)}",
            remedy=f"Give one for {host_of(new.url)} by --key or --key-env, or --no-key",
        )
    return msgspec.structs.replace(new, key_env=old.key_env)


def _add(name: str, spec: ServerSpec, key: str | None, *, check: bool) -> None:
    """Keep a server; without a key with the one that is there.

    Raises:
        FetchError: if it gives no models.
        UsageError: if it is not allowed.
        StorageError: if the disk refuses.
    """
    import msgspec

    from quantchat.services.serverlist import Servers, keep_server
    from quantchat.services.servers import answer_words, target_of

    if check:
        target = target_of(name, spec)
        if key is not None and not spec.key_env:
            target = msgspec.structs.replace(target, key=key)
        answer = asyncio.run(Servers(lambda _fact: None, {}).test(target))
        if answer.error is not None:
            way = "It was not kept; --no-check keeps it all the same"
            raise FetchError.from_report(
                msgspec.structs.replace(answer.error, remedy=f"{answer.error.remedy} {way}".strip())
            )
        say(f"{answer.label or 'It'} answered with {answer_words(answer)}.", err=True)
    keep_server(name, spec, key)
    say(f"{name}: added")


def _read_key() -> str:
    from quantchat.store.keys import checked_key

    if sys.stdin.isatty():
        return checked_key(click.prompt("API key", hide_input=True, err=True))
    return checked_key(sys.stdin.readline())


@servers_command.command("remove")
@click.argument("name")
def remove_command(name: str) -> None:
    """Take a server out of the settings, and its key out of the file of keys."""
    from quantchat.services.serverlist import keep_server
    from quantchat.store.keys import load_keys
    from quantchat.store.settings import load_settings

    with explained():
        # Of one that was taken out of the settings by hand the key may be left.
        if name not in load_keys():
            _named(load_settings()[0].servers, [name])
        keep_server(name, None, "")
    say(f"{name}: removed")


def _object(name: str, spec: ServerSpec, listing: ServerListing | None = None) -> dict[str, Any]:
    """A server without its key, and what came back of it if it was asked."""
    import msgspec

    from quantchat.services.servers import key_words

    known: dict[str, Any] = {"name": name, "key": key_words(name, spec)}
    known |= {field: getattr(spec, field) for field in spec.__struct_fields__}
    if listing is not None:
        known["answer"] = {key: value for key, value in msgspec.to_builtins(listing).items() if key != "server"}
    return known


def _json(found: Sequence[object]) -> str:
    return json.dumps(found, indent=2)
