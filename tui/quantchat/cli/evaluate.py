"""`quantchat evaluate`: how good models still are, as a table and a chart, or JSON."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from quantchat.cli.common import FOLDER, explained, find_models, json_option, say
from quantchat.cli.kernels import known_kernel
from quantchat.domain.text import clean, shortened
from quantchat.errors import Cancelled, QuantchatError, UsageError

if TYPE_CHECKING:
    from quantchat.domain.models import ModelInfo
    from quantchat.services.evaluating import OnProgress, Progress, Result, Wish
    from quantchat.services.quality import Measured

STOPPED = Cancelled("Stopped", "The engine was ended; what was measured until then is kept")
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
NAME, STAGE, BAR = 24, 20, 14
"""Cells of a bar's line, which must fit into 80 columns."""
MOST = 10**9
WIDTH, CHART_WIDTH, CHART_HEIGHT = 120, 76, 16
Group = tuple["ModelInfo | None", list["ModelInfo"]]


@click.command("evaluate")
@click.argument("models", nargs=-1, metavar="MODEL...")
@click.option("--against", metavar="REFERENCE", help="The unquantized model to compare with; guessed if not named.")
@click.option("--alone", is_flag=True, help="Compare with nothing: perplexity only.")
@click.option("--text", type=FILE, help="Measure on this UTF-8 text in place of the bundled one.")
@click.option("--tokens", type=click.IntRange(2, MOST), help="Read at most so many tokens of the text.")
@click.option("--window", type=click.IntRange(8, MOST), default=512, show_default=True, help="Tokens per window.")
@click.option("--kernel", metavar="NAME", callback=known_kernel, help="Run quantized models with this kernel.")
@click.option("--device", metavar="NAME", help="Run on this device, such as cpu or cuda:0.")
@click.option("--stored", is_flag=True, help="Measure nothing; show what was measured before.")
@click.option("--models-dir", "models_dirs", type=FOLDER, multiple=True, help="Scan this folder too; may be repeated.")
@json_option
@click.pass_context
def evaluate_command(
    context: click.Context,
    models: tuple[str, ...],
    against: str | None,
    alone: bool,
    text: Path | None,
    tokens: int | None,
    window: int,
    kernel: str | None,
    device: str | None,
    stored: bool,
    models_dirs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Measure how good models still are: perplexity on a text, KL divergence and agreement against a reference.

    MODEL is a path or a name from `quantchat models`. What is measured is kept beside each model, and shown in the
    sidebar.
    """
    from quantchat.catalog.scan import find_model
    from quantchat.services.evaluating import Wish

    with explained():
        if not models and not stored:
            raise UsageError("No model was named", remedy="Name one, or show what was measured before with --stored")
        if alone and against:
            raise UsageError("--alone and --against exclude each other")
        found, _ = find_models(context, models_dirs)
        chosen = [find_model(name, found.models) for name in models]
        if stored:
            show_stored(chosen or found.models, as_json=as_json)
            return
        reference = find_model(against, found.models) if against else None
        if reference is not None and all(model.path == reference.path for model in chosen):
            say(f"{reference.name} is its own reference: it is measured alone.", err=True)
        wish = Wish(text=text, tokens=tokens or 0, window=window, kernel=kernel, device=device)
        groups = [(reference, chosen)] if reference or alone else grouped(chosen, found.models)
        measure(groups, wish, as_json=as_json)


def grouped(models: Sequence[ModelInfo], known: Sequence[ModelInfo]) -> list[Group]:
    """Put models with the references that they probably have, and say which those are."""
    from quantchat.services.references import guess_reference

    groups: dict[str, Group] = {}
    for model in models:
        reference = guess_reference(model, known)
        if reference is not None:
            say(f"{model.name} is measured against {reference.name}.", err=True)
        elif model.quant.method != "none":
            say(f"{model.name}: its unquantized model was not found; --against names it.", err=True)
        # Without a reference each stands alone; an unquantized one may be the reference of others.
        key = reference.path if reference is not None else model.path
        _, members = groups.setdefault(key, (reference, []))
        groups[key] = (groups[key][0] or reference, [*members, model])
    return list(groups.values())


def measure(groups: Sequence[Group], wish: Wish, *, as_json: bool) -> None:
    """Measure all groups, and print what came of it.

    Raises:
        Cancelled: on Ctrl+C.
        QuantchatError: the first failure, after the figures of the others were printed.
    """
    from quantchat.cli.stoppable import run_stoppable

    with _bar() as bar:
        results, failures = run_stoppable(_measured(groups, wish, bar), STOPPED)
    if results or as_json:
        _print([result for group in results for result in group], as_json=as_json)
    for result in (result for group in results for result in group):
        for note in result.notes:
            say(f"{result.model.name}: {note}", err=True)
    for failure in failures[1:]:
        say(str(failure), err=True)
    if failures:
        raise failures[0]


async def _measured(
    groups: Sequence[Group], wish: Wish, bar: Callable[[str], OnProgress]
) -> tuple[list[list[Result]], list[QuantchatError]]:
    from quantchat.services.evaluating import evaluate

    results, failures = [], []
    for reference, models in groups:
        try:
            found = await evaluate(models, reference, wish, bar(models[0].name))
        except QuantchatError as error:
            failures.append(error)
            continue
        results.append([result for result in found if result.quality is not None])
        failures += [result.error for result in found if result.error is not None]
    return results, failures


def show_stored(models: Sequence[ModelInfo], *, as_json: bool) -> None:
    """Print what was measured of models before."""
    from quantchat.services.quality import all_measured

    known = all_measured(models)
    if as_json:
        click.echo(_json([(one.model, one.quality) for one in known]))
    elif known:
        _print_text(known)
    else:
        say("Nothing was measured of these models yet.", err=True)


def _print(results: Sequence[Result], *, as_json: bool) -> None:
    from quantchat.services.quality import Measured

    known = [Measured(result.model, result.quality) for result in results if result.quality is not None]
    if as_json:
        click.echo(_json([(one.model, one.quality) for one in known]))
    else:
        _print_text(known)


def _json(measured: Sequence[tuple[ModelInfo, object]]) -> str:
    rows = [{"model": model.name, "path": model.path, "quality": quality} for model, quality in measured]
    return msgspec.json.encode({"models": rows}).decode()


def _print_text(measured: Sequence[Measured]) -> None:
    from quantchat.services.quality import LEGEND, chart, families, ruler_text, table

    width = shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    for number, group in enumerate(families(measured)):
        drawn = chart(group, min(width, CHART_WIDTH), CHART_HEIGHT, plain=plain)
        lines = [*([""] * bool(number)), ruler_text(group[0].quality), "", *table(group, width)]
        lines += ["", *drawn, LEGEND] if drawn else []
        for line in lines:
            say(line)


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[str], OnProgress]]:
    """Give what makes the bar of a group; without a terminal nothing is drawn."""
    if not sys.stderr.isatty():
        yield lambda _title: lambda _step: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    from quantchat.services.quality import middle_out

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(BAR),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:

        def make(title: str) -> OnProgress:
            task = bars.add_task(clean(title, newlines=False), total=1.0)

            def show(step: Progress) -> None:
                place = f"{step.number}/{step.models} " if step.models > 1 else ""
                words = f"{place}{middle_out(shortened(step.model, NAME * 4), NAME)}: {shortened(step.stage, STAGE)}"
                bars.update(task, description=words, completed=step.share)

            return show

        yield make
