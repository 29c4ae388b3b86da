"""The run card of a message: who wrote it, how, and what that cost, in words."""

from __future__ import annotations

from collections.abc import Iterator

from quantchat.domain.chat import Message, RunCard
from quantchat.domain.generation import FinishReason, SamplingSettings, TurnStatistics
from quantchat.domain.sections import Row, Section
from quantchat.domain.servers import PREFIX

ENDINGS: dict[FinishReason, str] = {
    "stop": "complete",
    "length": "cut at the token limit",
    "stopped": "stopped",
    "context": "context window full",
    "error": "failed",
    "interrupted": "interrupted: quantchat ended before the answer did",
}
_ALWAYS = ("temperature", "top_p", "top_k", "max_new_tokens")
_DRAWING = ("top_p", "top_k", "min_p", "typical_p")
"""Without effect where the likeliest token is taken each time."""
_OFF = SamplingSettings(top_p=1.0, top_k=0)
_NAMES = {
    "top_p": "Top-p",
    "top_k": "Top-k",
    "min_p": "Min-p",
    "typical_p": "Typical-p",
    "no_repeat_ngram": "No-repeat n-gram",
    "max_new_tokens": "Longest answer",
    "stop": "Stop strings",
}


def run_card(message: Message, version: int = 1, versions: int = 1) -> tuple[Section, ...]:
    """Everything that is known of a message; what is not known is left out."""
    run, cost = message.run, message.statistics
    found = (
        Section(title="Message", rows=tuple(_message(message, version, versions))),
        Section(title="Model", rows=tuple(_model(run)) if run else ()),
        Section(title="Sampling", rows=tuple(_sampling(run.sampling, cost)) if run and run.sampling else ()),
        Section(title="Cost", rows=tuple(_cost(cost)) if cost else ()),
        Section(title="Libraries", rows=tuple(Row(*pair) for pair in run.versions.items()) if run else ()),
    )
    return tuple(part for part in found if part.rows)


def _message(message: Message, version: int, versions: int) -> Iterator[Row]:
    yield Row("Written", f"{message.created.astimezone():%Y-%m-%d %H:%M:%S %Z}")
    if versions > 1:
        yield Row("Version", f"{version} of {versions}")
    if message.edited_from is not None:
        yield Row("Changed", "by you; the text before stands beside it as a version")
    if message.given:
        yield Row("Begun by you", message.given)
    if message.finish is not None:
        yield Row("Ended", ENDINGS[message.finish], "" if message.finish == "stop" else "warning")
    if message.error is not None:
        yield Row("Error", message.error.sentence(), "error")
    thinking = f" and {len(message.thinking):,} of thinking" if message.thinking else ""
    yield Row("Length", f"{len(message.text):,} characters{thinking}")


def _model(run: RunCard) -> Iterator[Row]:
    rows = (
        Row("Name", run.model),
        Row("Server" if run.path.startswith(PREFIX) else "Folder", run.path),
        Row("Revision", run.revision),
        Row("Quantization", run.quantization),
        Row("Kernel", run.kernel),
        Row("Device", run.device),
        Row("Decoding", run.decoding),
    )
    yield from (row for row in rows if row.value)


def _sampling(sampling: SamplingSettings, cost: TurnStatistics | None) -> Iterator[Row]:
    greedy = sampling.temperature == 0
    seed = cost.seed if cost is not None and cost.seed is not None else sampling.seed
    if greedy:
        yield Row("Seed", "none: the likeliest token was taken each time")
    elif seed is not None:
        yield Row("Seed", str(seed))
    for name in SamplingSettings.__struct_fields__:
        value = getattr(sampling, name)
        without_effect = name == "seed" or (greedy and name in _DRAWING)
        if not without_effect and (name in _ALWAYS or value != getattr(_OFF, name)):
            yield Row(_NAMES.get(name, name.replace("_", " ").capitalize()), _value(name, value))


def _value(name: str, value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{text!r} {bias:+g}" for text, bias in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(repr, value))
    return f"{value:,} tokens" if name == "max_new_tokens" else f"{value:g}" if isinstance(value, float) else str(value)


def _cost(cost: TurnStatistics) -> Iterator[Row]:
    reused = f", {cost.reused_tokens:,} of them reused" if cost.reused_tokens else ""
    yield Row("Prompt", f"{cost.prompt_tokens:,} tokens{reused}")
    yield Row("Answer", f"{cost.new_tokens:,} tokens")
    if cost.prefill_seconds:
        yield Row("First token", f"after {cost.prefill_seconds:.2f} s")
    if cost.tokens_per_second:
        yield Row("Speed", f"{cost.tokens_per_second:.1f} tokens per second, {cost.decode_seconds:.1f} s in all")
    if cost.drafted:
        yield Row("Guessed ahead", f"{cost.accepted:,} of {cost.drafted:,} tokens were right")
