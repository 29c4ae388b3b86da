"""Measuring how good a model still is, and showing what was measured."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from quantchat.domain.memory import format_bytes
from quantchat.domain.text import clean
from quantchat.errors import ErrorReport, QuantchatError
from quantchat.services.background import in_background
from quantchat.ui.screens.actions.part import ScreenPart
from quantchat.ui.widgets.models import ModelList
from quantchat.ui.widgets.rows import Row

if TYPE_CHECKING:
    from quantchat.domain.models import ModelInfo
    from quantchat.services.evaluations import Evaluation

ALONE = "alone:"
"""The row that compares with nothing; no path is like it."""
HINT = "What it was made from; another can be typed: its name or path"


class EvaluateActions(ScreenPart):
    """One evaluation at a time; it goes on behind the chat."""

    def action_evaluate(self, name: str = "") -> None:
        """Measure the named model, the one under the cursor or the loaded one; show the evaluation that runs."""
        if self.desk.quality.running is not None:
            self.action_quality()
            return
        if self.desk.running_job is not None:
            self._app.notify("A quantization runs; wait for it, or cancel it", severity="warning")
            return
        model = self._to_evaluate(name.strip())
        if model is not None:
            self.desk.run(self._offer(model))

    def action_quality(self) -> None:
        """Show what was measured of all models, and the evaluation that runs."""
        from quantchat.ui.screens.quality import QualityScreen

        self._app.push_screen(QualityScreen(self.desk.quality, lambda: self.desk.library.models))

    def _to_evaluate(self, name: str) -> ModelInfo | None:
        from quantchat.catalog.scan import find_model
        from quantchat.services.evaluating import require_measurable

        library, rows = self.desk.library, self._screen.query_one(ModelList)
        highlighted = self.desk.find(rows.highlighted_id)
        looked_at = highlighted if rows.has_focus or library.model is None else library.model
        try:
            model = looked_at if looked_at is not None and not name else find_model(name, library.models)
            require_measurable(model)
        except QuantchatError as error:
            self._app.notify(str(error) if name or looked_at else "No models were found yet", severity="warning")
            return None
        return model

    async def _offer(self, model: ModelInfo) -> None:
        """Ask what to compare with; what it probably was made from is chosen already."""
        from quantchat.services.references import candidates, guess_reference
        from quantchat.ui.screens.choose import ChooseScreen

        models = self.desk.library.models
        guess = await in_background(guess_reference, model, models)
        possible = candidates(model, models)
        rows = [Row(one.path, clean(one.name, newlines=False), format_bytes(one.weight_bytes)) for one in possible]
        rows.append(Row(ALONE, "Nothing", "perplexity only"))
        chosen = guess.path if guess is not None else ALONE
        screen = ChooseScreen(f"Measure {model.name} against", rows, HINT, chosen)
        self._app.push_screen(screen, partial(self._on_reference, model))

    def _on_reference(self, model: ModelInfo, typed: str | None) -> None:
        from quantchat.catalog.scan import find_model
        from quantchat.services.evaluating import require_measurable

        if typed is None:
            return
        try:
            reference = None if typed == ALONE else find_model(typed, self.desk.library.models)
            if reference is not None:
                require_measurable(reference)
        except QuantchatError as error:
            self._app.notify(str(error), severity="warning")
            return
        self._make_room(model, reference)

    def _make_room(self, model: ModelInfo, reference: ModelInfo | None) -> None:
        """Begin, or offer to unload the model that chats where the two find no room beside it."""
        from quantchat.ui.screens.dialogs import ConfirmScreen

        chat = self.desk.library.model
        problem = self._no_room(model, reference)
        if problem is None:
            self._begin_evaluation(model, reference)
        elif chat is None:
            self._app.notify(problem.sentence(), severity="error")
        else:

            def unload(sure: bool | None) -> None:
                if sure:
                    self.desk.unload(then=lambda: self._begin_evaluation(model, reference))

            question = f"{problem.title} beside {chat.name}. {problem.detail}."
            self._app.push_screen(ConfirmScreen(question, "Unload it and measure"), unload)

    def _no_room(self, model: ModelInfo, reference: ModelInfo | None) -> ErrorReport | None:
        from quantchat.services.comparing.room import beside_the_chat, too_big

        view, library = self.desk.memory.latest, self.desk.library
        if view is None:
            return None
        beside = beside_the_chat(view)
        chat = library.model.name if library.model is not None else ""
        found = (too_big((one, library.options), beside, chat) for one in (reference, model) if one is not None)
        return next((problem for problem in found if problem is not None), None)

    def _begin_evaluation(self, model: ModelInfo, reference: ModelInfo | None) -> None:
        from quantchat.services.evaluating import Wish

        options = self.desk.library.options
        try:
            self.desk.quality.start([model], reference, Wish(kernel=options.kernel, device=options.device))
        except QuantchatError as error:
            self._app.notify(str(error), severity="warning")
            return
        self.action_quality()

    # What runs behind the chat

    @property
    def _running_evaluation(self) -> Evaluation | None:
        quality = self.desk.known_quality
        return quality.running if quality is not None else None

    def evaluation_texts(self) -> tuple[str, ...]:
        """What the status bar says of the evaluation that runs."""
        running = self._running_evaluation
        return () if running is None else (f"measuring {running.share:.0%}", f"{running.share:.0%}")

    def evaluation_line(self) -> str:
        """What the line above the prompt says of it."""
        running = self._running_evaluation
        if running is None or running.progress is None:
            return ""
        step = running.progress
        return clean(f"Measuring {step.model}: {step.stage}.  /quality shows it", newlines=False)
