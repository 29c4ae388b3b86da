"""What the worker thread does for each command. Imports torch; loaded by the worker, late."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from quantchat.domain.chat import ChatMessage
from quantchat.engine import loader, memory, prompt, stream
from quantchat.engine import protocol as p
from quantchat.errors import Cancelled, ErrorReport, GenerationError, JobError, LoadError, QuantchatError

IsCancelled = Callable[[], bool]
Emit = Callable[[p.Event], None]
logger = logging.getLogger(__name__)

NO_MODEL = ("No model is loaded", "", "Load a model and send again.")


def devices() -> tuple[str, ...]:
    """Devices that torch sees, best first."""
    return (*(f"cuda:{index}" for index in range(torch.cuda.device_count())), "cpu")


class Tasks:
    """Holds the loaded model and does the work, one call at a time."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._loaded: loader.LoadedModel | None = None

    def load(self, command: p.Load) -> p.Event:
        """Load a model in place of the one that is there."""
        self._drop()

        def progress(stage: str, done: int, total: int, unit: str) -> None:
            self._emit(p.LoadProgress(request=command.request, stage=stage, done=done, total=total, unit=unit))

        try:
            self._loaded = loader.load(command.model, command.device, command.kernel, progress)
        except Exception as error:
            logger.exception("the model did not load")
            following = error.next_kernel if isinstance(error, loader.KernelFailed) else None
            report = explained(error, LoadError, "The model cannot be loaded")
        else:
            return p.Loaded(request=command.request, report=self._loaded.report)
        memory.give_back()
        return p.LoadFailed(request=command.request, error=report, next_kernel=following)

    def unload(self, command: p.Unload) -> p.Event:
        """Drop the model and say how much came back."""
        return p.Unloaded(request=command.request, freed=self._drop())

    def _drop(self) -> int:
        if self._loaded is None:
            return 0
        on_gpu = self._loaded.device.startswith("cuda")
        held = memory.cuda_bytes if on_gpu else memory.resident_bytes
        before = held()
        self._loaded = None
        memory.give_back()
        return max(0, before - held())

    def generate(self, command: p.Generate, cancelled: IsCancelled) -> p.Event:
        """Answer, and return the turn's last event."""
        try:
            return stream.generate_turn(self._model(), command, cancelled, self._emit)
        except Exception as error:
            if not isinstance(error, QuantchatError):
                logger.exception("the turn failed")
            report = self._generation_report(error)
        memory.give_back()
        return p.Failed(turn=command.turn, error=report)

    def _generation_report(self, error: Exception) -> ErrorReport:
        if memory.is_out_of_memory(error) and self._loaded is not None:
            return memory.out_of_memory(self._loaded.device, GenerationError).report
        return explained(error, GenerationError, "The answer failed")

    def count(self, command: p.CountTokens) -> p.Event:
        """Count the tokens of a prompt."""
        model = self._model()
        tokens = len(prompt.render(model.tokenizer, command.messages).ids)
        return p.TokenCount(request=command.request, tokens=tokens, window=model.window)

    def render(self, command: p.RenderPrompt) -> p.Event:
        """Show the exact prompt."""
        messages: list[ChatMessage] = command.messages
        rendered = prompt.render(self._model().tokenizer, messages)
        return p.RenderedPrompt(request=command.request, text=rendered.text, tokens=len(rendered.ids))

    def run_job(self, command: p.Dequantize | p.Quantize | p.Evaluate, cancelled: IsCancelled) -> p.Event:
        """Do a job and return its last event."""
        from quantchat.quantize import jobs

        def progress(stage: str, done: int, total: int) -> None:
            self._emit(p.JobProgress(job=command.job, stage=stage, done=done, total=total))

        try:
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

    def _model(self) -> loader.LoadedModel:
        if self._loaded is None:
            raise GenerationError(*NO_MODEL, code="no-model")
        return self._loaded


def explained(error: BaseException, kind: type[QuantchatError], title: str) -> ErrorReport:
    """Report an exception; foreign ones under the given kind."""
    if isinstance(error, QuantchatError):
        return error.report
    return kind(title, f"{type(error).__name__}: {str(error)[:500]}", "The log has the details.").report
