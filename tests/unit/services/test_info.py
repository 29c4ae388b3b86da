"""What the info panel says of odd models."""

from __future__ import annotations

import pytest

from quantchat.domain.models import ModelInfo
from quantchat.services.info import card, sections


@pytest.mark.parametrize("modified", [1e15, -1e15, 1e300])
def test_files_of_no_time_are_shown_too(modified: float) -> None:
    model = ModelInfo(path="/models/a", name="a", modified=modified)
    rows = {row.label: row.value for row in sections(card(model, None))[0].rows}
    assert rows["Changed"] == "at no time of the calendar"
