"""The README.md of a quantized model: what it was made of, how, and how good it is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from quantchat import __version__
from quantchat.domain.memory import format_bytes
from quantchat.domain.quality import Quality
from quantchat.domain.quantizing import DAMPING, CalibrationChoice, CalibrationReport, Recipe
from quantchat.domain.text import clean, shortened
from quantchat.engine.protocol import JobModule
from quantchat.services.pull.names import looks_like_repository
from quantchat.services.quantizing.plan import Preflight, Smoke

FILE = "README.md"
BUNDLED = "quantchat's bundled set"
KEPT = ("license", "license_name", "license_link", "language")
"""What a derived model has in common with its source; taken over from the source's own card."""
MOST_FRONT_MATTER = 64 * 1024
_FIELD = re.compile(r"^(\w+): *(?:\"([^\"\\\n]*)\"|'([^'\n]*)'|([\w./][^\n]*?))(?: +#[^\n]*)? *$", re.MULTILINE)
"""Of front matter: a name, and a value in one line, in quotes of either kind or without."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """All that a card tells, besides the preflight.

    Attributes:
        choice: The calibration text as the engine read it.
        versions: Of the engine's libraries.
        weight_bytes: Of the result.
    """

    choice: CalibrationChoice = CalibrationChoice()
    modules: Sequence[JobModule] = ()
    calibration: CalibrationReport | None = None
    versions: Mapping[str, str] = {}
    weight_bytes: int = 0
    seconds: float = 0.0
    smoke: Smoke | None = None
    quality: Quality | None = None


def write(preflight: Preflight, made: Made) -> str:
    """Return the text of a card."""
    parts = [
        _front_matter(preflight),
        _head(preflight),
        _table(("Setting", "Value"), settings(preflight.plan.recipe)),
        "## Calibration\n\n" + _calibration(made),
        "## Made with\n\n"
        + _table(("Program", "Version"), sorted({"quantchat": __version__, **made.versions}.items())),
    ]
    if made.quality is not None:
        parts.append("## Quality\n\n" + _table(("Measured", "Value"), _quality(made.quality)))
    if made.smoke is not None:
        parts.append("## One question\n\n" + _smoke(made.smoke))
    if any(module.error is not None for module in made.modules):
        parts.append("## Error per layer\n\n" + _errors(made.modules))
    return "\n\n".join(parts) + "\n"


def _front_matter(preflight: Preflight) -> str:
    recipe, source = preflight.plan.recipe, _source_name(preflight)
    fields = [f"{name}: {value}" for name, value in _kept(preflight).items()]
    if looks_like_repository(source) and not preflight.plan.adapter:
        fields += [f"base_model: {_quoted(source)}", "base_model_relation: quantized"]
    fields += [
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "quantized_by: quantchat",
        f"tags: [{recipe.method}, {recipe.bits}-bit, quantchat]",
    ]
    return "\n".join(["---", *fields, "---"])


def _kept(preflight: Preflight) -> dict[str, str]:
    """Licence and language of the source, where its own card has them in one line."""
    if preflight.model is None or preflight.model.container == "gguf":
        return {}
    try:
        with (Path(preflight.model.path) / FILE).open(encoding="utf-8", errors="replace") as file:
            text = file.read(MOST_FRONT_MATTER)
    except OSError:
        return {}
    head = text[4:].partition("\n---")[0] if text.startswith("---\n") else ""
    return {name: _quoted("".join(value)) for name, *value in _FIELD.findall(head) if name in KEPT}


def _head(preflight: Preflight) -> str:
    recipe = preflight.plan.recipe
    merged = f", with the LoRA adapter {_code(Path(preflight.plan.adapter).name)} merged into it"
    lines = [
        f"# {_plain(preflight.output.name)}",
        f"{_code(_source_name(preflight))}{merged if preflight.plan.adapter else ''}, quantized to {recipe.label()} by "
        f"quantchat on {datetime.now(UTC):%Y-%m-%d}.",
    ]
    return "\n\n".join(lines)


def _source_name(preflight: Preflight) -> str:
    return preflight.model.name if preflight.model is not None else Path(preflight.plan.source).name


def settings(recipe: Recipe) -> list[tuple[str, str]]:
    """Return a recipe as rows of a table, in the field's words."""
    size = recipe.group_size
    rows = [
        ("Method", recipe.method.upper()),
        ("Bits", str(recipe.bits)),
        ("Group size", "one group per column" if size == -1 else str(size)),
        ("Symmetric", _yes(recipe.symmetric)),
        ("Output head quantized", _yes(recipe.lm_head)),
        ("Format", recipe.packing),
    ]
    if recipe.method == "gptq":
        rows[3:3] = [("Act-order (desc_act)", _yes(recipe.desc_act))]
        rows += [("Damping", f"{DAMPING if recipe.damping is None else recipe.damping:g}")]
    return rows


def _calibration(made: Made) -> str:
    choice = made.choice
    rows = [("Text", _plain(choice.name or Path(choice.path).name or BUNDLED))]
    if made.calibration is not None:
        rows += report_rows(made.calibration)
    return _table(("Calibration", "Value"), [*rows, ("Longest that is allowed", f"{choice.length:,} tokens")])


def report_rows(report: CalibrationReport) -> Iterator[tuple[str, str]]:
    """Say what became of a calibration set, as rows of a table."""
    yield "Samples", f"{report.samples:,}{f' of {report.available:,}' if report.available > report.samples else ''}"
    yield "Tokens", f"{report.tokens:,}"
    yield "Lengths", f"{report.shortest:,} to {report.longest:,} tokens, {report.middle:,} in the middle"
    if report.cut:
        yield "Cut", f"{report.cut:,}"
    if report.dropped or report.duplicates:
        yield "Left out", f"{report.dropped:,} too short, {report.duplicates:,} twice in the text"
    if report.padding:
        yield "Padding", f"{report.padding:,} tokens, masked"
    yield "Template", "the model's own chat template" if report.template == "model" else "none: texts were joined"


def _quality(quality: Quality) -> Iterator[tuple[str, str]]:
    against = f" (reference {quality.reference_perplexity:.2f})" if quality.reference_perplexity else ""
    yield "Perplexity", f"{quality.perplexity:.2f}{against}"
    if quality.divergence is not None:
        yield f"KL divergence from {_plain(quality.reference)}", f"{quality.divergence:.4f} nats per token"
    if quality.agreement is not None:
        yield "Same likeliest next token", f"{quality.agreement:.1%}"
    yield "Text", f"{_plain(quality.text)}, {quality.tokens:,} tokens in windows of {quality.window}"
    if quality.disk_bytes:
        yield "Weights", format_bytes(quality.disk_bytes)
    if quality.tokens_per_second:
        yield "Decoding", f"{quality.tokens_per_second:.1f} tokens per second with {quality.kernel} on {quality.device}"


def _smoke(smoke: Smoke) -> str:
    answer = clean(smoke.answer).replace("```", "'''")
    speed = f"{smoke.tokens_per_second:.1f} tokens per second with {smoke.kernel}"
    warning = f"\n\n**{_plain(smoke.warning)}.**" if smoke.warning else ""
    return f"> {_plain(smoke.question)}\n\n```text\n{answer}\n```\n\n{speed}{warning}"


def _errors(modules: Sequence[JobModule]) -> str:
    """A line per layer: means over its modules would hide the one that suffers, so that is named."""
    layers: dict[int, list[JobModule]] = defaultdict(list)
    for module in modules:
        if module.error is not None:
            layers[module.layer].append(module)
    rows = []
    for layer, inside in sorted(layers.items()):
        worst = max(inside, key=lambda module: module.error or 0.0)
        mean = sum(module.error or 0.0 for module in inside) / len(inside)
        name = str(layer) if layer >= 0 else "outside"
        rows.append((name, f"{mean:.3g}", _code(worst.module), f"{worst.error:.3g}"))
    return _table(("Layer", "Mean error", "Worst module", "Its error"), rows)


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _plain(text: str) -> str:
    """A foreign name as one line of Markdown that means nothing but itself."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", shortened(text, 200))


def _code(text: str) -> str:
    return "`" + shortened(text, 200).replace("`", "'").replace("|", "\\|") + "`"


def _quoted(text: str) -> str:
    """A text as a value in YAML, whatever is in it."""
    return text if re.fullmatch(r"\w[\w./-]*", text) else msgspec.json.encode(shortened(text, 200)).decode()
