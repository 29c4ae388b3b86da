"""What all benchmark scripts share: figures with bars, printed as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A measured value and the bar that it should hold; `bar` None is only reported."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool | None:
        if self.bar is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar


def parser(description: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--json", action="store_true", help="print one JSON object")
    options.add_argument("--quick", action="store_true", help="end within 50 seconds")
    return options


def report(figures: list[Figure], *, as_json: bool) -> None:
    """Print the figures and exit with 1 if a bar is missed."""
    if as_json:
        rows = {f.name: {"value": f.value, "unit": f.unit, "bar": f.bar, "holds": f.holds} for f in figures}
        print(json.dumps(rows))
    else:
        width = max(len(figure.name) for figure in figures)
        for figure in figures:
            bar = "" if figure.bar is None else f"{'≥' if figure.at_least else '≤'} {figure.bar:g}"
            verdict = {None: "", True: "holds", False: "MISSED"}[figure.holds]
            print(f"{figure.name:<{width}}  {figure.value:>10.4g} {figure.unit:<8} {bar:<8} {verdict}")
    sys.exit(any(figure.holds is False for figure in figures))
