"""What the worker thread does for each command, with GGUF models."""

from __future__ import annotations

import logging

from quantchat.domain.models import ModelInfo
from quantchat.engine import heap
from quantchat.engine import protocol as p
from quantchat.engine.backends import Emit, IsCancelled
from quantchat.engine.backends.llama import loading, traffic
from quantchat.engine.backends.llama.library import Words
from quantchat.engine.backends.llama.scheduler import Scheduler
from quantchat.engine.backends.turntasks import TurnTasks, hold_model, no_model
from quantchat.engine.host import resident_bytes
from quantchat.engine.inspecting import rendered_prompt
from quantchat.engine.voice import Conversations
from quantchat.errors import ErrorReport, LoadError, QuantchatError, explained
from quantchat.holding import release

logger = logging.getLogger(__name__)

NO_JOB = ErrorReport(
    code="backend",
    title="This cannot be done with a GGUF model",
    detail="It is run by llama.cpp, which chats, and measures no quality, and quantizes nothing in quantchat.",
    remedy="Load a model in a folder (safetensors), or make one of the file: quantchat quantize FILE.gguf",
)


class LlamaTasks(TurnTasks):
    """Holds the loaded file, its running turns and its sessions."""

    def __init__(self, words: Words, emit: Emit) -> None:
        self._words, self._emit = words, emit
        self._loaded: loading.LlamaModel | None = None
        self._model: ModelInfo | None = None
        self._scheduler: Scheduler | None = None
        self._conversations: Conversations | None = None

    def load(self, command: p.Load) -> p.Event:
        """Load a model in place of the one that is there."""
        self._drop()
        try:
            hold_model(command.model.path)
            loaded = self._loaded = loading.load(command, self._words, self._emit)
        except Exception as error:
            logger.exception("the model did not load")
            release()
            heap.trim()
            report = explained(error, LoadError, "The model cannot be loaded")
            return p.LoadFailed(request=command.request, error=report)
        self._model = command.model
        conversations = self._conversations = Conversations(loaded)
        self._scheduler = self._turns = Scheduler(
            loaded, conversations, loaded.cells, loaded.forward, chunk=loaded.layout.chunk, emit=self._emit
        )
        return p.Loaded(request=command.request, report=loaded.report)

    def unload(self, command: p.Unload) -> p.Event:
        """Drop the model and say how much came back."""
        return p.Unloaded(request=command.request, freed=self._drop())

    def _drop(self) -> int:
        release()
        if self._loaded is None:
            return 0
        loaded, before = self._loaded, self._taken()
        loaded.cells.clear()
        if self._scheduler is not None:
            self._scheduler.tell()
        loaded.close()
        self._loaded = self._scheduler = self._turns = self._conversations = None
        heap.trim()
        after = loaded.layout.taken() if loaded.layout.layers else resident_bytes()
        return max(0, before - after)

    def _taken(self) -> int:
        """Bytes on the GPUs that have layers, else in host memory."""
        layout = self._loaded.layout if self._loaded else None
        return layout.taken() if layout and layout.layers else resident_bytes()

    # Turns

    def forget(self, session: str) -> None:
        """Drop what is kept of a session."""
        if self._loaded is not None and self._scheduler is not None and self._conversations is not None:
            self._conversations.forget(session)
            self._loaded.cells.forget(session)
            self._scheduler.tell()

    def count(self, command: p.CountTokens) -> p.Event:
        """Count the tokens of a prompt as it would be sent."""
        loaded, conversations = self._served()
        fitted = conversations.fit(command.session, command.messages, command.reserve, template=command.template)
        return p.TokenCount(
            request=command.request,
            tokens=len(fitted.prompt.ids),
            window=loaded.window,
            dropped=fitted.dropped,
            reserve=fitted.reserve,
        )

    def render(self, command: p.RenderPrompt) -> p.Event:
        """Show the exact prompt."""
        loaded, conversations = self._served()
        fitted = conversations.fit(command.session, command.messages, command.reserve, template=command.template)
        tokenizer = loaded.tokenizer
        return rendered_prompt(command, fitted, tokenizer, loaded.window, tokenizer.vocabulary())

    def _served(self) -> tuple[loading.LlamaModel, Conversations]:
        if self._loaded is None or self._conversations is None:
            raise no_model()
        return self._loaded, self._conversations

    def run_job(self, command: p.Job, cancelled: IsCancelled) -> p.Event:
        """Measure the memory; no other job runs on llama.cpp."""
        if not isinstance(command, p.MeasureBandwidth) or self._model is None or self._loaded is None:
            return p.JobFailed(job=command.job, error=NO_JOB)

        def progress(done: int, total: int) -> None:
            self._emit(p.JobProgress(job=command.job, stage="measuring memory", done=done, total=total))

        try:
            found = traffic.figures(self._model, self._loaded.device, progress, cancelled)
        except QuantchatError as error:
            return p.JobFailed(job=command.job, error=error.report)
        return p.JobFinished(job=command.job, figures=found)

    def memory(self) -> p.Memory:
        """What is held now."""
        return p.Memory(resident=resident_bytes(), device=self._loaded.layout.taken() if self._loaded else 0)
