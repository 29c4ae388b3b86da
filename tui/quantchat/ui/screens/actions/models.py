"""Choosing, unloading, looking for models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from textual.content import Content

from quantchat.domain.servers import PREFIX
from quantchat.errors import QuantchatError
from quantchat.ui.keys import show_keys
from quantchat.ui.screens.actions.part import ScreenPart
from quantchat.ui.shelf import HEADING, ORDER_WORDS, ORDERS, Shelf, Wanted, next_order, silent_rows
from quantchat.ui.widgets.models import ModelList

if TYPE_CHECKING:
    from quantchat.domain.models import ModelInfo
    from quantchat.services.fit import Forecast


class ModelActions(ScreenPart):
    """What the model list and its keys do."""

    @cached_property
    def _shelf(self) -> Shelf:
        return Shelf()

    def action_models(self, name: str = "") -> None:
        """Go to the list, or load the model that is named."""
        if not name.strip():
            self._focus_list("models")
        else:
            self.desk.run(self._load_named(name.strip()))

    async def _load_named(self, name: str) -> None:
        """Load a model by its name, which a server that is being asked may have."""
        try:
            model = await self.desk.servers.named(name, self.desk.library.models)
        except QuantchatError as error:
            self._app.notify(str(error), severity="warning", markup=False)
        else:
            self.choose_model(model.path)

    def choose_model(self, path: str) -> None:
        """Load a model, or say why it cannot be loaded."""
        screen = self._screen
        model = self.desk.find(path)
        if model is None:
            screen.choose_server(path)
            return
        screen.remove_class("-sidebar-over")
        screen.set_focus(screen.prompt)
        report = self.desk.library.loaded
        if report is not None and report.path == path:
            screen.app.notify(f"{model.name} is loaded", markup=False)
            return
        self.desk.load(model)

    def action_unload(self) -> None:
        self.desk.unload()

    def action_previous_model(self) -> None:
        if not self.desk.load_previous():
            self._screen.app.notify("No other model was loaded before", markup=False)

    def action_load_when_free(self, name: str = "") -> None:
        """Wait until there is room for a model, or as much as was named; without a name wait no longer."""
        from quantchat.services.waiting import split_amount

        if not name.strip() and self.desk.wait_line():
            self.desk.when_free.cancel()
            self._screen.app.notify("Nothing waits any more", markup=False)
            return
        wanted, free_bytes = split_amount(name)
        model, report = self._meant(wanted), self.desk.library.loaded
        if model is None:
            return
        if report is not None and report.path == model.path:
            self._screen.app.notify(f"{model.name} is loaded")
            return
        self.desk.when_free.start(model, free_bytes)

    def action_info(self, name: str = "") -> None:
        """Show everything about a model: the named one, the one under the cursor, or the loaded one."""
        from quantchat.ui.screens.info import InfoScreen

        model = self._meant(name.strip())
        if model is None:
            return

        def load(wanted: bool | None) -> None:
            if wanted:
                self.choose_model(model.path)

        self._app.push_screen(InfoScreen(model, self._predict, lambda: self._screen.server_rows(model)), load)

    def on_model_list_info_requested(self, event: ModelList.InfoRequested) -> None:
        event.stop()
        row = event.rows.highlighted_id
        if row and row.startswith(PREFIX) and self.desk.find(row) is None:
            self._screen.action_servers()
        else:
            self.action_info()

    def _meant(self, name: str) -> ModelInfo | None:
        """Find a model by what was typed, or by what the user looks at; tell if there is none."""
        from quantchat.catalog.scan import find_model

        found, rows = self.desk.library.models, self._screen.query_one(ModelList)
        loaded = self.desk.library.model
        if not name and loaded is not None and not rows.has_focus:
            return loaded
        model = self.desk.find(rows.highlighted_id) if not name else None
        if model is not None:
            return model
        try:
            return find_model(name, found)
        except QuantchatError as error:
            self._app.notify(str(error) if name else "No models were found yet", severity="warning")
            return None

    def _predict(self, model: ModelInfo) -> Forecast | None:
        from quantchat.services.fit import forecast

        view, library = self.desk.memory.latest, self.desk.library
        return None if view is None else forecast(model, view, failed=library.failed_kernels(model))

    def action_kernels(self) -> None:
        """Show which kernel runs and why no other does."""
        report = self.desk.library.loaded
        if report is None:
            self._screen.app.notify("No model is loaded", markup=False)
            return
        from quantchat.ui.diagnosis import kernel_text
        from quantchat.ui.screens.dialogs import TextScreen

        self._screen.app.push_screen(TextScreen("Kernels", kernel_text(report)))

    def action_doctor(self, name: str = "") -> None:
        """Examine this machine; with a name, judge that model instead of all."""
        from quantchat.catalog.scan import find_model
        from quantchat.services.doctor.machine import Machine
        from quantchat.services.folders import expanded
        from quantchat.ui.screens.doctor import DoctorScreen

        desk = self.desk

        def machine() -> Machine:
            models = tuple(model for model in desk.library.models if not model.server)
            wanted, wishes = name.strip(), desk.library.options
            return Machine(
                models=lambda: (find_model(wanted, models),) if wanted else models,
                models_dirs=[*desk.given_folders, *(Path(expanded(own)) for own in desk.settings.models_dirs)],
                kernel=wishes.kernel,
                device=wishes.device,
                named=bool(wanted),
            )

        self._screen.app.push_screen(DoctorScreen(machine))

    # The list

    def draw_models(self) -> None:
        """Show the models that are wanted, in the order that is wanted."""
        scanner, state = self.desk.library.scanner, self.desk.state
        models = self._screen.query_one(ModelList)
        models.empty = _empty(models.filter, scanning=scanner.scanning)
        wanted = Wanted(state.models_order, models.filter, state.used_models)
        quality = self.desk.known_quality
        notes = quality.marks.known if quality is not None else {}
        rows = self._shelf.rows(scanner.models, self._screen.judge, self.desk.library.loaded, wanted, notes)
        shown = sum(not row.id.startswith(HEADING) for row in rows)
        rows += silent_rows(self.desk.servers.known, self.desk.servers.asking, wanted)
        filtered = f"{shown} of {len(scanner.models)}" if models.filter else ""
        sorted_by = "" if state.models_order == "name" else ORDER_WORDS[state.models_order]
        hint = _hint(self._app.key_map) if models.has_focus and not filtered else ""
        models.border_subtitle = Content("  ".join(filter(None, (filtered, sorted_by, hint))))
        models.show(rows, follow=state.last_model)

    def on_model_list_changed(self, event: ModelList.Changed) -> None:
        event.stop()
        self._screen.draw("models")

    def on_model_list_sort_requested(self, event: ModelList.SortRequested) -> None:
        event.stop()
        self.action_sort_models()

    def end_filter(self) -> bool:
        """Take the filter off the list that the user is in; say whether there was one."""
        models = self._screen.query_one(ModelList)
        return (models.has_focus and models.end_filter()) or self._screen.end_listing()

    def action_sort_models(self, order: str = "") -> None:
        """Sort the list of models by what is named, else the next way."""
        named = {name: name for name in ORDERS}.get(order.strip().casefold())  # type: ignore[call-overload]
        if order.strip() and named is None:
            self._app.notify(f"Models are sorted by {', '.join(ORDERS)}", severity="warning")
            return
        wanted = named or next_order(self.desk.state.models_order)
        self.desk.remember(models_order=wanted)
        self._screen.draw("models")
        if self._screen.shows_models:
            # The row that was highlighted may stand far down now, and what was asked for stands above.
            self._screen.query_one(ModelList).action_first()
        else:
            self._app.notify(f"Models: {ORDER_WORDS[wanted]}")

    def action_folders(self) -> None:
        """Show where models are looked for, and let the user change that."""
        from quantchat.ui.screens.folders import FoldersScreen

        self._app.push_screen(FoldersScreen(self.desk))

    def action_rescan(self) -> None:
        self.desk.run(self.desk.library.scan())
        self.desk.run(self.desk.servers.refresh())
        self._screen.later("models")


def _hint(keys: Mapping[str, str]) -> str:
    """Name the keys that nobody would guess."""
    named = {"list.info": "info", "list.filter": "filter", "list.sort": "sort"}
    return "  ".join(f"{show_keys(keys[command])} {word}" for command, word in named.items() if keys[command])


def _empty(words: str, *, scanning: bool) -> str:
    if words:
        return "No model has that. Esc shows all"
    return "Looking for models …" if scanning else "No models yet: /pull, /folders or F1"
