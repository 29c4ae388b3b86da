"""What the worker thread does for each command. Imports torch and GPTQModel; loaded by the worker, late."""

from __future__ import annotations

import msgspec

from quantchat.engine import graphs, loader, memory
from quantchat.engine import protocol as p
from quantchat.engine.loaded import LoadedModel
from quantchat.engine.modeltasks import Emit, IsCancelled, ModelTasks
from quantchat.engine.modeltasks import devices as devices
from quantchat.engine.scheduler import Scheduler
from quantchat.engine.sessions import SessionStates

CAPTURING = "capturing the decode step"


class Tasks(ModelTasks):
    """Models that transformers and GPTQModel load, and jobs."""

    def __init__(self, emit: Emit) -> None:
        super().__init__(emit)
        self._decoder: graphs.GraphDecoder | None = None

    def _open(self, command: p.Load) -> LoadedModel:
        return loader.load(command, self._emit)

    def _schedule(self, loaded: LoadedModel, states: SessionStates, command: p.Load) -> tuple[Scheduler, p.LoadReport]:
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
        return Scheduler(loaded, states, self._emit, self._decoder), report

    def _let_go(self) -> None:
        if self._decoder is not None:
            self._decoder.release()
            self._decoder = None

    def _do(self, command: p.Job, cancelled: IsCancelled) -> tuple[str, dict[str, float]]:
        if isinstance(command, p.MeasureBandwidth | p.Evaluate):
            return super()._do(command, cancelled)
        from quantchat.quantize import jobs

        return jobs.run(command, self._emit, cancelled)
