"""What is done with a model once it is made: its card, one question, its quality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quantchat.domain.models import ModelInfo
from quantchat.domain.quantizing import CalibrationChoice
from quantchat.errors import Cancelled, ErrorReport, ModelError, QuantchatError
from quantchat.services.background import in_background
from quantchat.services.engine import EngineFactory
from quantchat.services.quantizing import card, smoke
from quantchat.services.quantizing.plan import Outcome, Plan, Preflight
from quantchat.services.quantizing.progress import Tracker
from quantchat.store.atomic import write_atomic

if TYPE_CHECKING:
    from quantchat.services.evaluating import Progress

SMOKE_SECONDS = 25.0
EVALUATE_SECONDS = 120.0
"""What these take of the bar of the whole; the time that is left soon goes by the speed itself."""


def after_seconds(plan: Plan) -> float:
    """Estimate what is done after the job, in seconds."""
    return plan.smoke * SMOKE_SECONDS + plan.evaluate * EVALUATE_SECONDS


class Finisher:
    """Goes through the steps after a job; what fails becomes a note, as the model is there all the same."""

    def __init__(
        self, preflight: Preflight, calibration: CalibrationChoice, tracker: Tracker, engine_factory: EngineFactory
    ) -> None:
        self._preflight = preflight
        self._tracker = tracker
        self._engine_factory = engine_factory
        self._made = card.Made(choice=calibration)
        self._notes: list[ErrorReport] = []

    def outcome(self) -> Outcome:
        """Return what there is so far."""
        return Outcome(
            folder=self._preflight.output,
            weight_bytes=self._made.weight_bytes,
            seconds=self._made.seconds,
            smoke=self._made.smoke,
            quality=self._made.quality,
            notes=tuple(self._notes),
        )

    def note(self, report: ErrorReport) -> None:
        """Keep what went wrong."""
        self._notes.append(report)

    def leave_out(self) -> None:
        """Note that the user did not want to wait for the rest."""
        detail = "What was to follow is left out; the model is whole"
        self.note(Cancelled("Stopped after the model was made", detail).report)

    async def finish(self) -> None:
        """Write the card, and again with what is measured; read the model as the catalog does."""
        plan, state = self._preflight.plan, self._tracker.state
        model = await in_background(_read, self._preflight.output)
        self._made = msgspec.structs.replace(
            self._made,
            modules=state.modules,
            calibration=state.calibration,
            versions=self._tracker.versions,
            weight_bytes=model.weight_bytes,
            seconds=state.seconds,
        )
        self._write_card()
        if not model.loadable:
            self._notes.append(_unloadable(model))
            return
        if plan.smoke:
            await self._ask(model)
        if plan.evaluate:
            await self._evaluate(model)

    async def _ask(self, model: ModelInfo) -> None:
        whole = SMOKE_SECONDS / after_seconds(self._preflight.plan)
        self._tracker.after("loading it")
        try:
            said = await smoke.ask(
                model, lambda stage, share: self._tracker.after(stage, share * whole), self._engine_factory
            )
        except QuantchatError as error:
            self._notes.append(error.report)
            return
        self._made = msgspec.structs.replace(self._made, smoke=said)
        self._write_card()

    async def _evaluate(self, model: ModelInfo) -> None:
        from quantchat.services.evaluating import Wish, evaluate

        begun = self._share_asked()
        self._tracker.after("measuring its quality", begun)

        def show(step: Progress) -> None:
            self._tracker.after(f"measuring {step.model}: {step.stage}", begun + step.share * (1 - begun))

        try:
            results = await evaluate([model], self._reference(), Wish(), show, self._engine_factory)
        except QuantchatError as error:
            self._notes.append(error.report)
            return
        last = results[-1]
        if last.quality is None:
            self._notes += [last.error.report] if last.error is not None else []
            return
        self._made = msgspec.structs.replace(self._made, quality=last.quality)
        self._write_card()

    def _share_asked(self) -> float:
        """The share of the question in what is done after the job."""
        plan = self._preflight.plan
        return plan.smoke * SMOKE_SECONDS / after_seconds(plan)

    def _reference(self) -> ModelInfo | None:
        """The source, if it is what was quantized and can be loaded; an adapter's base is another model."""
        model = self._preflight.model
        return model if model is not None and model.loadable and not self._preflight.plan.adapter else None

    def _write_card(self) -> None:
        try:
            write_atomic(self._preflight.output / card.FILE, card.write(self._preflight, self._made).encode())
        except QuantchatError as error:
            self._notes.append(error.report)


def _read(folder: Path) -> ModelInfo:
    from quantchat.catalog.reader import read_model

    return read_model(folder)


def _unloadable(model: ModelInfo) -> ErrorReport:
    why, remedy = (model.errors[0].cause, model.errors[0].remedy) if model.errors else (model.verdict.reason, "")
    return ModelError("The model was made and cannot be loaded here", why, remedy).report
