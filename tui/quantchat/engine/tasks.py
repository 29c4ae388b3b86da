"""What the worker thread does for each command. Imports torch; loaded by the worker, late."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import torch

from quantchat.engine import graphs, loader, memory, traffic
from quantchat.engine import protocol as p
from quantchat.engine.scheduler import Scheduler
from quantchat.engine.sessions import SessionStates
from quantchat.engine.warm import default_budgets
from quantchat.errors import Cancelled, GenerationError, JobError, LoadError, explained
from quantchat.holding import hold, release

IsCancelled = Callable[[], bool]
Emit = Callable[[p.Event], None]
logger = logging.getLogger(__name__)


CAPTURING = "capturing the decode step"


def devices() -> tuple[str, ...]:
    """Devices that torch sees, best first."""
    return (*(f"cuda:{index}" for index in range(torch.cuda.device_count())), "cpu")


class Tasks:
    """Holds the loaded model, its running turns and its sessions; does the work, one call at a time."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._loaded: loader.LoadedModel | None = None
        self._scheduler: Scheduler | None = None
        self._states: SessionStates | None = None
        self._decoder: graphs.GraphDecoder | None = None

    def load(self, command: p.Load) -> p.Event:
        """Load a model in place of the one that is there."""
        self._drop()
        following = failed = None
        try:
            _hold(command.model.path)
            self._loaded = loader.load(command, self._emit)
        except Exception as error:
            logger.exception("the model did not load")
            if isinstance(error, loader.KernelFailed):
                following, failed = error.next_kernel, error.failed
            report = explained(error, LoadError, "The model cannot be loaded")
        else:
            return p.Loaded(request=command.request, report=self._serve(self._loaded, command))
        release()
        memory.give_back()
        return p.LoadFailed(request=command.request, error=report, next_kernel=following, failed=failed)

    def _serve(self, loaded: loader.LoadedModel, command: p.Load) -> p.LoadReport:
        host = default_budgets(loaded.device)[1] if command.host_kv_budget is None else command.host_kv_budget
        self._states = SessionStates(loaded, loaded.report.kv_budget, host, self._emit)
        self._decoder, report = None, loaded.report
        if command.decoding == "auto" and loaded.decoding == "eager":
            if loaded.device.startswith("cuda"):
                self._emit(p.LoadProgress(request=command.request, stage=CAPTURING))
            path = graphs.create(loaded.model, loaded.window, report.kernel)
            if isinstance(path, graphs.GraphDecoder):
                held = memory.device_bytes(loaded.device)
                self._decoder = path
                report = msgspec.structs.replace(report, decoding="graph", device_bytes=held)
            elif loaded.device.startswith("cuda"):
                report = msgspec.structs.replace(report, decoding_reason=path.reason)
        self._scheduler = Scheduler(loaded, self._states, self._emit, self._decoder)
        return report

    def unload(self, command: p.Unload) -> p.Event:
        """Drop the model and say how much came back."""
        return p.Unloaded(request=command.request, freed=self._drop())

    def _drop(self) -> int:
        release()
        if self._loaded is None:
            return 0
        on_gpu = self._loaded.device.startswith("cuda")
        held = memory.cuda_bytes if on_gpu else memory.resident_bytes
        before = held()
        if self._states is not None:
            self._states.clear()
        if self._decoder is not None:
            self._decoder.release()
            self._decoder = None
        self._loaded = self._scheduler = self._states = None
        memory.give_back()
        return max(0, before - held())

    # Turns

    @property
    def running(self) -> bool:
        """Whether any turn is under way."""
        return self._scheduler is not None and self._scheduler.running

    def start(self, command: p.Generate, cancelled: IsCancelled) -> None:
        """Begin a turn.

        Raises:
            GenerationError: if no model is loaded.
        """
        if self._scheduler is None:
            raise _no_model()
        self._scheduler.start(command, cancelled)

    def step(self) -> list[p.Finished | p.Failed]:
        """Give every running turn a step; return the last events of those that ended."""
        return self._scheduler.step() if self._scheduler is not None else []

    def abandon(self) -> list[str]:
        """Drop all turns and return their names: a step failed in a way that no turn can be blamed for."""
        return self._scheduler.abandon() if self._scheduler is not None else []

    def forget(self, session: str) -> None:
        """Drop what is kept of a session."""
        if self._states is not None:
            self._states.forget(session)

    def count(self, command: p.CountTokens) -> p.Event:
        """Count the tokens of a prompt as it would be sent."""
        fitted = self._sessions().fit(command.session, command.messages, command.reserve, template=command.template)
        return p.TokenCount(
            request=command.request,
            tokens=len(fitted.prompt.ids),
            window=self._loaded.window if self._loaded else 0,
            dropped=fitted.dropped,
            reserve=fitted.reserve,
        )

    def render(self, command: p.RenderPrompt) -> p.Event:
        """Show the exact prompt."""
        rendered = self._sessions().fit("", command.messages, 0, template=command.template).prompt
        return p.RenderedPrompt(request=command.request, text=rendered.text, tokens=len(rendered.ids))

    def _sessions(self) -> SessionStates:
        if self._states is None:
            raise _no_model()
        return self._states

    def run_job(
        self, command: p.Dequantize | p.Quantize | p.Evaluate | p.MeasureBandwidth, cancelled: IsCancelled
    ) -> p.Event:
        """Do a job and return its last event."""
        from quantchat.quantize import jobs

        def progress(stage: str, done: int, total: int) -> None:
            self._emit(p.JobProgress(job=command.job, stage=stage, done=done, total=total))

        try:
            if isinstance(command, p.MeasureBandwidth):
                output, figures = "", traffic.figures(self._loaded, progress, cancelled)
            else:
                output, figures = jobs.run(command, progress, cancelled)
        except Exception as error:
            if not isinstance(error, Cancelled):
                logger.exception("the job failed")
            report = explained(error, JobError, "The job failed")
        else:
            return p.JobFinished(job=command.job, output=output, figures=figures)
        memory.give_back()
        return p.JobFailed(job=command.job, error=report)

    def memory(self) -> p.Memory:
        """What is held now."""
        return p.Memory(resident=memory.resident_bytes(), device=memory.cuda_bytes())


def _hold(path: str) -> None:
    if not hold(path):
        detail = f"Another process has {path} to itself."
        raise LoadError("The model is being deleted", detail, "Choose another model.", code="in-removal")


def _no_model() -> GenerationError:
    return GenerationError("No model is loaded", "", "Load a model and send again.", code="no-model")
