"""`quantchat compare`: one prompt to two models, kernels or presets, without the screen."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click

from quantchat.cli.common import FOLDER, explained, find_models, json_option
from quantchat.cli.kernels import known_kernel
from quantchat.errors import UsageError


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="[B]", required=False)
@click.option("-p", "--prompt", metavar="TEXT", help="What both are asked; - reads standard input.")
@click.option("--system", "system_prompt", metavar="TEXT", default="", help="What both are told first.")
@click.option("--kernel-a", metavar="NAME", callback=known_kernel, help="Load A with this kernel.")
@click.option("--kernel-b", metavar="NAME", callback=known_kernel, help="Load B with this kernel.")
@click.option("--preset-a", metavar="NAME", default="", help="Sample A's answer by this preset.")
@click.option("--preset-b", metavar="NAME", default="", help="Sample B's answer by this preset.")
@click.option("--preset", metavar="NAME", default="", help="Sample both by this preset; exact is greedy.")
@click.option(
    "--seed", type=click.IntRange(0, 2**62 - 1), metavar="N", help="Of both answers; without it one is drawn."
)
@click.option("--max-tokens", type=click.IntRange(1, 10**9), metavar="N", help="Longest answer.")
@click.option("--one-by-one", is_flag=True, help="Never both at once, so that each has the machine to itself.")
@click.option("--device", metavar="NAME", help="Run on this device, such as cpu or cuda:0.")
@click.option("--models-dir", "models_dirs", type=FOLDER, multiple=True, help="Scan this folder too; may be repeated.")
@json_option
@click.pass_context
def compare(
    context: click.Context,
    first: str,
    second: str | None,
    prompt: str | None,
    system_prompt: str,
    kernel_a: str | None,
    kernel_b: str | None,
    preset_a: str,
    preset_b: str,
    preset: str,
    seed: int | None,
    max_tokens: int | None,
    one_by_one: bool,
    device: str | None,
    models_dirs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Ask A and B the same with the same seed; show both answers and the first token that differs.

    A and B are paths or names from `quantchat models`. Without B, A is compared with itself: with two kernels or two
    presets. Both answer at once where both fit into memory, else one after the other.
    """
    from quantchat.catalog.scan import find_model
    from quantchat.cli.comparing import Wish, compare_models

    with explained():
        text = _prompt(prompt)
        models = find_models(context, models_dirs)[0].models
        found = [find_model(name, models) for name in (first, second or first)]
        wishes = [
            Wish(model=model, kernel=kernel, preset=own or preset, max_tokens=max_tokens)
            for model, kernel, own in zip(found, (kernel_a, kernel_b), (preset_a, preset_b), strict=True)
        ]
        compare_models(
            wishes[0],
            wishes[1],
            prompt=text,
            system_prompt=system_prompt,
            seed=seed,
            one_by_one=one_by_one,
            device=device,
            as_json=as_json,
        )


def _prompt(given: str | None) -> str:
    # None is what a closed standard input is.
    stdin = sys.stdin if sys.stdin is not None else io.StringIO()
    piped = given == "-" or (given is None and not stdin.isatty())
    text = stdin.read() if piped else given or ""
    if not text.strip():
        raise UsageError("There is nothing to ask", remedy="Say it with -p, or pipe it in")
    return text.strip()
