"""`quantchat doctor`: what is wrong with this machine, finding by finding, or as JSON."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantchat.cli.common import FOLDER, explained, find_models

if TYPE_CHECKING:
    from quantchat.domain.models import ModelInfo
    from quantchat.services.doctor.findings import Finding
    from quantchat.services.doctor.machine import Machine

CLEAR_LINE = "\r\x1b[K"


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
        found = run_stoppable(_examine(machine, wanted, quiet=as_json), stopped)
    whole = report(found)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(whole))
    sys.exit(whole.worst == "red" or (strict and whole.worst == "yellow"))


def _machine(context: click.Context, name: str | None, models_dirs: tuple[Path, ...]) -> Machine:
    from quantchat.catalog.scan import find_model
    from quantchat.services.doctor.machine import Machine
    from quantchat.store.settings import load_settings

    def models() -> tuple[ModelInfo, ...]:
        found = find_models(context, models_dirs)[0].models
        return (find_model(name, found),) if name else found

    settings, _ = load_settings()
    return Machine(
        models=models,
        models_dirs=[*models_dirs, *(Path(folder).expanduser() for folder in settings.models_dirs)],
        kernel=settings.kernel,
        device=settings.device,
        named=name is not None,
        terminal=any(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)),
    )


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
        click.echo(f"\n{summary(found)}")
    return found


def _print(findings: Sequence[Finding]) -> None:
    if findings and sys.stderr.isatty():
        click.echo(CLEAR_LINE, nl=False, err=True)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for finding in findings:
        first, *more = finding.lines(width)
        click.echo(click.style(first[0], fg=finding.level, bold=True) + first[1:])
        for line in more:
            click.echo(line)


def _say_what_runs(titles: Sequence[str]) -> None:
    """One line that the next one takes the place of; only where somebody waits."""
    if sys.stderr.isatty():
        words = f"{CLEAR_LINE}Looking at {', '.join(titles)} …" if titles else CLEAR_LINE
        click.echo(words[: shutil.get_terminal_size().columns], nl=False, err=True)
