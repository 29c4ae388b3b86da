"""Two sides on an ordinary terminal: what they do on stderr, then both answers, or one JSON object."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click
import msgspec

from quantchat.cli.stoppable import run_stoppable
from quantchat.domain.divergence import Place
from quantchat.domain.generation import FinishReason, SamplingOverrides, SamplingSettings, TurnStatistics
from quantchat.domain.models import ModelInfo
from quantchat.domain.presets import find_preset
from quantchat.domain.runcard import ENDINGS
from quantchat.domain.text import clean, plain
from quantchat.errors import Cancelled, EngineError, ErrorReport
from quantchat.services.comparing import Choice, Comparison, Question, Side
from quantchat.services.loads import options_of
from quantchat.services.memory import MemoryWatch
from quantchat.services.presets import Presets
from quantchat.store.settings import Settings, load_settings

STOPPED = Cancelled("Stopped", "Both engines were ended")
NAMES = "AB"
Show = Callable[[Side], None]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A side as the command line names it."""

    model: ModelInfo
    kernel: str | None = None
    preset: str = ""
    max_tokens: int | None = None

    def choice(self, settings: Settings) -> Choice:
        """Look the preset up.

        Raises:
            UsageError: if there is none of that name.
        """
        presets = Presets(settings.presets).known()
        name = find_preset(presets, self.preset) if self.preset else ""
        values = presets[name] if name else SamplingOverrides()
        if self.max_tokens is not None:
            values = msgspec.structs.replace(values, max_new_tokens=self.max_tokens)
        return Choice(model=self.model, kernel=self.kernel, preset=name, sampling=values)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first differing token: its number, and where its text stands in the answer, or in the thinking."""

    token: int
    channel: str
    start: int
    end: int
    text: str


class SideReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one side said, how, and at what cost."""

    side: str
    model: str
    path: str
    quantization: str
    kernel: str
    device: str
    preset: str
    sampling: SamplingSettings | None
    text: str
    thinking: str
    finish: FinishReason | None
    statistics: TurnStatistics | None
    difference: Difference | None
    error: ErrorReport | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole comparison; `verdict` is `differs`, `equal`, `cut` (the same as far as both go) or empty."""

    prompt: str
    seed: int
    at_once: bool
    verdict: str
    common_characters: int
    sides: tuple[SideReport, ...]


def compare_models(
    first: Wish,
    second: Wish,
    *,
    prompt: str,
    system_prompt: str,
    seed: int | None,
    one_by_one: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Ask both, and print what came of it.

    Raises:
        UsageError: if there is no such preset.
        Cancelled: on Ctrl+C.
        EngineError: if a side failed, after what the other said was printed.
    """
    settings, _ = load_settings()
    options = options_of(settings, device=device)
    memory = MemoryWatch(options)
    comparison = Comparison(lambda: memory.look(None), options, sampling=settings.sampling, learn=memory.learn)
    comparison.choose(first.choice(settings), second.choice(settings))
    comparison.one_by_one = one_by_one
    question = Question(prompt=plain(prompt), system_prompt=plain(system_prompt), seed=seed)
    with _progress() as show:
        comparison.watch = lambda change: show(_side(comparison, change.side))
        run_stoppable(_ask(comparison, question), STOPPED)
    click.echo(msgspec.json.encode(report(comparison)).decode() if as_json else _words(comparison))
    for side in comparison.sides:
        if side.error is not None:
            raise EngineError.from_report(side.error)


async def _ask(comparison: Comparison, question: Question) -> None:
    try:
        await comparison.ask(question)
    finally:
        await comparison.close()


def _side(comparison: Comparison, track: int) -> Side:
    return next(side for side in comparison.sides if side.track == track)


def report(comparison: Comparison) -> Report:
    """Put together what a program may read."""
    return Report(
        prompt=comparison.question.prompt if comparison.question is not None else "",
        seed=comparison.seed,
        at_once=comparison.together,
        verdict=comparison.divergence.verdict,
        common_characters=comparison.divergence.common,
        sides=tuple(_reported(side) for side in comparison.sides),
    )


def _reported(side: Side) -> SideReport:
    answer = side.answer
    run = answer.run if answer is not None else None
    return SideReport(
        side=NAMES[side.track],
        model=side.choice.model.name,
        path=side.choice.model.path,
        quantization=side.choice.model.quant.label(),
        kernel=run.kernel if run is not None else "",
        device=run.device if run is not None else "",
        preset=side.choice.preset,
        sampling=run.sampling if run is not None else None,
        text=answer.text if answer is not None else "",
        thinking=answer.thinking if answer is not None else "",
        finish=answer.finish if answer is not None else None,
        statistics=answer.statistics if answer is not None else None,
        difference=_difference(side, side.place) if side.place is not None else None,
        error=side.error,
    )


def _difference(side: Side, place: Place) -> Difference:
    return Difference(**place._asdict(), text=_spoken(side, place)[place.start : place.end])


def _spoken(side: Side, place: Place) -> str:
    if side.answer is None:
        return ""
    return side.answer.text if place.channel == "answer" else side.answer.thinking


# Words


def _words(comparison: Comparison) -> str:
    parts = [_told(side) for side in comparison.sides]
    order = "both at once" if comparison.together else "one after the other"
    parts.append(f"{_verdict(comparison)}\nSeed {comparison.seed}, {order}.")
    return "\n\n".join(parts)


def _told(side: Side) -> str:
    run = side.answer.run if side.answer is not None else None
    made = [side.choice.model.quant.label(), run.kernel if run else "", run.device if run else "", side.choice.preset]
    head = clean("  ".join([f"{NAMES[side.track]}  {side.choice.model.name}", " · ".join(filter(None, made))]))
    return "\n".join(part for part in (click.style(head, bold=True), _answer(side), _cost(side)) if part)


def _answer(side: Side) -> str:
    """The answer, its first differing token marked where the terminal can show that."""
    answer, place = side.answer, side.place
    if answer is None:
        return ""
    if place is None or place.channel != "answer":
        return clean(answer.text)
    before, token, after = answer.text[: place.start], answer.text[place.start : place.end], answer.text[place.end :]
    return clean(before) + (click.style(clean(token), reverse=True) if token else "") + clean(after)


def _cost(side: Side) -> str:
    cost = side.answer.statistics if side.answer is not None else None
    if cost is None or side.answer is None:
        return ""
    ended = side.answer.finish
    parts = [
        f"{cost.new_tokens:,} tokens",
        f"{cost.tokens_per_second:.1f} tok/s",
        f"first token after {cost.prefill_seconds:.2f} s",
        ENDINGS[ended] if ended is not None and ended != "stop" else "",
    ]
    return click.style(" · ".join(filter(None, parts)), dim=True)


def _verdict(comparison: Comparison) -> str:
    """Say where the answers part."""
    places = [side.place for side in comparison.sides if side.place is not None]
    if len(places) == 2:
        numbers = " and ".join(dict.fromkeys(str(place.token) for place in places))
        said = ", ".join(f"{NAMES[side.track]} {_at(side)}" for side in comparison.sides)
        return f"The first difference is token {numbers}: {said}."
    words = {
        "equal": "Both answers are the same to the end.",
        "cut": "Both answers are the same as far as both go.",
    }
    return words.get(comparison.divergence.verdict, "The answers could not be compared to their end.")


def _at(side: Side) -> str:
    if side.place is None or side.place.start == side.place.end:
        return "ends there"
    token = _spoken(side, side.place)[side.place.start : side.place.end]
    where = " in its thinking" if side.place.channel == "thinking" else ""
    return f"says {clean(token, newlines=False)!r}{where}"


@contextlib.contextmanager
def _progress() -> Iterator[Show]:
    """Show on a terminal what each side does just now."""
    if not sys.stderr.isatty():
        yield lambda _side: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        rows = [bars.add_task(name) for name in NAMES]

        def show(side: Side) -> None:
            bars.update(rows[side.track], description=clean(_doing(side), newlines=False))

        yield show


def _doing(side: Side) -> str:
    name = f"{NAMES[side.track]}  {side.choice.model.name}: "
    if side.stage == "loading":
        return name + (f"loading, {side.loading.stage}" if side.loading is not None else "begins to load")
    if side.turn is not None:
        return f"{name}{side.turn.tokens:,} tokens, {side.turn.tokens_per_second:.1f} tok/s"
    return name + (side.stage or "waits")
