"""All presets: quantchat's own, the user's files, and those of `config.toml`, each winning over the ones before."""

from __future__ import annotations

from collections.abc import Mapping

from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.presets import SHIPPED, known_presets
from quantchat.errors import ErrorReport, QuantchatError, UsageError
from quantchat.store.library import NamedFiles, preset_files
from quantchat.store.prompts import parse_toml, preset_text, read_preset


class Presets:
    """Looks at the files anew when they have changed.

    Attributes:
        configured: Those of `config.toml`.
        problems: What is wrong with files; their right values count.
    """

    def __init__(self, configured: Mapping[str, SamplingOverrides], files: NamedFiles | None = None) -> None:
        self.configured = configured
        self._files = files or preset_files()
        self._stamp: object = None
        self._read: dict[str, SamplingOverrides] = {}
        self.problems: list[ErrorReport] = []

    def known(self) -> dict[str, SamplingOverrides]:
        """Return all presets by name."""
        return {**known_presets(self.filed()), **self.configured}

    def filed(self) -> dict[str, SamplingOverrides]:
        """Return those that are files."""
        stamp = self._files.stamp()
        if stamp != self._stamp:
            self._stamp, self.problems = stamp, []
            self._read = {name: self._read_file(name) for name in self._files.names()}
        return self._read

    def _read_file(self, name: str) -> SamplingOverrides:
        file = str(self._files.path(name))
        try:
            text = self._files.read(name)
            values, problems = read_preset(parse_toml(text, file), file, text)
        except QuantchatError as error:
            self.problems.append(error.report)
            return SamplingOverrides()
        self.problems += [problem.report for problem in problems]
        return values

    def home_of(self, name: str) -> str:
        """Say where a preset is kept."""
        if name in self.configured:
            return "config.toml"
        return "yours" if name in self.filed() else "shipped" if name in SHIPPED else ""

    def save(self, name: str, values: SamplingOverrides, *, replace: bool = False) -> None:
        """Keep values as a preset in a file.

        Raises:
            UsageError: if it cannot be called so, or is called so already.
            StorageError: if the disk refuses.
        """
        name = name.strip()
        if name in self.configured:
            raise UsageError(
                f"The preset {name} is kept in config.toml", remedy="Change it there, or take another name"
            )
        self._files.write(name, preset_text(values), replace=replace)

    def remove(self, name: str) -> None:
        """Move the file of a preset to the trash.

        Raises:
            UsageError: if it is none of the user's files.
            StorageError: if it cannot be moved.
        """
        if name not in self.filed():
            where = "in config.toml" if name in self.configured else "in quantchat itself"
            raise UsageError(f"The preset {name} is kept {where}", remedy="Only those of your presets folder can go")
        self._files.remove(name)
