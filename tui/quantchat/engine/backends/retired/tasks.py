"""What the worker thread does for each command in another interpreter. Imports its torch and transformers."""

from __future__ import annotations

import quantchat.engine.protocol as p
from quantchat.engine.backends.retired import loading
from quantchat.engine.loaded import LoadedModel
from quantchat.engine.modeltasks import IsCancelled, ModelTasks
from quantchat.engine.modeltasks import devices as devices
from quantchat.engine.scheduler import Scheduler
from quantchat.engine.sessions import SessionStates
from quantchat.errors import JobError


class RetiredTasks(ModelTasks):
    """Models that auto-gptq, autoawq or an older transformers load."""

    def _open(self, command: p.Load) -> LoadedModel:
        return loading.load(command, self._emit)

    def _schedule(self, loaded: LoadedModel, states: SessionStates, command: p.Load) -> tuple[Scheduler, p.LoadReport]:
        return Scheduler(loaded, states, self._emit, batching=False), loaded.report

    def _host_budget(self, loaded: LoadedModel, command: p.Load) -> int:
        # The caches of transformers 4 stay where they were computed.
        return 0

    def _let_go(self) -> None:
        """There is nothing besides the sessions."""

    def _do(self, command: p.Job, cancelled: IsCancelled) -> tuple[str, dict[str, float]]:
        if isinstance(command, p.MeasureBandwidth | p.Evaluate):
            return super()._do(command, cancelled)
        raise JobError(
            "This job does not run in another interpreter",
            "The libraries of that interpreter can neither quantize nor convert a model for it.",
            "Start it without a loaded model: it then runs in quantchat's own interpreter.",
        )
