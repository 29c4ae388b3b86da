"""The list of models, in which letters that mean nothing else are the beginning of a filter."""

from __future__ import annotations

from textual.message import Message

from quantchat.ui.widgets.filtering import Filtering
from quantchat.ui.widgets.rows import RowList


class ModelList(Filtering, RowList, can_focus=True):
    """Rows of models; the filter stands in the upper edge, the order in the lower one."""

    class Changed(Message):
        """The filter is another, or the user comes or goes."""

    class SortRequested(Message):
        """The user wants the next order."""

    class InfoRequested(Message):
        """The user wants to know more about the highlighted row."""

        def __init__(self, rows: ModelList) -> None:
            super().__init__()
            self.rows = rows

    def __init__(self, *, id: str) -> None:
        super().__init__("Models", id=id, empty="Looking for models …")

    @property
    def heading(self) -> str:
        return "Models"

    def filter_changed(self) -> None:
        self.post_message(self.Changed())

    def action_sort_rows(self) -> None:
        self.post_message(self.SortRequested())

    def action_info_row(self) -> None:
        self.post_message(self.InfoRequested(self))
