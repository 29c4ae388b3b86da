"""Prompt templates: texts with named fields, such as `{question}`, that are asked for when one is used.

A name in two pairs of braces, `{{question}}`, stands for itself in one pair; every other brace is only a brace.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from quantchat.domain.attachments import Attachment, Draft, next_number

_NAME = r"[^\W\d]\w{0,39}(?:[ -]\w{1,40}){0,5}"
_FIELD = re.compile(rf"\{{\{{({_NAME})\}}\}}|\{{({_NAME})\}}")


class PromptTemplate(msgspec.Struct, frozen=True):
    """A text of the library."""

    name: str
    text: str

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of its fields, in the order in which they come first."""
        return tuple(dict.fromkeys(found[2] for found in _FIELD.finditer(self.text) if found[2]))

    @property
    def summary(self) -> str:
        """Its first line with anything in it."""
        return next((line.strip() for line in self.text.splitlines() if line.strip()), "")

    def filled(self, values: Mapping[str, Draft]) -> Draft:
        """Put values in the place of the fields; one that is not given stays as it is written."""
        filling = _Filling(self.text, values)
        return Draft(_FIELD.sub(filling.put, self.text), tuple(filling.attachments))


class _Filling:
    """Gives the attachments of several drafts numbers that tell them apart."""

    def __init__(self, text: str, values: Mapping[str, Draft]) -> None:
        self._number = next_number("\n".join([text, *(draft.text for draft in values.values())]))
        self._before = text
        self.attachments: list[Attachment] = []
        self._texts = {name: self._renumbered(draft) for name, draft in values.items()}

    def _renumbered(self, draft: Draft) -> str:
        text = draft.text
        for attachment in draft.attachments:
            if attachment.token in self._before:
                numbered = msgspec.structs.replace(attachment, number=self._number)
                text, attachment = text.replace(attachment.token, numbered.token), numbered
                self._number += 1
            self.attachments.append(attachment)
        self._before += f"\n{text}"
        return text

    def put(self, found: re.Match[str]) -> str:
        literal, field = found.groups()
        return f"{{{literal}}}" if literal else self._texts.get(field, found[0])
