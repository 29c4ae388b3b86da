"""`quantchat quantize`: its options; the work is in `quantizing`, which `--help` does without."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from quantchat.cli.common import FOLDER, explained, find_models, scan_roots
from quantchat.domain.quantizing import BITS, FORMATS, CalibrationChoice, Method, Recipe

METHODS = get_args(Method)
ALL_FORMATS = tuple(dict.fromkeys(name for names in FORMATS.values() for name in names))
ALL_BITS = "; ".join(f"{method.upper()} {', '.join(map(str, bits))}" for method, bits in BITS.items())
USUAL = CalibrationChoice()
COUNT = click.IntRange(0, 10**9)


@click.command()
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The folder to make; else one is named for you.")
@click.option("--method", type=click.Choice(METHODS), default="gptq", help="The method; gptq if not given.")
@click.option("--bits", type=int, default=4, metavar="N", help=f"Bits per weight, 4 if not given: {ALL_BITS}.")
@click.option(
    "--group-size", type=int, metavar="N", help="Weights that share a scale; -1 for whole columns. Else the best fit."
)
@click.option("--desc-act", is_flag=True, help="Act-order: important columns first. Exacter, and slower kernels.")
@click.option("--sym/--asym", default=None, help="Without or with zero points: GPTQ is usually without, AWQ with.")
@click.option("--damping", type=float, metavar="SHARE", help="GPTQ: added to the Hessian's diagonal, 0.01 if left out.")
@click.option("--lm-head", is_flag=True, help="Quantize the output head too.")
@click.option("--format", "packing", type=click.Choice(ALL_FORMATS), help="How the integers are packed.")
@click.option(
    "--calibration",
    metavar="FILE|bundled|sessions",
    default="bundled",
    help="Text to calibrate with: JSONL of chats, plain text, or your own sessions ('sessions:last 20').",
)
@click.option("--samples", type=COUNT, default=USUAL.samples, metavar="N", help="So many samples of it; 0 for all.")
@click.option("--length", type=COUNT, default=USUAL.length, metavar="N", help="Longest sample in tokens.")
@click.option("--adapter", type=FOLDER, help="Merge this LoRA adapter into SOURCE first.")
@click.option("--dry-run", is_flag=True, help="Only say what it takes, and what stands against it.")
@click.option("--force", is_flag=True, help="Begin also where memory or disk seem too small.")
@click.option("--no-smoke", is_flag=True, help="Do not ask the result a question.")
@click.option("--evaluate", is_flag=True, help="Measure the result's quality against SOURCE.")
@click.option("--models-dir", "models_dirs", type=FOLDER, multiple=True, help="Scan this folder too; may be repeated.")
@click.option("-v", "--verbose", is_flag=True, help="A line for each matrix.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before a download.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line, and ask nothing.")
@click.pass_context
def quantize(
    context: click.Context,
    source: str,
    output: Path | None,
    method: Method,
    bits: int,
    group_size: int | None,
    desc_act: bool,
    sym: bool | None,
    damping: float | None,
    lm_head: bool,
    packing: str | None,
    calibration: str,
    samples: int,
    length: int,
    adapter: Path | None,
    dry_run: bool,
    force: bool,
    no_smoke: bool,
    evaluate: bool,
    models_dirs: tuple[Path, ...],
    verbose: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Make a GPTQ or AWQ model of an unquantized one, on this machine.

    SOURCE is a folder, a name from `quantchat models`, a repository of the hub, which is fetched first, a GGUF file,
    or a LoRA adapter's folder, which is merged into its base model.
    """
    from quantchat.cli.quantizing import Command, Here, run
    from quantchat.services.quantizing.plan import Plan

    recipe = Recipe(
        method=method,
        bits=bits,
        group_size=group_size,
        desc_act=desc_act,
        sym=sym,
        damping=damping,
        lm_head=lm_head,
        checkpoint_format=packing or "",
    )
    plan = Plan(
        source=source,
        output=output,
        recipe=recipe,
        calibration=CalibrationChoice(samples=samples, length=length),
        adapter=str(adapter or ""),
        force=force,
        smoke=not no_smoke,
        evaluate=evaluate,
    )
    with explained():
        found, _ = find_models(context, models_dirs)
        here = Here(models=found.models, roots=tuple(root.path for root in scan_roots(context, models_dirs)[0]))
        run(plan, calibration, here, Command(dry_run=dry_run, verbose=verbose, yes=yes, as_json=as_json))
