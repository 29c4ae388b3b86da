"""What is changed in the dialog for texts; apart from it, because the main screen needs no more of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Editing:
    """What is changed.

    Attributes:
        does: What Enter does.
        text: What stands there so far.
        unsent: What an earlier change of it came to that was not sent; undo leads back to `text`.
        folds: Large pastes become attachments, as in the prompt.
    """

    title: str
    does: str
    text: str = ""
    unsent: str = ""
    folds: bool = True
