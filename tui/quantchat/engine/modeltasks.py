"""What the worker thread does for each command with a model that torch computes, however it is loaded."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

import torch

from quantchat.engine import memory, traffic
from quantchat.engine import protocol as p
from quantchat.engine.backends import Emit as Emit
from quantchat.engine.backends import IsCancelled as IsCancelled
from quantchat.engine.backends.turntasks import TurnTasks, hold_model, no_model
from quantchat.engine.failures import KernelFailed
from quantchat.engine.inspecting import rendered_prompt
from quantchat.engine.loaded import LoadedModel
from quantchat.engine.scheduler import Scheduler
from quantchat.engine.sessions import SessionStates
from quantchat.engine.warm import default_budgets
from quantchat.errors import Cancelled, JobError, LoadError, explained
from quantchat.holding import release

logger = logging.getLogger(__name__)


def devices() -> tuple[str, ...]:
    """Devices that torch sees, best first."""
    return (*(f"cuda:{index}" for index in range(torch.cuda.device_count())), "cpu")


class ModelTasks(TurnTasks, ABC):
    """Holds the loaded model, its running turns and its sessions; does the work, one call at a time."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._loaded: LoadedModel | None = None
        self._states: SessionStates | None = None

    @abstractmethod
    def _open(self, command: p.Load) -> LoadedModel:
        """Load a model and warm it up; nothing is held meanwhile.

        Raises:
            QuantchatError: if it cannot be loaded.
        """

    @abstractmethod
    def _schedule(self, loaded: LoadedModel, states: SessionStates, command: p.Load) -> tuple[Scheduler, p.LoadReport]:
        """Return what runs the turns, and the report of the load."""

    def load(self, command: p.Load) -> p.Event:
        """Load a model in place of the one that is there."""
        self._drop()
        following = failed = None
        try:
            hold_model(command.model.path)
            self._loaded = self._open(command)
        except Exception as error:
            logger.exception("the model did not load")
            if isinstance(error, KernelFailed):
                following, failed = error.next_kernel, error.failed
            report = explained(error, LoadError, "The model cannot be loaded")
        else:
            return p.Loaded(request=command.request, report=self._serve(self._loaded, command))
        release()
        memory.give_back()
        return p.LoadFailed(request=command.request, error=report, next_kernel=following, failed=failed)

    def _serve(self, loaded: LoadedModel, command: p.Load) -> p.LoadReport:
        host = self._host_budget(loaded, command)
        self._states = SessionStates(loaded, loaded.report.kv_budget, host, self._emit)
        self._turns, report = self._schedule(loaded, self._states, command)
        return report

    def _host_budget(self, loaded: LoadedModel, command: p.Load) -> int:
        """Bytes of caches that may wait in host memory."""
        return default_budgets(loaded.device)[1] if command.host_kv_budget is None else command.host_kv_budget

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
        self._let_go()
        self._loaded = self._turns = self._states = None
        memory.give_back()
        return max(0, before - held())

    @abstractmethod
    def _let_go(self) -> None:
        """Give up what was made of the model besides its sessions."""

    # Turns

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
        fitted = self._sessions().fit(command.session, command.messages, command.reserve, template=command.template)
        assert self._loaded is not None
        return rendered_prompt(command, fitted, self._loaded.tokenizer, self._loaded.window)

    def _sessions(self) -> SessionStates:
        if self._states is None:
            raise no_model()
        return self._states

    def run_job(self, command: p.Job, cancelled: IsCancelled) -> p.Event:
        """Do a job and return its last event."""
        try:
            output, figures = self._do(command, cancelled)
        except Exception as error:
            if not isinstance(error, Cancelled):
                logger.exception("the job failed")
            report = explained(error, JobError, "The job failed")
        else:
            return p.JobFinished(job=command.job, output=output, figures=figures)
        memory.give_back()
        return p.JobFailed(job=command.job, error=report)

    def _do(self, command: p.Job, cancelled: IsCancelled) -> tuple[str, dict[str, float]]:
        """Do a job that measures the loaded model; return its output and its figures."""
        if isinstance(command, p.Evaluate):
            return "", self._evaluate(command, cancelled)

        def progress(stage: str, done: int, total: int) -> None:
            self._emit(p.JobProgress(job=command.job, stage=stage, done=done, total=total))

        return "", traffic.figures(self._loaded, progress, cancelled)

    def _evaluate(self, command: p.Evaluate, cancelled: IsCancelled) -> dict[str, float]:
        from quantchat.quantize import quality
        from quantchat.quantize.watch import Watch

        watch = Watch(self._emit, cancelled, command.job)
        figures = quality.evaluate(self._loaded, command, watch)
        watch.finish()
        return figures

    def memory(self) -> p.Memory:
        """What is held now."""
        return p.Memory(resident=memory.resident_bytes(), device=memory.cuda_bytes())
