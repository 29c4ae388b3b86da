"""`quantchat serve`: its options; the work is in `serving`, which `--help` does without."""

from __future__ import annotations

import math
import re
from pathlib import Path

import click

from quantchat.cli.common import FOLDER, explained, find_models

DEVICES = re.compile(r"cpu|cuda:\d+(,cuda:\d+)*")


def _devices(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    if not value:
        return ()
    words = value.replace(" ", "")
    if not DEVICES.fullmatch(words):
        raise click.BadParameter("it is cpu, cuda:0, or several such as cuda:0,cuda:2")
    return tuple(dict.fromkeys(words.split(",")))


def _share(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and math.isnan(value):
        # No comparison with it is true: it is in no range, and outside of none.
        raise click.BadParameter("it is a number above 0, up to 1")
    return value


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTION]...")
@click.option("--print", "only_print", is_flag=True, help="Only print the command.")
@click.option("--no-screen", is_flag=True, help="Serve without opening the screen, until Ctrl+C.")
@click.option("--backend", type=click.Choice(["vllm", "transformers"]), help="What serves; vllm if not said.")
@click.option("--program", metavar="PATH", default="", help="Where that program is, if not on PATH.")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", help="Listen on this address.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", default=None, help="Listen on this port.")
@click.option("--device", "devices", metavar="NAME", callback=_devices, help="Such as cuda:1, cuda:0,cuda:2 or cpu.")
@click.option("--nodes", type=click.IntRange(1, 1024), metavar="N", default=1, help="Machines, joined by Ray.")
@click.option("--max-model-len", "tokens", type=click.IntRange(1, 10**9), metavar="N", help="Longest context.")
@click.option("--tensor-parallel-size", "tensor", type=click.IntRange(1), metavar="N", help="GPUs that share a matrix.")
@click.option("--pipeline-parallel-size", "pipeline", type=click.IntRange(1), metavar="N", help="Runs of layers.")
@click.option(
    "--gpu-memory-utilization",
    "share",
    type=click.FloatRange(0, 1, min_open=True),
    callback=_share,
    metavar="SHARE",
    help="Of each card's memory.",
)
@click.option("--dtype", metavar="NAME", default="", help="Such as float16 or bfloat16.")
@click.option("--served-model-name", "name", metavar="NAME", default="", help="What requests call the model.")
@click.option("--tokenizer", metavar="PATH", default="", help="For a GGUF file: the model that it was made from.")
@click.option("--trust-remote-code", "remote_code", is_flag=True, help="Let the model's own code run.")
@click.option("--models-dir", "models_dirs", type=FOLDER, multiple=True, help="Scan this folder too; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line; with --no-screen or --print.")
@click.pass_context
def serve(
    context: click.Context,
    /,
    model: str,
    models_dirs: tuple[Path, ...],
    only_print: bool,
    no_screen: bool,
    as_json: bool,
    backend: str | None,
    tokens: int | None,
    **wishes: object,
) -> None:
    """Serve MODEL to other programs with vLLM, and open the screen on it.

    MODEL is a path or a name from `quantchat models`. The command for its format, the GPUs and their free memory is
    shown before it runs; what follows -- goes to the server as it stands. The server ends with this program.
    """
    from quantchat.catalog.scan import find_model
    from quantchat.cli.serving import How, make_wish, serve_model

    if as_json and not (only_print or no_screen):
        raise click.UsageError("--json goes with --print or --no-screen.")
    with explained():
        found = find_model(model, find_models(context, models_dirs)[0].models)
        how = How(
            only_print=only_print,
            screen=not no_screen,
            as_json=as_json,
            asked=backend is not None,
            models_dirs=models_dirs,
        )
        serve_model(found, make_wish(backend=backend or "vllm", context=tokens, **wishes), how)
