"""`quantchat prompt`: what a model is asked with, to the last token."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantchat.cli.common import FOLDER, explained, json_option
from quantchat.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from quantchat.domain.chat import ChatMessage
    from quantchat.services.inspecting import Inspected

FILE = click.Path(path_type=Path)
STOPPED = Cancelled("Stopped")
WIDTH = 120


@click.command("prompt")
@click.argument("model")
@click.option("-p", "--prompt", "question", metavar="TEXT", help="The last question.")
@click.option("-i", "--input", "source", type=FILE, metavar="FILE", help="A history as of quantchat run; - is stdin.")
@click.option("--system", metavar="TEXT", help="The system prompt, in place of that of the history or the settings.")
@click.option("--template", type=FILE, metavar="FILE", help="A Jinja chat template in place of the model's own.")
@click.option("--reserve", type=click.IntRange(0, 2**31), default=0, help="Tokens that are kept free for the reply.")
@click.option("--text", "only_text", is_flag=True, help="Print the prompt alone; into a pipe, exactly.")
@click.option("--models-dir", "models_dirs", type=FOLDER, multiple=True, help="Scan this folder too; may be repeated.")
@json_option
@click.pass_context
def prompt(
    context: click.Context,
    model: str,
    question: str | None,
    source: Path | None,
    system: str | None,
    template: Path | None,
    reserve: int,
    only_text: bool,
    models_dirs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Show the exact prompt that a model gets: tokens per message, special tokens, and what is wrong with it.

    MODEL is a path or a name from `quantchat models`; only its tokenizer is read. Warnings do not change the exit
    status.
    """
    from quantchat.cli.run import meant_model
    from quantchat.cli.stoppable import run_stoppable
    from quantchat.services.chattemplate import read_template
    from quantchat.services.loads import options_of
    from quantchat.services.prompting import inspect_messages
    from quantchat.store.settings import load_settings

    with explained():
        settings, _ = load_settings()
        messages = _messages(source, question, settings.system_prompt if system is None else system, given=system)
        found = meant_model(context, model, models_dirs, settings)
        own = read_template(str(template), found.path) if template else ""
        work = inspect_messages(found, messages, options_of(settings), template=own, reserve=reserve)
        _print(run_stoppable(work, STOPPED), as_json=as_json, only_text=only_text)


def _messages(source: Path | None, question: str | None, system: str, *, given: str | None) -> Sequence[ChatMessage]:
    """Put the conversation together, as `quantchat run` does.

    Raises:
        UsageError: if there is none.
        StorageError: if the history cannot be read.
    """
    from quantchat.domain.text import plain
    from quantchat.services.history import History, read_history

    if source is None and question is None:
        raise UsageError("There is nothing to ask", remedy="Ask something with -p, or name a history with -i")
    history = read_history(source) if source is not None else History()
    if given is not None or not history.messages:
        history.set_system(plain(system))
    if question is not None:
        history.add("user", plain(question))
    if not history.messages:
        raise UsageError("There is nothing to ask", f"{source} holds no messages", "Ask something with -p")
    return history.messages


def _print(inspected: Inspected, *, as_json: bool, only_text: bool) -> None:
    from quantchat.domain.text import clean, spelled, without_surrogates

    text = inspected.prompt.text
    if as_json:
        click.echo(_json(inspected))
    elif only_text and sys.stdout.isatty():
        click.echo(clean(spelled(text)))
    elif only_text:
        sys.stdout.buffer.write(without_surrogates(text).encode())
    else:
        click.echo(inspected.report(min(WIDTH, shutil.get_terminal_size().columns)))


def _json(inspected: Inspected) -> bytes:
    import msgspec

    prompt = inspected.prompt
    whole = {
        "model": inspected.model,
        "tokens": prompt.tokens,
        "window": prompt.window,
        "warnings": prompt.warnings,
        "messages": inspected.parts(),
        "pieces": [
            {"text": piece.text, "tokens": piece.tokens, "special": piece.special, "message": piece.message}
            for piece in prompt.pieces
        ],
        "text": prompt.text,
    }
    return msgspec.json.encode(whole)
