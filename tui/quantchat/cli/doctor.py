"""`quantchat doctor`: what is wrong with this machine, finding by finding, or as JSON."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from quantchat.cli.common import FOLDER, explained, scan_roots

if TYPE_CHECKING:
    from quantchat.domain.models import ModelInfo
    from quantchat.services.doctor.findings import Finding
    from quantchat.services.doctor.machine import Machine
    from quantchat.store.settings import Settings

CLEAR_LINE = "\r\x1b[K"
PLAIN = str.maketrans({"✓": "+", "✗": "x", "…": "..."})
"""For terminals and files that do not take these."""


def known_checks(_context: click.Context, _option: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse the first that is no check, and list those there are."""
    if names:
        from quantchat.services.doctor.checks import CHECKS

        known = [check.id for check in CHECKS]
        for name in names:
            if name not in known:
                raise click.BadParameter(f"{name!r} is no check. There are {', '.join(known)}.")
    return names


@click.command("doctor")
@click.argument("model", required=False, metavar="[MODEL]")
@click.option("--models-dir", "models_dirs", type=FOLDER, multiple=True, help="Scan this folder too; may be repeated.")
@click.option("--only", "wanted", metavar="CHECK", multiple=True, callback=known_checks, help="Look at this only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--strict", is_flag=True, help="Fail for yellow findings too.")
@click.pass_context
def doctor(
    context: click.Context,
    model: str | None,
    models_dirs: tuple[Path, ...],
    wanted: tuple[str, ...],
    as_json: bool,
    strict: bool,
) -> None:
    """Examine this machine: libraries, GPU, compilers, kernels, models, memory, disks, terminal.

    Findings are green, yellow (slow or fragile) or red (something does not work), with the commands that mend them.
    MODEL is a path or a name from `quantchat models`: it alone is judged then, instead of all.

    Exit status: 0 if nothing is red, 1 if something is, or with --strict is yellow.
    """
    from quantchat.cli.stoppable import run_stoppable
    from quantchat.errors import Cancelled
    from quantchat.services.doctor.findings import report

    with explained():
        stopped = Cancelled("Stopped", "Nothing was changed")
        machine = _machine(context, model, models_dirs)
        whole = report(run_stoppable(_examine(machine, wanted, quiet=as_json), stopped))
        if as_json:
            import msgspec

            _write(msgspec.json.encode(whole))
    sys.exit(whole.worst == "red" or (strict and whole.worst == "yellow"))


def _machine(context: click.Context, name: str | None, models_dirs: tuple[Path, ...]) -> Machine:
    from quantchat.services.doctor.machine import Machine

    def models() -> tuple[ModelInfo, ...]:
        from quantchat.catalog.readers import read_in_processes
        from quantchat.catalog.scan import find_model, scan

        roots, _ = scan_roots(context, models_dirs)
        # Without the index of earlier scans, which would be brought up to date: nothing is changed here.
        found = scan(roots, lambda: machine.closed, read=read_in_processes).models
        return (find_model(name, found),) if name else found

    settings, asked = _settings(), context.find_root().params
    machine = Machine(
        models=models,
        models_dirs=[*models_dirs, *(Path(os.path.expanduser(folder)) for folder in settings.models_dirs)],
        kernel=asked.get("kernel") or settings.kernel,
        device=asked.get("device") or settings.device,
        named=name is not None,
        terminal=any(map(_is_terminal, (sys.stdin, sys.stdout, sys.stderr))),
    )
    return machine


def _settings() -> Settings:
    from quantchat.store.settings import Settings, load_settings

    try:
        return load_settings()[0]
    except RuntimeError:
        # Nobody knows where the home folder is, which is a finding.
        return Settings()


def _is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at a stream; one that the shell closed is None."""
    return stream is not None and stream.isatty()


async def _examine(machine: Machine, wanted: Sequence[str], *, quiet: bool) -> list[Finding]:
    """Run all checks; findings are printed in the order of the table, as soon as those before them are there."""
    from quantchat.services.doctor.checks import CHECKS, examine
    from quantchat.services.doctor.findings import summary

    done: dict[str, tuple[Finding, ...]] = {}
    found: list[Finding] = []
    waiting = [check for check in CHECKS if not wanted or check.id in wanted]
    async with aclosing(examine(machine, tuple(waiting))) as all_done:
        async for check, findings in all_done:
            done[check.id] = findings
            while waiting and waiting[0].id in done:
                found += done[waiting[0].id]
                _print(() if quiet else done[waiting[0].id])
                del waiting[0]
            _say_what_runs([] if quiet else [check.title for check in waiting if check.id not in done])
    if not quiet:
        _echo(f"\n{summary(found)}")
    return found


def _print(findings: Sequence[Finding]) -> None:
    if findings:
        _say_what_runs(())
    coloured = _is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = shutil.get_terminal_size().columns if _is_terminal(sys.stdout) else 0
    for finding in findings:
        first, *more = finding.lines(width)
        mark = click.style(first[0], fg=finding.level, bold=True) if coloured else first[0]
        for line in (mark + first[1:], *more):
            _echo(line)


def _say_what_runs(titles: Sequence[str]) -> None:
    """One line that the next one takes the place of; only where somebody waits."""
    if _is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb":
        words = f"Looking at {', '.join(titles)} …" if titles else ""
        _echo(CLEAR_LINE + words[: shutil.get_terminal_size().columns - 1], nl=False, err=True)


def _echo(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Print, in the characters that the stream has."""
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(PLAIN).encode(encoding, "replace").decode(encoding)
    _write(text, nl=nl, err=err)


def _write(text: str | bytes, *, nl: bool = True, err: bool = False) -> None:
    """Write to a stream, which may be a file on a full disk; the end of a pipe is click's affair."""
    from quantchat.errors import StorageError

    try:
        click.echo(text, nl=nl, err=err)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        remedy = "Let the words go to the terminal, or to a file on another disk."
        raise StorageError("The findings could not be written", str(error.strerror), remedy) from error
