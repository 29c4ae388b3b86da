"""Puts a `quantchat run` together: the history, the sampling, where questions come from and where answers go."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from quantchat.cli.descriptors import STDIN, STDOUT, open_missing
from quantchat.cli.lines import (
    EditedLines,
    GivenQuestions,
    Questions,
    Recall,
    StreamLines,
    TypedQuestions,
    edits,
    read_all,
)
from quantchat.cli.outlet import Outlet
from quantchat.cli.replies import JsonLines, Plain, Show, tell
from quantchat.cli.running import LineRun, Parts
from quantchat.cli.signals import Signals
from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.models import ModelInfo
from quantchat.domain.presets import find_preset
from quantchat.domain.text import plain
from quantchat.services.chattemplate import read_template
from quantchat.services.headless import Headless, require_loadable
from quantchat.services.history import History, HistoryFile, read_history
from quantchat.services.linechat import LineChat
from quantchat.services.loads import options_of
from quantchat.services.presets import Presets
from quantchat.store.settings import Settings, load_settings


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says.

    Attributes:
        system: None leaves it to the history, and for a new one to the settings.
        source: The history to go on with, and `target`, where it is saved; the same file for both.
        may_be_new: The source need not be there.
    """

    prompts: tuple[str, ...] = ()
    system: str | None = None
    source: Path | None = None
    target: Path | None = None
    may_be_new: bool = False
    as_json: bool = False
    thinking: bool = False
    verbose: bool = False
    preset: str | None = None
    sampling: SamplingOverrides = SamplingOverrides()
    template: Path | None = None
    kernel: str | None = None
    device: str | None = None


def execute(wish: Wish, find: Callable[[Settings], ModelInfo]) -> int:
    """Chat, and return the exit status.

    Raises:
        QuantchatError: what is found wrong before anything is loaded.
    """
    open_missing()
    settings, problems = load_settings()
    for problem in problems:
        tell(f"quantchat: {problem.sentence()}")
    layers = _layers(wish, settings)
    history, file = _history(wish, settings)
    model = find(settings)
    require_loadable(model)
    template = read_template(str(wish.template), model.path) if wish.template else ""
    with asyncio.Runner() as runner:
        engine = Headless(options=options_of(settings, kernel=wish.kernel, device=wish.device))
        chat = LineChat(engine, model, history, layers=layers, template=template)
        return _run(wish, engine, chat, file, runner)


def _layers(wish: Wish, settings: Settings) -> tuple[SamplingOverrides, ...]:
    presets = Presets(settings.presets).known()
    preset = presets[find_preset(presets, wish.preset)] if wish.preset else SamplingOverrides()
    return wish.sampling, preset, settings.sampling


def _history(wish: Wish, settings: Settings) -> tuple[History, HistoryFile | None]:
    """Read what is gone on with, and look at where it is going to be saved."""
    file = HistoryFile(wish.target) if wish.target is not None else None
    if file is not None and wish.source is not None and _same(file.path, wish.source, wish.may_be_new):
        history = file.read()
    else:
        history = read_history(wish.source) if wish.source is not None else History()
        history = file.new(history) if file is not None else history
    if wish.system is not None:
        history.set_system(plain(wish.system))
    elif not history.messages:
        history.set_system(settings.system_prompt)
    return history, file


def _same(target: Path, source: Path, may_be_new: bool) -> bool:
    """Whether both are one file; a source that must be there is read as such, and missed if it is not."""
    return may_be_new or (source.exists() and os.path.realpath(source) == os.path.realpath(target))


def _run(wish: Wish, engine: Headless, chat: LineChat, file: HistoryFile | None, runner: asyncio.Runner) -> int:
    term = os.environ.get("TERM", "")
    typed = not wish.prompts and not wish.as_json and sys.stdin.isatty()
    lines = EditedLines() if typed and edits(term) else None
    outlet = Outlet(STDOUT, lambda error: line_run.on_broken(error))
    show: Show = (
        JsonLines(outlet) if wish.as_json else Plain(outlet, typed=typed, thinking=wish.thinking, verbose=wish.verbose)
    )
    parts = Parts(
        engine=engine,
        chat=chat,
        questions=_questions(wish, lines),
        show=show,
        outlet=outlet,
        signals=Signals(runner.get_loop()),
        file=file,
        lines=lines,
        remember=Recall(lines).add if lines is not None else lambda _question: None,
        typed=typed,
        answer_first=not wish.prompts,
    )
    line_run = LineRun(parts, runner)
    return line_run.go()


def _questions(wish: Wish, lines: EditedLines | None) -> Questions:
    if wish.prompts:
        return GivenQuestions(wish.prompts, read_all)
    if lines is not None:
        return TypedQuestions(lines)
    # Prompts are no part of answers that are piped elsewhere.
    show = sys.stdout if sys.stdout.isatty() and not wish.as_json else sys.stderr
    return TypedQuestions(StreamLines(STDIN, show if sys.stdin.isatty() else None))
