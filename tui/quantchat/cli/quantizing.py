"""A quantization on an ordinary terminal: what it takes, its progress, what came of it; or JSON for a program."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from quantchat.cli.pulling import Options, pull_model
from quantchat.cli.quantizeshow import JsonLines, Lines, Shown
from quantchat.cli.stoppable import run_stoppable
from quantchat.domain.models import ModelInfo
from quantchat.errors import Cancelled, QuantchatError
from quantchat.services.pull.names import Wanted
from quantchat.services.quantizing.job import QuantizeJob, stopped
from quantchat.services.quantizing.plan import Outcome, Plan, Preflight
from quantchat.services.quantizing.preflight import examine
from quantchat.services.quantizing.sources import find_source, find_subject

BUNDLED, SESSIONS = "bundled", "sessions"


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """The models of this machine, and the folders where they are looked for."""

    models: tuple[ModelInfo, ...] = ()
    roots: tuple[Path, ...] = ()


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line said besides the plan."""

    dry_run: bool = False
    verbose: bool = False
    yes: bool = False
    as_json: bool = False


def run(plan: Plan, calibration: str, here: Here, command: Command) -> None:
    """Make a quantized model, after saying what that takes.

    Raises:
        QuantchatError: if it cannot be made, or was stopped; nothing half made is left.
    """
    show: Shown = JsonLines() if command.as_json else Lines(verbose=command.verbose)
    try:
        fetched = _with_source(with_text(plan, calibration), here, command)
        if fetched is None:
            return
        plan, here = fetched
        preflight = run_stoppable(_examined(plan, here), Cancelled("Stopped"))
        show.preflight(preflight)
        if (refusal := preflight.refusal()) is not None:
            raise refusal
        if not command.dry_run:
            show.done(run_stoppable(_made(preflight, show), stopped()))
    except _Told as told:
        raise told.error from None
    except QuantchatError as error:
        show.failed(error)
        raise


class _Told(Exception):
    """A download that failed, which its own words have told already."""

    def __init__(self, error: QuantchatError) -> None:
        super().__init__(error)
        self.error = error


def with_text(plan: Plan, calibration: str) -> Plan:
    """Fill in the calibration text: `bundled`, `sessions`, `sessions:WHICH`, or a file.

    Raises:
        UsageError: if the sessions are not understood.
    """
    if calibration == BUNDLED:
        return plan
    word, _, which = calibration.partition(":")
    if word == SESSIONS:
        from quantchat.services.picking import read_pick

        return msgspec.structs.replace(plan, sessions=read_pick(which))
    path = str(Path(calibration).expanduser().absolute())
    return msgspec.structs.replace(plan, calibration=msgspec.structs.replace(plan.calibration, path=path))


def _with_source(plan: Plan, here: Here, command: Command) -> tuple[Plan, Here] | None:
    """Find the source, or fetch it, and likewise the base of an adapter; None after a dry run of a download."""
    found = find_source(plan.source, here.models)
    if isinstance(found, Wanted):
        model = _fetched(found, command)
        if model is None:
            return None
        found, here = model, _with(here, model)
    plan = msgspec.structs.replace(plan, source=found.path)
    wanted = find_subject(plan, here.models).wanted
    if wanted is None:
        return plan, _with(here, found)
    base = _fetched(wanted, command)
    if base is None:
        return None
    return msgspec.structs.replace(plan, source=base.path, adapter=found.path), _with(here, base)


def _with(here: Here, model: ModelInfo) -> Here:
    """A model that was just fetched, or lies outside of all roots, has its name only here."""
    return msgspec.structs.replace(here, models=(model, *here.models))


def _fetched(wanted: Wanted, command: Command) -> ModelInfo | None:
    from quantchat.catalog.reader import read_model

    options = Options(yes=command.yes, dry_run=command.dry_run, as_json=command.as_json)
    try:
        folder = pull_model(str(wanted), options)
    except QuantchatError as error:
        raise _Told(error) from error
    return read_model(Path(folder), name=wanted.repository) if folder else None


async def _examined(plan: Plan, here: Here) -> Preflight:
    from quantchat.services.memory import look_once

    return await examine(plan, await look_once(), here.models, here.roots)


async def _made(preflight: Preflight, show: Shown) -> Outcome:
    job = QuantizeJob(preflight, show.changed)
    try:
        return await job.run()
    except asyncio.CancelledError:
        if job.state.ended == "done" and job.state.outcome is not None:
            show.done(job.state.outcome)
            raise Cancelled("Stopped after the model was made", f"It is whole: {preflight.output}") from None
        raise
    finally:
        show.close()
