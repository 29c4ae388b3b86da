"""How freely the model picks its words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.presets import DEFAULT, describe_preset, find_preset, label_of, own_values
from quantchat.domain.text import clean
from quantchat.errors import QuantchatError, UsageError
from quantchat.ui.screens.actions.part import ScreenPart

if TYPE_CHECKING:
    from quantchat.domain.sampling import Setting

LAST = "last"


class SamplingActions(ScreenPart):
    """Presets and single values of this session."""

    def action_preset(self, name: str = "") -> None:
        """Use a preset in this session from its next answer on, or let the user choose one."""
        from quantchat.ui.screens.presets import PresetScreen

        if name.strip():
            self.use_preset(name.strip())
        else:
            chooser = PresetScreen(self.desk.library_of_presets, self.session.preset or DEFAULT)
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
            self._refuse(error)
            return
        self._tell(f"{name}: {describe_preset(presets[name])}", "Sampling preset")

    def action_save_preset(self, name: str = "") -> None:
        """Keep what this session sets as a preset in a file."""
        from quantchat.ui.screens.words import AskScreen

        def save(wanted: str | None) -> None:
            if wanted:
                self._save_preset(wanted)

        if name.strip():
            save(name.strip())
        else:
            hint = describe_preset(self.session.sampling)
            self._app.push_screen(AskScreen("Name of the new preset", self.session.preset, hint), save)

    def _save_preset(self, name: str) -> None:
        session, presets = self.session, self.desk.library_of_presets
        try:
            if session.sampling == SamplingOverrides():
                raise UsageError("This session sets no values of its own", remedy="/set changes them")
            presets.save(name, session.sampling, replace=name == session.preset)
            self.desk.archive.use_preset(session.id, name, session.sampling)
        except QuantchatError as error:
            self._refuse(error)
            return
        self._tell(f"{name}: {describe_preset(session.sampling)}", "Preset kept")

    # Single values

    def action_sampling_values(self, typed: str = "") -> None:
        """Change one value, as in `temperature 0.2`, or show all of them."""
        from quantchat.domain.sampling import allowed, find_setting
        from quantchat.ui.screens.sampling import SamplingScreen

        if not typed.strip():
            self._app.push_screen(SamplingScreen(self._settings, self._put_value))
            return
        first, *rest = typed.replace("=", " ", 1).split(maxsplit=1)
        try:
            name = find_setting(first)
            if not rest:
                raise UsageError(f"{name} needs a value", remedy=f"Allowed: {allowed(name)}")
            self._put_value(name, rest[0])
        except QuantchatError as error:
            self._refuse(error)
            return
        self._tell_value(name)

    def _settings(self) -> list[Setting]:
        from quantchat.domain.sampling import Layer, settings_of

        session, report = self.session, self.desk.library.loaded
        own = own_values(session.preset, session.sampling, self.desk.presets)
        layers = [
            Layer("this session", own),
            Layer(f"preset {clean(session.preset, newlines=False)}", session.sampling),
            Layer("config.toml", self.desk.settings.sampling),
            Layer("the model", report.recommended if report is not None else SamplingOverrides()),
        ]
        return settings_of(layers)

    def _put_value(self, name: str, typed: str) -> None:
        """Give this session another value, or that of its preset for the default.

        Raises:
            UsageError: if it is not allowed.
            StorageError: if the session is not written here.
        """
        from quantchat.domain.sampling import read_value

        session = self.session
        value = read_value(name, typed)
        if value is None and session.preset:
            value = getattr(self.desk.presets.get(session.preset, SamplingOverrides()), name)
        sampling = msgspec.structs.replace(session.sampling, **{name: value})
        self.desk.archive.configure(session.id, sampling=sampling)

    def action_seed(self, typed: str = "") -> None:
        """Give this session a seed, that of its last answer, or none."""
        wanted = typed.strip().lower()
        try:
            self._put_value("seed", self._last_seed() if wanted == LAST else wanted or "default")
        except QuantchatError as error:
            self._refuse(error)
            return
        self._tell_value("seed")

    def _last_seed(self) -> str:
        costs = [message.statistics for message in self.session.branch() if message.statistics is not None]
        if not costs:
            raise UsageError("There is no answer yet, and so no seed")
        if costs[-1].seed is None:
            raise UsageError("The last answer had no seed", remedy="Greedy decoding needs none")
        return str(costs[-1].seed)

    def _tell_value(self, name: str) -> None:
        from quantchat.domain.sampling import shown_value

        setting = next(one for one in self._settings() if one.name == name)
        self._tell(f"{name} {shown_value(setting.value)} ({setting.source})", "Sampling")

    # Words

    def settings_label(self) -> str:
        """What the header says of how this session asks; empty for the default."""
        session = self.session
        plain = not session.preset and session.sampling == SamplingOverrides()
        sampling = "" if plain else label_of(session.preset, session.sampling, self.desk.presets)
        marks = ("+system" if session.system_prompt else "", "+template" if session.template else "")
        return " ".join(filter(None, (sampling, *marks)))

    def _tell(self, words: str, title: str) -> None:
        self._app.notify(clean(words, newlines=False), title=title, markup=False)

    def _refuse(self, error: QuantchatError) -> None:
        self._app.notify(clean(str(error)), severity="warning", markup=False)
