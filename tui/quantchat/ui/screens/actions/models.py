"""Choosing, unloading, looking for models."""

from __future__ import annotations

from pathlib import Path

from quantchat.ui.screens.actions.part import ScreenPart


class ModelActions(ScreenPart):
    """What the model list and its keys do."""

    def action_models(self) -> None:
        self._focus_list("models")

    def choose_model(self, path: str) -> None:
        """Load a model, or say why it cannot be loaded."""
        screen = self._screen
        model = self.desk.find(path)
        if model is None:
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
        from quantchat.ui.screens.doctor import DoctorScreen

        settings = self.desk.settings

        def machine() -> Machine:
            models, wanted = self.desk.library.models, name.strip()
            return Machine(
                models=lambda: (find_model(wanted, models),) if wanted else models,
                models_dirs=[Path(folder).expanduser() for folder in settings.models_dirs],
                kernel=settings.kernel,
                device=settings.device,
                named=bool(wanted),
            )

        self._screen.app.push_screen(DoctorScreen(machine))

    def action_rescan(self) -> None:
        self.desk.run(self.desk.library.scan())
        self._screen.later("models")
