"""The command line. `--help` and `--version` import neither Textual nor torch."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantchat import __version__
from quantchat.cli.common import FOLDER, Program, explained, models_named
from quantchat.cli.compare import compare
from quantchat.cli.doctor import doctor
from quantchat.cli.evaluate import evaluate_command
from quantchat.cli.inspect import prompt
from quantchat.cli.kernels import known_kernel, known_kernels
from quantchat.cli.libraries import presets, prompts
from quantchat.cli.models import models_command
from quantchat.cli.pull import pull
from quantchat.cli.quantize import quantize
from quantchat.cli.run import run
from quantchat.cli.serve import serve
from quantchat.cli.servers import servers_command
from quantchat.cli.sessions import sessions_command

if TYPE_CHECKING:
    from quantchat.domain.servers import ServerSpec
    from quantchat.engine.protocol import Decoding
    from quantchat.services.facts import Beside


@click.group(cls=Program, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="quantchat")
@click.option("--model", metavar="NAME", help="Load this model at the start: a name, part of one, or a folder.")
@click.option("--session", metavar="ID", help="Open this session.")
@click.option("--continue", "resume", is_flag=True, help="Open the session that was shown last.")
@click.option("--temporary", is_flag=True, help="Begin with a session that is never written.")
@click.option("--models-dir", "models_dirs", type=FOLDER, multiple=True, help="Scan this folder too; may be repeated.")
@click.option("--theme", metavar="NAME", help="Use this theme.")
@click.option("--kernel", metavar="NAME", callback=known_kernel, help="Load with this kernel, such as marlin.")
@click.option("--device", metavar="NAME", help="Load on this device, such as cpu or cuda:1.")
@click.option("--slow-link", is_flag=True, help="Send as little as can be: five updates per second, 16 colours.")
@click.pass_context
def main(
    context: click.Context,
    model: str | None,
    session: str | None,
    resume: bool,
    temporary: bool,
    models_dirs: tuple[Path, ...],
    theme: str | None,
    kernel: str | None,
    device: str | None,
    slow_link: bool,
) -> None:
    """Chat with GPTQ and AWQ models in the terminal."""
    if temporary and (session or resume):
        raise click.UsageError("--temporary begins a session; it cannot open one.")
    if context.invoked_subcommand is None:
        open_screen(
            model=model,
            session=session,
            resume=resume,
            temporary=temporary,
            models_dirs=models_dirs,
            theme=theme,
            kernel=kernel,
            device=device,
            slow_link=slow_link,
        )


def open_screen(
    *,
    model: str | None = None,
    session: str | None = None,
    resume: bool = False,
    temporary: bool = False,
    models_dirs: Sequence[Path] = (),
    theme: str | None = None,
    kernel: str | None = None,
    device: str | None = None,
    servers: Mapping[str, ServerSpec] | None = None,
    slow_link: bool = False,
    beside: Beside | None = None,
) -> None:
    """Run the full-screen program until the user leaves it; `beside` runs with it and may tell it something."""
    # The imports make many objects and no garbage; the app turns collection on again after its first frame.
    gc.disable()
    from quantchat.ui.app import QuantchatApp

    # Textual draws on stderr: with `2>log` the screen would stay empty.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise click.ClickException("quantchat draws on a terminal, and this is none. Run it in one, or in tmux.")
    with explained():
        app = QuantchatApp(
            models_dirs=models_dirs,
            model=model,
            session=session,
            resume=resume,
            temporary=temporary,
            theme=theme,
            kernel=kernel,
            device=device,
            servers=servers,
            slow_link=slow_link,
            beside=beside,
        )
    app.run()
    sys.exit(app.return_code or 0)


@main.command()
@click.option("--prepare", is_flag=True, help="Only make the model; do not open the screen.")
def demo(prepare: bool) -> None:
    """Make a small 4-bit model on this machine (once, a few minutes) and chat with it."""
    from quantchat.cli.demo import prepare_demo

    with explained():
        folder = prepare_demo()
    if prepare:
        click.echo(str(folder))
        return
    open_screen(model=str(folder))


@main.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--kernel",
    "kernels",
    metavar="NAME",
    multiple=True,
    callback=known_kernels,
    help="Run with this kernel; two are compared.",
)
@click.option("--device", metavar="NAME", help="Run on this device, such as cpu or cuda:0.")
@click.option("--decoding", type=click.Choice(["auto", "eager", "generate"]), default="auto", help="How to decode.")
@click.option("--models-dir", "models_dirs", type=FOLDER, multiple=True, help="Scan this folder too; may be repeated.")
@click.option("--quick", is_flag=True, help="Shorter prompts, each once.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def bench(
    context: click.Context,
    models: tuple[str, ...],
    kernels: tuple[str, ...],
    device: str | None,
    decoding: Decoding,
    models_dirs: tuple[Path, ...],
    quick: bool,
    as_json: bool,
) -> None:
    """Measure models: load, prefill, decoding, time to first token, several sessions, memory.

    MODEL is a path or a name from `quantchat models`. Several models, or several kernels, are compared.
    """
    from quantchat.cli.bench import bench_targets
    from quantchat.services.bench import Target

    with explained():
        chosen = models_named(context, models_dirs, models)
        targets = [
            Target(model=model, kernel=kernel, device=device, decoding=decoding)
            for model in chosen
            for kernel in kernels or (None,)
        ]
        bench_targets(targets, quick=quick, as_json=as_json)


main.add_command(compare)
main.add_command(doctor)
main.add_command(evaluate_command)
main.add_command(models_command)
main.add_command(presets)
main.add_command(prompt)
main.add_command(prompts)
main.add_command(pull)
main.add_command(quantize)
main.add_command(run)
main.add_command(serve)
main.add_command(servers_command)
main.add_command(sessions_command)
