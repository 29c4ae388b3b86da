"""What was measured of models, gathered to be shown: a mark for each row, rows for the info panel, a table, a chart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from quantchat.domain.chart import Point, marks, scatter
from quantchat.domain.memory import format_bytes
from quantchat.domain.models import ModelInfo
from quantchat.domain.quality import Quality
from quantchat.domain.sections import Row
from quantchat.domain.text import shortened
from quantchat.services.background import in_background
from quantchat.store.quality import load_quality

ABSENT = "-"
NAME_CELLS, LEAST_NAME, SHORTEST_NAME = 44, 20, 6
"""Cells of names: at most, before columns are left out for them, and at least."""
HEADS = ("", "model", "format", "bits", "KL", "agree", "ppl", "size", "memory", "tok/s")
LEFT = ("", "model", "format")
"""Columns of the table that begin at the left; numbers end at the right."""
FIRST_LEFT_OUT = ("memory", "tok/s", "size", "format", "agree", "bits")
MOST, MOST_BYTES = 1e300, 1024**5
SHOWN = 6
"""Measurements of one model that its info panel shows."""
LEGEND = "KL: mean divergence from the reference's next-token distributions, in nats; agree: same likeliest token"


class Measured(msgspec.Struct, frozen=True):
    """A model, and a measurement of it."""

    model: ModelInfo
    quality: Quality


def current(model: ModelInfo) -> tuple[Quality, ...]:
    """Return what was measured of a model as it is now, the newest first; reads files."""
    size = model.weight_bytes or model.disk_bytes
    found = load_quality(model.path)
    return tuple(quality for quality in found if quality.disk_bytes in (0, size) and plausible(quality))


def plausible(quality: Quality) -> bool:
    """Whether figures can be shown as they stand: the file may come from anywhere, with the model."""
    shares = (quality.agreement,) if quality.agreement is not None else ()
    figures = (quality.perplexity, quality.divergence or 0.0, quality.bits, quality.tokens_per_second)
    return (
        all(0 <= figure < MOST for figure in figures)
        and all(0 <= share <= 1 for share in shares)
        and 0 <= quality.device_bytes < MOST_BYTES
        and quality.tokens > 0
    )


def best(measurements: Iterable[Quality]) -> Quality | None:
    """Return the newest measurement against a reference, else the newest."""
    known = list(measurements)
    return next((quality for quality in known if quality.divergence is not None), known[0] if known else None)


def all_measured(models: Iterable[ModelInfo]) -> list[Measured]:
    """Return the best measurement of every model that has one; reads files."""
    found = ((model, best(current(model))) for model in models)
    return [Measured(model, quality) for model, quality in found if quality is not None]


def families(measured: Iterable[Measured]) -> list[list[Measured]]:
    """Put together what can be compared: the same reference, text, window and tokens; the largest group first.

    A reference stands in front of what was measured against it.
    """
    groups: dict[tuple[object, ...], list[Measured]] = defaultdict(list)
    alone = []
    for one in measured:
        if one.quality.divergence is None:
            alone.append(one)
        else:
            groups[one.quality.reference_path, one.quality.ruler].append(one)
    for one in alone:
        own = [key for key in groups if key == (one.model.path, one.quality.ruler)]
        for key in own:
            groups[key].insert(0, one)
        if not own:
            groups[one.model.path, one.quality.ruler].append(one)
    return sorted((_sorted(group) for group in groups.values()), key=len, reverse=True)


def _sorted(group: list[Measured]) -> list[Measured]:
    return sorted(group, key=lambda one: (one.quality.divergence is not None, -one.quality.bits))


# Plain text


def table(group: Sequence[Measured], width: int = 120) -> list[str]:
    """Put measurements below each other; what has a place in the chart begins with its letter there.

    Where there is no room for all columns, those that matter least are left out.
    """
    letters = iter(marks(sum(one.quality.divergence is not None for one in group)))
    rows = [_cells(one, next(letters) if one.quality.divergence is not None else "") for one in group]
    widths = {head: max(map(len, column)) for head, column in zip(HEADS, zip(HEADS, *rows, strict=True), strict=True)}
    for head in FIRST_LEFT_OUT:
        if _taken(widths | {"model": LEAST_NAME}) > width:
            del widths[head]
    widths["model"] = min(widths["model"], max(widths["model"] + width - _taken(widths), SHORTEST_NAME))
    return [_aligned(dict(zip(HEADS, row, strict=True)), widths) for row in (HEADS, *rows)]


def _taken(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + 2 * (len(widths) - 1)


def _cells(one: Measured, mark: str) -> tuple[str, ...]:
    quality = one.quality
    return (
        mark,
        shortened(one.model.name, NAME_CELLS),
        shortened(quality.quantization, 16),
        f"{quality.bits:.2f}",
        ABSENT if quality.divergence is None else divergence_text(quality.divergence),
        ABSENT if quality.agreement is None else f"{quality.agreement:.1%}",
        perplexity_text(quality.perplexity),
        format_bytes(quality.disk_bytes) if quality.disk_bytes else ABSENT,
        format_bytes(quality.device_bytes) if quality.device_bytes else ABSENT,
        f"{quality.tokens_per_second:.1f}" if quality.tokens_per_second else ABSENT,
    )


def _aligned(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    texts = [(head, middle_out(cells[head], width), width) for head, width in widths.items()]
    return "  ".join(text.ljust(width) if head in LEFT else text.rjust(width) for head, text, width in texts).rstrip()


def middle_out(text: str, width: int) -> str:
    """Cut the middle out of a name: names of quantizations differ at their ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def divergence_text(value: float) -> str:
    """Write a divergence with as many digits as say something."""
    return f"{value:.4f}" if value >= 0.001 or not value else f"{value:.1e}"


def perplexity_text(value: float) -> str:
    """Write a perplexity; one of a model that was broken has no end of digits."""
    return f"{value:.2f}" if value < 1e5 else f"{value:.1e}"


def chart(group: Sequence[Measured], width: int, height: int, *, plain: bool = False) -> list[str]:
    """Draw bits per weight against divergence; empty unless something was measured against a reference."""
    compared = [one.quality for one in group if one.quality.divergence is not None]
    if not compared:
        return []
    points = [
        Point(mark, quality.bits, quality.divergence or 0.0)
        for mark, quality in zip(marks(len(compared)), compared, strict=True)
    ]
    title = f"KL from {shortened(compared[0].reference, NAME_CELLS)}, nats per token, by bits per weight"
    return [title, *scatter(points, width, height, plain=plain)]


def ruler_text(quality: Quality) -> str:
    """Say on what was measured."""
    return f"{shortened(quality.text, NAME_CELLS)}, {quality.tokens:,} tokens in windows of {quality.window}"


# The info panel


def quality_rows(measurements: Sequence[Quality]) -> Iterator[Row]:
    """Say what was measured of a model, for its info panel."""
    for quality in measurements[:SHOWN]:
        yield Row(quality.measured[:10] or "Measured", quality_words(quality))
        yield Row("", f"on {ruler_text(quality)}; {_run(quality)}")
    if len(measurements) > SHOWN:
        yield Row("", f"and {len(measurements) - SHOWN} earlier measurements")


def quality_words(quality: Quality) -> str:
    """The figures of a measurement in one line."""
    parts = []
    if quality.divergence is not None:
        parts.append(f"KL {divergence_text(quality.divergence)} from {shortened(quality.reference, NAME_CELLS)}")
    if quality.agreement is not None:
        parts.append(f"{quality.agreement:.1%} same likeliest token")
    parts.append(f"perplexity {perplexity_text(quality.perplexity)}")
    if quality.reference_perplexity:
        parts[-1] += f" (reference {perplexity_text(quality.reference_perplexity)})"
    return ", ".join(parts)


def _run(quality: Quality) -> str:
    parts = [shortened(f"{quality.kernel} on {quality.device}, {quality.dtype}", 80)]
    parts += [f"{format_bytes(quality.device_bytes)} held"] if quality.device_bytes else []
    parts += [f"{quality.tokens_per_second:.1f} tok/s"] if quality.tokens_per_second else []
    return ", ".join(parts)


# The list of models


class QualityMarks:
    """What rows of models say of their quality, read off the event loop.

    Attributes:
        known: The words by path of the model.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.known: dict[str, str] = {}
        self._on_change = on_change
        self._wanted: Sequence[ModelInfo] | None = None
        self._reading = False

    async def refresh(self, models: Sequence[ModelInfo]) -> None:
        """Read what was measured of these models; while that goes on, once more after it."""
        self._wanted = models
        if self._reading:
            return
        self._reading = True
        try:
            while self._wanted is not None:
                wanted, self._wanted = self._wanted, None
                found = await in_background(_words, wanted)
                if found != self.known:
                    self.known = found
                    self._on_change()
        finally:
            self._reading = False


def _words(models: Sequence[ModelInfo]) -> dict[str, str]:
    return {one.model.path: one.quality.short() for one in all_measured(models)}
