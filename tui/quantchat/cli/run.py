"""`quantchat run`: its options; the chat itself is in `running`, which `--help` does without."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from quantchat.cli.common import FOLDER, explained, models_named
from quantchat.cli.kernels import known_kernel
from quantchat.domain.sampling import MEANINGS, read_value
from quantchat.domain.text import plain
from quantchat.errors import Cancelled

if TYPE_CHECKING:
    from quantchat.cli.linerun import Wish
    from quantchat.domain.generation import SamplingOverrides
    from quantchat.domain.models import ModelInfo
    from quantchat.store.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)
SPELLINGS = {"max_new_tokens": ("--max-tokens", "--max-new-tokens")}
"""Options of settings that are called otherwise on other programs' command lines."""


def sampling_options(command: F) -> F:
    """Give a command an option for each sampling setting."""
    for name, meaning in reversed(list(MEANINGS.items())):
        spelt = SPELLINGS.get(name, (f"--{name.replace('_', '-')}",))
        command = click.option(*spelt, name, metavar="VALUE", multiple=name == "stop", help=f"{meaning}.")(command)
    return command


@click.command()
@click.argument("model")
@click.option("-p", "--prompt", "prompts", metavar="TEXT", multiple=True, help="Ask this; - asks standard input.")
@click.option("--system", metavar="TEXT", help="The system prompt, in place of that of the history or the settings.")
@click.option("-i", "--input", "source", type=FILE, metavar="FILE", help="Go on with this history; - is stdin.")
@click.option("-o", "--output", "target", type=FILE, metavar="FILE", help="Save the history here.")
@click.option("-io", "both", type=FILE, metavar="FILE", help="Both; a file that is not there begins empty.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
@click.option("--thinking", is_flag=True, help="Show what the model thinks, on standard error.")
@click.option("-v", "--verbose", is_flag=True, help="Say what each answer cost, on standard error.")
@click.option("--preset", metavar="NAME", help="Sample with this preset.")
@sampling_options
@click.option("--template", type=FILE, metavar="FILE", help="A Jinja chat template in place of the model's own.")
@click.option("--kernel", metavar="NAME", callback=known_kernel, help="Load with this kernel, such as marlin.")
@click.option("--device", metavar="NAME", help="Load on this device, such as cpu or cuda:1.")
@click.option("--models-dir", "models_dirs", type=FOLDER, multiple=True, help="Scan this folder too; may be repeated.")
@click.pass_context
def run(context: click.Context, /, model: str, models_dirs: tuple[Path, ...], **options: Any) -> None:
    """Chat in lines, without a screen: in scripts, in pipes, on dumb terminals.

    MODEL is a path or a name from `quantchat models`. Each line of standard input is a question, unless -p asks one;
    a backslash at its end goes on with the next line, and triple quotes hold several. Answers stream to standard
    output, everything else to standard error. exit, quit, bye or the end of the input leaves.

    Exit status: 0; 2 wrong usage; 3 a history that cannot be read or saved; 4 no such model; 5 it did not load or
    answer; 128 and its number for a signal, such as 130 for Ctrl+C.
    """
    with explained():
        try:
            wish = _wish(**options)
            from quantchat.cli.linerun import execute

            sys.exit(execute(wish, lambda settings: meant_model(context, model, models_dirs, settings)))
        except KeyboardInterrupt:
            # Nothing was begun yet; later ones, which end answers, say nothing either.
            sys.exit(Cancelled.exit_code)


def _wish(
    *,
    prompts: tuple[str, ...],
    system: str | None,
    source: Path | None,
    target: Path | None,
    both: Path | None,
    as_json: bool,
    thinking: bool,
    verbose: bool,
    preset: str | None,
    template: Path | None,
    kernel: str | None,
    device: str | None,
    **sampling: str | Sequence[str] | None,
) -> Wish:
    from quantchat.cli.linerun import Wish

    if both is not None and (source or target):
        raise click.UsageError("-io names the file for both -i and -o.")
    if "-" in (str(target), str(both)):
        raise click.UsageError("-o takes a file: the answers go to standard output.")
    if str(source) == "-" and "-" in prompts:
        raise click.UsageError("-i - and -p - both want standard input.")
    if any(not plain(text).strip() for text in prompts):
        raise click.UsageError("-p asks nothing: its text is empty.")
    return Wish(
        prompts=prompts,
        system=system,
        source=both or source,
        target=both or target,
        may_be_new=both is not None,
        as_json=as_json,
        thinking=thinking,
        verbose=verbose,
        preset=preset,
        sampling=_overrides(sampling),
        template=template,
        kernel=kernel,
        device=device,
    )


def _overrides(given: dict[str, str | Sequence[str] | None]) -> SamplingOverrides:
    """Read the values that were given.

    Raises:
        UsageError: if one is not allowed.
    """
    from quantchat.domain.generation import SamplingOverrides

    values = {name: read_value(name, text) for name, text in given.items() if isinstance(text, str)}
    if stop := given.get("stop"):
        values["stop"] = tuple(stop)
    return SamplingOverrides(**values)


def meant_model(context: click.Context, name: str, models_dirs: Sequence[Path], settings: Settings) -> ModelInfo:
    """Find the model that is meant.

    Raises:
        ModelError: if there is none.
        UsageError: if its server is not known.
    """
    from quantchat.domain.servers import PREFIX
    from quantchat.errors import UsageError
    from quantchat.services.servers import assumed_model

    if not name.startswith(PREFIX):
        return models_named(context, models_dirs, [name])[0]
    model = assumed_model(name, settings.servers)
    if model is None:
        known = ", ".join(settings.servers) or "none"
        raise UsageError(f"{name} is no model of a server", f"the settings have these: {known}", f"{PREFIX}NAME/MODEL")
    return model
