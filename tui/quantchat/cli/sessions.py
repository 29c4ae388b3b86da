"""`quantchat sessions`: what is kept, what stands in it, files out of it and into it, and its removal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from quantchat.cli.common import WORDS_OR_COMMAND, ListingGroup, explained, json_option, say
from quantchat.domain.text import clean
from quantchat.errors import Cancelled, StorageError, UsageError

if TYPE_CHECKING:
    from quantchat.domain.chat import SessionSummary
    from quantchat.store.exchange.exporting import Exporter
    from quantchat.store.exchange.formats import Format
    from quantchat.store.exchange.importing import Import
    from quantchat.store.sessions import SessionStore

Order = Literal["updated", "created", "title", "messages"]
FORMAT_NAMES = ("markdown", "json", "html", "messages", "jsonl", "jsonl-exchanges")
STDIN = "-"

search_option = click.option("--search", metavar="TEXT", help="Only those that hold this text, with where it stands.")
archived_option = click.option("--archived", is_flag=True, help="Only archived ones; else they are left out.")
sort_option = click.option("--sort", "order", type=click.Choice(get_args(Order)), help="In which order.")


@click.group("sessions", cls=ListingGroup, invoke_without_command=True, subcommand_metavar=WORDS_OR_COMMAND)
@search_option
@archived_option
@sort_option
@json_option
@click.pass_context
def sessions_command(
    context: click.Context, search: str | None, archived: bool, order: Order | None, as_json: bool
) -> None:
    """List the sessions; WORDs keep those whose title, tags or id hold them all."""
    if context.invoked_subcommand is None:
        _list((), search, archived, order, as_json)


@click.command("list")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@search_option
@archived_option
@sort_option
@json_option
@click.pass_context
def list_command(
    context: click.Context,
    words: tuple[str, ...],
    search: str | None,
    archived: bool,
    order: Order | None,
    as_json: bool,
) -> None:
    """List the sessions; WORDs keep those whose title, tags or id hold them all."""
    assert context.parent is not None
    above = context.parent.params
    _list(
        words,
        search if search is not None else above["search"],
        archived or above["archived"],
        order or above["order"],
        as_json or above["as_json"],
    )


def _list(words: Sequence[str], search: str | None, archived: bool, order: Order | None, as_json: bool) -> None:
    from quantchat.cli.sessiontable import as_objects, hit_lines, json_text, lines, ordered, wanted

    with explained():
        store = open_store()
        rows = ordered([row for row in wanted(store.list(), words) if row.archived == archived], order or "updated")
        hits = _search(store, search) if search is not None else None
        if hits is not None:
            rows = [row for row in rows if row.id in hits]
        if as_json:
            click.echo(json_text(as_objects(rows, hits)))
        else:
            for line in lines(rows) if hits is None else hit_lines(rows, hits):
                say(clean(line, newlines=False))
        _tell_problems(store)
        if not rows and not as_json:
            say("No session was found." if words or search or archived else "There are no sessions yet.", err=True)


def _search(store: SessionStore, text: str) -> dict[str, list[tuple[str, str]]]:
    """Return where sessions hold a text, by id: the kind of place, and the words around it."""
    from quantchat.services.finding import find

    found: dict[str, list[tuple[str, str]]] = {}
    for hit in find(store, text, most=sys.maxsize).hits:
        found.setdefault(hit.session.id, []).append((hit.place, hit.excerpt))
    return found


@click.command("show")
@click.argument("name", metavar="SESSION")
@json_option
def show_command(name: str, as_json: bool) -> None:
    """Print a session as Markdown: the branch that was shown last; as JSON, the whole tree.

    SESSION is an id from `quantchat sessions`, the beginning of one, a title or a part of one, or `last`.
    """
    from quantchat.store.exchange.exporting import Exporter, stored
    from quantchat.store.exchange.formats import find_format

    with explained():
        store = open_store()
        (row,) = chosen(store, [name])
        exporter = Exporter(find_format("json" if as_json else "markdown"), stored(store))
        _print(exporter, [row.id])


@click.command("export")
@click.argument("names", nargs=-1, metavar="[SESSION]...")
@click.option("--all", "every", is_flag=True, help="All sessions, archived ones too.")
@click.option("--format", "-f", "kind", type=click.Choice(FORMAT_NAMES), help="Else the file's name says it.")
@click.option("--output", "-o", metavar="FILE", help="A file or folder; - for standard output, which is the default.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def export_command(names: tuple[str, ...], every: bool, kind: str | None, output: str | None, force: bool) -> None:
    """Write sessions to a file, a folder, or standard output.

    SESSION is an id, the beginning of one, a title or a part of one, or `last`; with - ids are read from standard
    input, one at the beginning of each line. What a format cannot hold is named on standard error.
    """
    from quantchat.store.exchange.exporting import Exporter, stored

    with explained():
        store = open_store()
        rows = store.list() if every else chosen(store, names)
        if not rows:
            raise UsageError("Nothing was exported", "There are no sessions" if every else "No session is named.")
        exporter = Exporter(_format(kind, output), stored(store), replace=force)
        ids = [row.id for row in rows]
        if output in (None, STDIN):
            _require_one_file(exporter.kind, ids)
            _print(exporter, ids)
        else:
            exporter.write(ids, Path(str(output)).expanduser())
            for path in exporter.written:
                say(f"Written {path}.", err=True)
        _tell_losses(exporter)
        _tell_problems(store)
    sys.exit(StorageError.exit_code if exporter.unread else 0)


def _format(kind: str | None, output: str | None) -> Format:
    from quantchat.store.exchange.formats import find_format, format_of

    if kind is not None:
        return find_format(kind)
    if output in (None, STDIN) or Path(str(output)).is_dir():
        return find_format("markdown")
    return format_of(str(output))


def _require_one_file(kind: Format, session_ids: Sequence[str]) -> None:
    if len(session_ids) > 1 and kind.brackets is None:
        detail = f"A file of the format {kind.name} holds one session, and {len(session_ids)} are named."
        raise UsageError("Nothing was exported", detail, "Name a folder with --output, or the format json.")


def _print(exporter: Exporter, session_ids: Sequence[str]) -> None:
    """Print sessions; for a terminal without what would command it."""
    shown = sys.stdout.isatty()
    for piece in exporter.text(session_ids):
        data = (clean(piece) if shown else piece).encode("utf-8", "replace")
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _tell_losses(exporter: Exporter) -> None:
    if exporter.lost:
        say(f"Left out, as {exporter.kind.name} does not hold it: {', '.join(exporter.lost)}.", err=True)
    for report in exporter.unread:
        say(report.sentence(), err=True)


def _tell_problems(store: SessionStore) -> None:
    for report in store.take_problems():
        say(report.sentence(), err=True)


@click.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--skip-bad", is_flag=True, help="Leave out what cannot be read; else nothing is imported then.")
@click.option("--dry-run", is_flag=True, help="Only say what would come in.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: ids, titles, messages.")
def import_command(files: tuple[str, ...], skip_bad: bool, dry_run: bool, as_json: bool) -> None:
    """Take sessions in from files; - is standard input. All of them come in, or none.

    What a file holds is found out: quantchat's JSON and Markdown, ChatGPT's export (the zip or its
    conversations.json), lists of messages with role and content, as JSON or JSONL.
    """
    from quantchat.store.exchange.importing import Import

    with explained(), Import(open_store()) as incoming:
        for file in files:
            if file == STDIN:
                incoming.read_open(sys.stdin.buffer, "standard input")
            else:
                incoming.read(Path(file).expanduser())
        if incoming.bad and not skip_bad:
            raise incoming.refusal("With --skip-bad the others come in" if incoming.incoming.rows else "")
        for fault in incoming.faults:
            say(f"Left out: {fault.sentence()}", err=True)
        if not dry_run:
            incoming.commit()
        _tell_imported(incoming, as_json, dry_run)
        if incoming.bad and not incoming.incoming.rows:
            raise incoming.refusal()


def _tell_imported(incoming: Import, as_json: bool, dry_run: bool) -> None:
    from quantchat.cli.sessiontable import json_text

    rows = incoming.incoming.rows
    if as_json:
        click.echo(json_text([row._asdict() for row in rows]))
        return
    for row in rows:
        say(clean(f"{row.id}  {row.title}", newlines=False))
    say(f"{'It would be' if dry_run else 'Imported'} {incoming.summary()}.", err=True)


@click.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="SESSION...")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_command(names: tuple[str, ...], yes: bool) -> None:
    """Move sessions to the trash folder, after showing which.

    SESSION is an id, the beginning of one, a title or a part of one; with --yes no part. With - ids are read from
    standard input, one at the beginning of each line.
    """
    from quantchat.cli.sessiontable import lines

    with explained():
        store = open_store()
        rows = chosen(store, names, whole=yes)
        for line in lines(rows):
            say(clean(line, newlines=False))
        if not yes:
            _confirm(rows, STDIN in names)
        _move_to_trash(store, rows)
    say(f"Moved {len(rows)} to {store.trash}.")


def _confirm(rows: Sequence[SessionSummary], from_stdin: bool) -> None:
    if from_stdin or not sys.stdin.isatty():
        raise UsageError("Nothing was moved", "There is no terminal to ask on.", "Add --yes to move them.")
    what = "this session" if len(rows) == 1 else f"these {len(rows)} sessions"
    try:
        agreed = click.confirm(f"Move {what} to the trash?", err=not sys.stdout.isatty())
    except click.Abort:
        click.echo(err=True)
        agreed = False
    if not agreed:
        raise Cancelled("Nothing was moved")


def _move_to_trash(store: SessionStore, rows: Sequence[SessionSummary]) -> None:
    """Look at all locks before the first session moves: one that is open somewhere keeps all of them."""
    from quantchat.store.locks import SessionLocks

    locks = SessionLocks(store.root)
    for row in rows:
        # Given back at once: each is an open file, and a process may have about a thousand.
        locks.acquire(row.id).release()
    for row in rows:
        with locks.acquire(row.id):
            store.delete(row.id)


def open_store() -> SessionStore:
    """Return the folder of sessions, with what a broken-off import left behind brought to its end."""
    from quantchat.store.exchange.staging import finish_imports
    from quantchat.store.sessions import SessionStore

    store = SessionStore()
    try:
        finish_imports(store.root)
    except StorageError as error:
        # The sessions that are there can be read all the same.
        store.problems.append(error.report)
    return store


def chosen(store: SessionStore, names: Sequence[str], *, whole: bool = False) -> list[SessionSummary]:
    """Return the sessions that names mean, each once; `whole`: a part of a title is not enough.

    Raises:
        UsageError: if a name means none, or several.
    """
    from quantchat.cli.sessiontable import find_session

    rows = store.list()
    # The lines of `--search` below a session are set in.
    ids = [line.split()[0] for line in sys.stdin if not line[0].isspace()] if STDIN in names else []
    wanted = [*(name for name in names if name != STDIN), *ids]
    by_id = {row.id: row for row in rows}
    found = [by_id.get(name) or find_session(name, rows, whole=whole) for name in wanted]
    if not found:
        raise UsageError("No session is named", "Give an id or a title.", "`quantchat sessions` lists them.")
    return list({row.id: row for row in found}.values())


for _command in (list_command, show_command, export_command, import_command, remove_command):
    sessions_command.add_command(_command)
