"""`quantchat bench` on an ordinary terminal: bars while it measures, then a table or JSON."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

import click
import msgspec

from quantchat.cli.stoppable import run_stoppable
from quantchat.cli.table import table
from quantchat.domain.bench import BenchRun, compare
from quantchat.domain.text import clean
from quantchat.errors import Cancelled, QuantchatError
from quantchat.services.bench import QUICK, OnProgress, Plan, Progress, Target, run_bench

STOPPED = Cancelled("Stopped", "The engine was ended and nothing was kept")


def bench_targets(targets: Sequence[Target], *, quick: bool, as_json: bool) -> None:
    """Measure the targets one after the other and print what came of it.

    Raises:
        Cancelled: on Ctrl+C.
        QuantchatError: the first failure, after the figures of the others were printed.
    """
    with _bars() as on_progress:
        runs, failures = run_stoppable(_measure(targets, QUICK if quick else Plan(), on_progress), STOPPED)
    if runs or as_json:
        click.echo(_json(runs) if as_json else clean(table(runs)))
    for failure in failures[1:]:
        click.echo(clean(str(failure)), err=True)
    if failures:
        raise failures[0]


async def _measure(
    targets: Sequence[Target], plan: Plan, on_progress: Callable[[str], OnProgress]
) -> tuple[list[BenchRun], list[QuantchatError]]:
    runs: list[BenchRun] = []
    failures: list[QuantchatError] = []
    for target in targets:
        try:
            runs.append(await run_bench(target, plan, on_progress(target.title)))
        except QuantchatError as error:
            failures.append(error)
    return runs, failures


def _json(runs: Sequence[BenchRun]) -> str:
    compared = {row.key: row.ratios for row in compare(runs)} if len(runs) > 1 else {}
    return msgspec.json.encode({"runs": runs, "ratios": compared}).decode()


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[str], OnProgress]]:
    """Give what makes the bar of a target; without a terminal nothing is drawn."""
    if not sys.stderr.isatty():
        yield lambda _title: lambda _step: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(24), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:

        def bar(title: str) -> OnProgress:
            task = bars.add_task(clean(title, newlines=False), total=None)

            def show(step: Progress) -> None:
                words = clean(f"{title}: {step.title}", newlines=False)
                bars.update(task, description=words, completed=step.done, total=step.total or None)

            return show

        yield bar
