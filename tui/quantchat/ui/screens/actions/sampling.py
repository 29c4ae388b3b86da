"""How freely the model picks its words."""

from __future__ import annotations

from quantchat.domain.presets import DEFAULT, describe_preset, find_preset
from quantchat.domain.text import clean
from quantchat.errors import QuantchatError
from quantchat.ui.screens.actions.part import ScreenPart


class SamplingActions(ScreenPart):
    """Presets of this session."""

    def action_preset(self, name: str = "") -> None:
        """Use a preset in this session from its next answer on, or let the user choose one."""
        from quantchat.ui.screens.presets import PresetScreen

        if name.strip():
            self.use_preset(name.strip())
        else:
            chooser = PresetScreen(self.desk.presets, self.session.preset or DEFAULT)
            self._app.push_screen(chooser, self.use_preset)

    def use_preset(self, wanted: str | None) -> None:
        """Give this session the values of a preset, or say why not."""
        if wanted is None:
            return
        presets = self.desk.presets
        try:
            name = find_preset(presets, wanted)
            self.desk.archive.use_preset(self.session.id, "" if name == DEFAULT else name, presets[name])
        except QuantchatError as error:
            self._app.notify(clean(str(error)), severity="warning", markup=False)
            return
        words = f"{name}: {describe_preset(presets[name])}"
        self._app.notify(clean(words, newlines=False), title="Sampling preset", markup=False)
