"""What answers on either side of a comparison: model, kernel and sampling, order and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.models import ModelInfo
from quantchat.domain.presets import describe_preset
from quantchat.domain.text import clean
from quantchat.errors import UsageError
from quantchat.services.comparing import Choice
from quantchat.services.comparing.room import kernels_for
from quantchat.ui.screens.choose import ChooseScreen
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import Row, RowList

if TYPE_CHECKING:
    from quantchat.services.desk import Desk

AUTOMATIC, SESSION = "automatic", "session"
SEEDS = 2**62
NAMES = {"left": "A", "right": "B"}
MEANINGS = {
    "model": "Which model answers on this side",
    "kernel": "What multiplies by its packed weights; two kernels of one model can be compared",
    "preset": "How freely this side picks words; the other settings are those of the session",
    "order": "Speeds are fair only one after the other: both at once share the machine",
    "seed": "The same for both sides; greedy sampling needs none",
    "base": "Whether both go on with what was said in this session",
}


@dataclass(frozen=True)
class Setup:
    """All that is chosen for a comparison.

    Attributes:
        seed: None draws one for each prompt.
        goes_on: Both go on with what was said in the session.
    """

    left: Choice
    right: Choice
    one_by_one: bool = False
    seed: int | None = None
    goes_on: bool = True

    def side(self, name: str) -> Choice:
        return self.left if name == "left" else self.right

    def with_side(self, name: str, choice: Choice) -> Setup:
        return replace(self, left=choice) if name == "left" else replace(self, right=choice)


class SidesScreen(ModalScreen[Setup]):
    """One row per thing that can be chosen; dismissed with all of it.

    Args:
        messages: How many messages the session has.
        own: The session's sampling and the preset that it came from.
    """

    CSS_PATH = ["dialogs.tcss", "compare.tcss"]  # noqa: RUF012 - Textual declares it so
    AUTO_FOCUS = "RowList"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "close", "Close"),
        Binding("f8", "swap", "Swap"),
    ]

    def __init__(self, desk: Desk, setup: Setup, messages: int, own: tuple[str, SamplingOverrides]) -> None:
        super().__init__()
        self._desk, self.setup = desk, setup
        self._messages, self._own = messages, own

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -sides") as frame:
            frame.border_title = "Side by side"
            frame.border_subtitle = "Enter changes  F8 swaps  Esc is done"
            yield RowList(id="sides", empty="")
            yield Line(id="meaning")

    def on_mount(self) -> None:
        self._fill()

    def _fill(self) -> None:
        setup = self.setup
        order = "one after the other" if setup.one_by_one else "both at once where they fit"
        seed = "drawn for each prompt" if setup.seed is None else str(setup.seed)
        base = f"with the {self._messages} messages of this session" if setup.goes_on else "anew"
        rows = [*self._rows("left"), *self._rows("right"), Row("order", "Order", order), Row("seed", "Seed", seed)]
        rows += [Row("base", "Begins", base)] if self._messages else []
        self.query_one(RowList).show(rows)

    def _rows(self, name: str) -> list[Row]:
        choice = self.setup.side(name)
        model = clean(choice.model.name, newlines=False)
        label = choice.model.quant.label()
        return [
            Row(f"{name}.model", f"{NAMES[name]}: {model}", label, "●", "$accent", strong=True),
            Row(f"{name}.kernel", "   Kernel", choice.kernel or AUTOMATIC),
            Row(f"{name}.preset", "   Sampling", self._sampling(choice)),
        ]

    def _sampling(self, choice: Choice) -> str:
        if (choice.preset, choice.sampling) == self._own:
            return "as in this session"
        return clean(choice.preset, newlines=False) or "own values"

    @on(RowList.OptionHighlighted)
    def _on_highlighted(self, event: RowList.OptionHighlighted) -> None:
        kind = (event.option_id or "").rpartition(".")[2]
        self.query_one("#meaning", Line).show(Content(MEANINGS.get(kind, "")))

    @on(RowList.OptionSelected)
    def _on_selected(self, event: RowList.OptionSelected) -> None:
        name, _, kind = (event.option_id or "").rpartition(".")
        match kind:
            case "model":
                self._choose_model(name)
            case "kernel":
                self._choose_kernel(name)
            case "preset":
                self._choose_preset(name)
            case "order":
                self._change(replace(self.setup, one_by_one=not self.setup.one_by_one))
            case "seed":
                self._choose_seed()
            case "base":
                self._change(replace(self.setup, goes_on=not self.setup.goes_on))

    def _change(self, setup: Setup) -> None:
        self.setup = setup
        self._fill()

    def action_swap(self) -> None:
        self._change(replace(self.setup, left=self.setup.right, right=self.setup.left))

    def action_close(self) -> None:
        self.dismiss(self.setup)

    # What can be chosen

    def _ask(self, title: str, rows: Sequence[Row], hint: str, chosen: str, take: Callable[[str], None]) -> None:
        def taken(answer: str | None) -> None:
            if answer is not None:
                take(answer)

        self.app.push_screen(ChooseScreen(title, rows, hint, chosen), taken)

    def _choose_model(self, name: str) -> None:
        from quantchat.ui.views import model_rows

        view = self._desk.memory.latest
        models = [model for model in self._desk.library.models if model.loadable]
        rows = model_rows(models, lambda model: view.fit(model) if view is not None else None, None)
        choice = self.setup.side(name)

        def take(path: str) -> None:
            model = self._desk.find(path)
            if model is None:
                self.app.notify("There is no such model", severity="warning")
            elif model.path != choice.model.path:
                # A kernel is one of its model's.
                changed = msgspec.structs.replace(choice, model=model, kernel=None)
                self._change(self.setup.with_side(name, changed))

        self._ask(f"Which model answers as {NAMES[name]}", rows, "Type to find one", choice.model.path, take)

    def _choose_kernel(self, name: str) -> None:
        choice, view = self.setup.side(name), self._desk.memory.latest
        found = kernels_for(choice.model, view, self._desk.library.options) if view is not None else ()
        rows = [Row(AUTOMATIC, AUTOMATIC, "the fastest that runs")]
        rows += [Row(kernel, kernel, prose(why), enabled=not why) for kernel, why in found]

        def take(kernel: str) -> None:
            known = {able for able, why in found if not why}
            if kernel != AUTOMATIC and kernel not in known:
                self.app.notify(f"{clean(kernel, newlines=False)} cannot run this model here", severity="warning")
                return
            wanted = None if kernel == AUTOMATIC else kernel
            self._change(self.setup.with_side(name, msgspec.structs.replace(choice, kernel=wanted)))

        self._ask(f"Kernel of {NAMES[name]}", rows, "Type to find one", choice.kernel or AUTOMATIC, take)

    def _choose_preset(self, name: str) -> None:
        choice, presets = self.setup.side(name), self._desk.presets
        rows = [Row(SESSION, "as in this session", meaning(self._own[1]))]
        rows += [Row(f"preset:{own}", clean(own, newlines=False), meaning(presets[own])) for own in presets]

        def take(wanted: str) -> None:
            own = wanted.removeprefix("preset:")
            if wanted != SESSION and own not in presets:
                self.app.notify("There is no such preset", severity="warning")
                return
            preset, sampling = self._own if wanted == SESSION else (own, presets[own])
            changed = msgspec.structs.replace(choice, preset=preset, sampling=sampling)
            self._change(self.setup.with_side(name, changed))

        chosen = f"preset:{choice.preset}" if choice.preset else SESSION
        self._ask(f"Sampling of {NAMES[name]}", rows, "Type to find one", chosen, take)

    def _choose_seed(self) -> None:
        rows = [Row("drawn", "drawn for each prompt")]

        def take(wanted: str) -> None:
            try:
                seed = None if wanted == "drawn" else read_seed(wanted)
            except UsageError as error:
                self.app.notify(str(error), severity="warning", markup=False)
            else:
                self._change(replace(self.setup, seed=seed))

        self._ask("Seed of both sides", rows, "A whole number", "drawn", take)


def prose(why: str) -> str:
    """A reason, short enough to stand beside a kernel's name."""
    return clean(why, newlines=False).partition(";")[0]


def meaning(values: SamplingOverrides) -> str:
    """What a preset sets; what it does not set is as the user has it, whatever a model recommends."""
    return describe_preset(values) if values != SamplingOverrides() else "your defaults"


def read_seed(text: str) -> int:
    """Read a seed.

    Raises:
        UsageError: if it is none.
    """
    if not (text.isascii() and text.isdigit() and int(text) < SEEDS):
        raise UsageError(f"{text} is no seed", remedy="Take a whole number from 0 on")
    return int(text)


def first_setup(desk: Desk, own: tuple[str, SamplingOverrides], named: str) -> Setup | None:
    """Put the loaded model, or the one used last, beside the named one, or the one before; None without any model.

    Raises:
        QuantchatError: if no model has that name.
    """
    from quantchat.catalog.scan import find_model

    library = desk.library
    able = [model for model in library.models if model.loadable]
    left = library.model or library.last_model or desk.find(desk.state.last_model) or next(iter(able), None)
    if left is None:
        return None
    right = find_model(named, library.models) if named else library.previous or _other(able, left)
    preset, sampling = own

    def choice(model: ModelInfo) -> Choice:
        return Choice(model=model, preset=preset, sampling=sampling)

    return Setup(left=choice(left), right=choice(right))


def _other(models: Sequence[ModelInfo], than: ModelInfo) -> ModelInfo:
    return next((model for model in models if model.path != than.path), than)
