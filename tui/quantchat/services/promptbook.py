"""The user's prompt templates."""

from __future__ import annotations

import difflib

from quantchat.domain.prompts import PromptTemplate
from quantchat.errors import ErrorReport, QuantchatError, UsageError
from quantchat.store.library import NamedFiles, prompt_files


class PromptBook:
    """Reads the library anew when it has changed."""

    def __init__(self, files: NamedFiles | None = None) -> None:
        self.files = files or prompt_files()
        self._stamp: object = None
        self._read: tuple[list[PromptTemplate], list[ErrorReport]] = ([], [])

    def look(self) -> tuple[list[PromptTemplate], list[ErrorReport]]:
        """Return all templates by name, and what is wrong with the files of others."""
        stamp = self.files.stamp()
        if stamp != self._stamp:
            self._read, self._stamp = self._read_all(), stamp
        return self._read

    def _read_all(self) -> tuple[list[PromptTemplate], list[ErrorReport]]:
        templates, problems = [], []
        for name in self.files.names():
            try:
                templates.append(PromptTemplate(name, self.files.read(name)))
            except QuantchatError as error:
                problems.append(error.report)
        return templates, problems

    def find(self, wanted: str) -> PromptTemplate:
        """Return a template, whatever the case its name was typed in.

        Raises:
            UsageError: if there is none; it says which one was probably meant.
            StorageError: if it cannot be read.
        """
        names = {name.casefold(): name for name in self.files.names()}
        name = wanted if wanted in names.values() else names.get(wanted.casefold())
        if name is None:
            near = [names[key] for key in difflib.get_close_matches(wanted.casefold(), names, n=2)]
            remedy = f"Did you mean {' or '.join(near)}?" if near else "/prompts lists them all"
            raise UsageError(f"There is no prompt {wanted}", remedy=remedy, code="prompt-unknown")
        return PromptTemplate(name, self.files.read(name))
