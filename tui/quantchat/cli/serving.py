"""Serving on an ordinary terminal: the command first, the start watched, the screen on top, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from quantchat import paths
from quantchat.cli.servingtold import JsonLines, Lines, Told, print_plan
from quantchat.cli.stoppable import run_stoppable
from quantchat.domain.models import ModelInfo
from quantchat.domain.servers import ServerSpec, server_path
from quantchat.errors import Cancelled, QuantchatError, ServeError, StorageError, UsageError
from quantchat.services.facts import Listener, Notice
from quantchat.services.memory import look_once
from quantchat.services.serving import ports
from quantchat.services.serving.failures import fitting_context
from quantchat.services.serving.plan import KEY_VARIABLE, ServePlan, Wish
from quantchat.services.serving.planning import plan_vllm
from quantchat.services.serving.process import Server
from quantchat.services.serving.programs import find_program
from quantchat.services.serving.small import make_cache, plan_transformers
from quantchat.services.serving.watching import ServerEnded, require_running, wait_for_end, wait_until_ready

SERVER_NAME = "serve"
USUAL_PORT = 8000
"""Of both servers."""
SCREEN_KEY = "QUANTCHAT_SERVE_KEY"
"""Where the screen's engine process finds the key of this run."""
ENDING = "Ending the server …"
STOPPED = Cancelled("Stopped", "The server was ended before it was ready")


class How(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the server.

    Attributes:
        screen: The screen is opened on it.
        models_dirs: Further folders that the screen looks in.
        asked: The user named the backend, and is not asked about another.
    """

    only_print: bool = False
    screen: bool = True
    as_json: bool = False
    asked: bool = False
    models_dirs: tuple[Path, ...] = ()


def make_wish(**said: Any) -> Wish:
    """Return what the command line wants; what it does not name has its default."""
    return Wish(**{name: value for name, value in said.items() if value is not None})


def serve_model(model: ModelInfo, wish: Wish, how: How) -> None:
    """Serve a model until the user has enough of it.

    Raises:
        QuantchatError: if it cannot be served, or the server ends by itself.
    """
    if how.only_print:
        # To be copied and kept, so of those that are free the usual one.
        usual = wish.port or ports.free_port(wish.host, USUAL_PORT)
        wish = msgspec.structs.replace(wish, port=usual)
        print_plan(_plan(model, wish, _program_to_print(wish)), as_json=how.as_json)
        return
    if how.screen and not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError("There is no terminal for the screen", remedy="Add --no-screen to serve without it")
    told: Told = JsonLines() if how.as_json else Lines()
    try:
        wish, program = _with_program(wish, how)
        _serve(model, wish, program, how, told)
    except click.Abort:
        # Ctrl+C or Ctrl+D instead of an answer.
        raise Cancelled("Nothing was started") from None
    except QuantchatError as error:
        told.failed(error)
        raise
    finally:
        told.close()


def _program_to_print(wish: Wish) -> str:
    """A command can be copied to where the program is; that it is not here is said beside it."""
    try:
        return find_program(wish.backend, wish.program)
    except ServeError as error:
        click.echo(f"quantchat: {error}", err=True)
        return wish.backend


def _with_program(wish: Wish, how: How) -> tuple[Wish, str]:
    """Find the server's program; offer the small server where vLLM is not installed."""
    try:
        return wish, find_program(wish.backend, wish.program)
    except ServeError as error:
        if how.asked or error.report.code != "vllm-missing" or not (how.screen and sys.stdin.isatty()):
            raise
        click.echo(f"quantchat: {error}", err=True)
        if not click.confirm("Serve with `transformers serve` now?", err=True):
            raise Cancelled("Nothing was started") from None
    small = msgspec.structs.replace(wish, backend="transformers")
    return small, find_program(small.backend)


def _plan(model: ModelInfo, wish: Wish, program: str) -> ServePlan:
    view = asyncio.run(look_once())
    make = plan_vllm if wish.backend == "vllm" else plan_transformers
    return make(model, view, wish, program)


def _serve(model: ModelInfo, wish: Wish, program: str, how: How, told: Told) -> None:
    plan = _plan(model, wish, program)
    _require_startable(model, plan, wish)
    told.plan(plan)
    if plan.cluster and sys.stdin.isatty():
        click.prompt("Enter starts it, once all machines have joined", default="", show_default=False, err=True)
    key = (os.environ.get(KEY_VARIABLE) or secrets.token_urlsafe(24)) if plan.keyed else ""
    try:
        _run(plan, key, how, told)
    except ServerEnded as ended:
        fitting = None if wish.context else fitting_context(ended.report, ended.lines)
        if fitting is None:
            raise
        told.note(f"There is room for {fitting:,} tokens of context. Starting once more with that.")
        plan = _plan(model, msgspec.structs.replace(wish, context=fitting), program)
        told.plan(plan)
        _run(plan, key, how, told)


def _require_startable(model: ModelInfo, plan: ServePlan, wish: Wish) -> None:
    if wish.port:
        ports.require_free(wish.host, wish.port)
    if plan.backend == "vllm" and model.container == "gguf" and not wish.tokenizer:
        remedy = "Add --tokenizer with the folder or name of the model that it was made from"
        raise UsageError("vLLM wants a tokenizer beside a GGUF file", remedy=remedy)


def _run(plan: ServePlan, key: str, how: How, told: Told) -> None:
    run = _Run(plan, told)
    with _started(plan, key) as server:
        if how.screen:
            run_stoppable(run.until_ready(server), STOPPED)
            told.close()
            _open_screen(plan, key, how.models_dirs, server)
            require_running(server)
            click.echo(ENDING, err=True)
            return
        with _key_file(plan, key) as run.key_file:
            try:
                run_stoppable(run.until_end(server), STOPPED)
            except Cancelled:
                # Ctrl+C is how a server that nobody looks at is ended.
                if not run.ready:
                    raise
                click.echo(ENDING, err=True)


class _Run:
    """One start of a server, and what was told of it."""

    def __init__(self, plan: ServePlan, told: Told) -> None:
        self._plan, self._told = plan, told
        self._begun = time.monotonic()
        self.key_file = ""
        self.ready = False

    async def until_ready(self, server: Server) -> None:
        figures = await wait_until_ready(server, self._plan, self._told.stage)
        self.ready = True
        self._told.ready(self._plan, time.monotonic() - self._begun, figures, self.key_file)

    async def until_end(self, server: Server) -> None:
        await self.until_ready(server)
        await wait_for_end(server)


@contextmanager
def _started(plan: ServePlan, key: str) -> Iterator[Server]:
    if plan.backend == "transformers":
        make_cache()
    server = Server(plan.command, {**plan.environment, **({KEY_VARIABLE: key} if key else {})})
    try:
        yield server
    except KeyboardInterrupt:
        # The first Ctrl+C is taken as a signal; who presses it again does not want to wait.
        server.kill()
        raise
    finally:
        server.stop()


@contextmanager
def _key_file(plan: ServePlan, key: str) -> Iterator[str]:
    """Keep the key where its owner alone can read it, while it is good for something; return where."""
    if not plan.keyed or os.environ.get(KEY_VARIABLE):
        yield f"${KEY_VARIABLE}"
        return
    path = paths.state_file().with_name(f"serve-{plan.port}.key")
    try:
        _write_private(path, key)
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise StorageError("The key cannot be kept", f"{path}: {error.strerror}") from error


def _open_screen(plan: ServePlan, key: str, models_dirs: Sequence[Path], server: Server) -> None:
    """Run the screen; when it has ended well, this returns."""
    from quantchat.cli import open_screen

    if key:
        os.environ[SCREEN_KEY] = key
    spec = ServerSpec(
        url=plan.url, key_env=SCREEN_KEY if key else "", models=(plan.model,), context_window=plan.context
    )
    try:
        open_screen(
            model=server_path(SERVER_NAME, plan.model),
            models_dirs=models_dirs,
            servers={SERVER_NAME: spec},
            beside=partial(_tell_end, server),
        )
    except SystemExit as end:
        if end.code:
            raise


async def _tell_end(server: Server, tell: Listener) -> None:
    """Tell the screen why its server has ended."""
    try:
        await wait_for_end(server)
    except ServerEnded as ended:
        tell(Notice(report=ended.report, dialog=True))
