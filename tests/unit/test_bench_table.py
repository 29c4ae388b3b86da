"""The figures of benchmark runs as a table."""

from __future__ import annotations

import pytest

from quantchat.cli.table import table
from quantchat.domain.bench import BenchRun, Figure


def run(speed: float) -> BenchRun:
    figure = Figure("decode", "decode", speed, "tok/s")
    return BenchRun(model="m", path="/m", quantization="", kernel="", device="", dtype="", figures=(figure,))


@pytest.mark.parametrize(("count", "last"), [(2, "B"), (26, "Z"), (30, "30")])
def test_any_number_of_runs_stands_side_by_side(count: int, last: str) -> None:
    lines = table([run(10.0 * number) for number in range(1, count + 1)]).splitlines()
    assert lines[count - 1] == f"{last}  m"
    assert lines[-1].endswith(f"{count:.2f} ×")
