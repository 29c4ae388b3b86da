"""Everything that is known about a model without loading it, in sections to show, print or copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from quantchat.catalog.contents import FileEntry, list_files
from quantchat.catalog.sample import Sample
from quantchat.catalog.template import sample_of
from quantchat.domain.memory import format_bytes
from quantchat.domain.models import AttentionSpec, ModelInfo
from quantchat.domain.quality import Quality
from quantchat.domain.sections import Row, Section
from quantchat.domain.text import shortened
from quantchat.services.fit import Forecast
from quantchat.services.forecast import context_of, device_of, forecast_rows
from quantchat.services.quality import current, quality_rows
from quantchat.services.snippets import Snippet, snippets

SHOWN_FILES = 40
SHOWN_COPIES = 8
SHOWN_VALUE = 200
SHOWN_SETTINGS = 60
KINDS = {
    "chat": "chat model",
    "adapter": "adapter (LoRA) for another model",
    "embedding": "embedding model",
    "vision": "vision model",
    "encoder": "encoder",
    "draft": "draft model for speculative decoding",
    "other": "other",
}


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What a closer look at a model's folder brings; takes tenths of a second."""

    files: tuple[FileEntry, ...] = ()
    sample: Sample | None = None
    quality: tuple[Quality, ...] = ()


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """All of it as data; `forecast` and `looked` are None until somebody looked."""

    model: ModelInfo
    forecast: Forecast | None = None
    looked: Looked | None = None
    snippets: tuple[Snippet, ...] = ()
    server: tuple[Row, ...] = ()


def look(model: ModelInfo) -> Looked:
    """Look closer at a model's folder; never raises for what is there."""
    if model.container == "server":
        return Looked()
    path = Path(model.path)
    return Looked(files=list_files(path), sample=sample_of(path), quality=current(model))


def card(
    model: ModelInfo, forecast: Forecast | None, looked: Looked | None = None, server: Sequence[Row] = ()
) -> ModelCard:
    """Put together what is known about a model; `server` of the one that has it."""
    ways = snippets(model, device=device_of(forecast), context=context_of(forecast))
    return ModelCard(model=model, forecast=forecast, looked=looked, snippets=ways, server=tuple(server))


def sections(known: ModelCard) -> tuple[Section, ...]:
    """Return what is known in the order in which people ask: can it run, will it fit, what is it, how is it used."""
    model, looked = known.model, known.looked
    if model.container == "server":
        return _served(known)
    parts = [
        Section(title="Model", rows=tuple(_identity(model, known.forecast))),
        Section(title="Problems", rows=tuple(_problems(model))),
        Section(title="On this machine", rows=tuple(forecast_rows(model, known.forecast))),
        Section(title="Quality", rows=tuple(quality_rows(looked.quality if looked is not None else ()))),
        Section(title="Quantization", rows=tuple(_quantization(model))),
        Section(title="Network", rows=tuple(_network(model))),
        _template(model, looked),
        *(_snippet(snippet) for snippet in known.snippets),
        Section(title="Files", rows=tuple(_files(model, looked))),
    ]
    return tuple(part for part in parts if part.rows or part.pieces or part.copy)


# The parts


def _served(known: ModelCard) -> tuple[Section, ...]:
    """Return what is known of a model of a server: its files, its memory and its template are there, not here."""
    model = known.model
    identity = [
        Row("Name", _line(model.name)),
        Row("Verdict", f"{model.server} answers for it", "warning" if model.problems else "good"),
        Row("Server", model.server),
        Row("URL", _line(model.root, 1000)),
    ]
    window = f"{model.context_window:,} tokens" if model.context_window else "not told by the server"
    parts = [
        Section(title="Model", rows=(*identity, Row("Context", window))),
        Section(title="Problems", rows=tuple(_problems(model))),
        Section(title="Server", rows=known.server),
        *(_snippet(snippet) for snippet in known.snippets),
    ]
    return tuple(part for part in parts if part.rows)


def _identity(model: ModelInfo, found: Forecast | None) -> Iterator[Row]:
    yield Row("Name", _line(model.name))
    yield _verdict(model, found)
    if model.verdict.install:
        yield Row("Install", model.verdict.install)
    yield Row("Kind", KINDS[model.kind])
    yield Row("Path", _line(model.path, 1000))
    for copy in model.copies[:SHOWN_COPIES]:
        yield Row("Also at", _line(copy, 1000))
    if model.revision:
        yield Row("Revision", _line(model.revision))
    if model.root:
        yield Row("Found under", _line(model.root, 1000))
    if model.modified:
        yield Row("Changed", _time(model.modified))
    if model.remote_code:
        files = _line(", ".join(model.files)) if model.files else "Python code of its own"
        yield Row("Wants to run", f"{files}; never without your consent", "warning")


def _time(seconds: float) -> str:
    """Write a time; a disk may have one that no calendar has."""
    try:
        return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return "at no time of the calendar"


def _verdict(model: ModelInfo, found: Forecast | None) -> Row:
    verdict = model.verdict
    if verdict.state == "with":
        return Row("Verdict", f"needs something installed. {_line(verdict.reason)}", "warning")
    if verdict.state == "cannot":
        return Row("Verdict", f"cannot run here: {_line(verdict.reason)}", "error")
    if model.errors:
        return Row("Verdict", f"cannot be loaded: {model.errors[0].cause}", "error")
    if found is not None and found.problem:
        return Row("Verdict", "no kernel of this machine runs it; see below", "error")
    return Row("Verdict", ". ".join(filter(None, ("can run here", _line(verdict.reason)))), "good")


def _problems(model: ModelInfo) -> Iterator[Row]:
    for problem in model.problems:
        yield Row(problem.severity.capitalize(), f"{problem.cause} {problem.remedy}", problem.severity)


def _quantization(model: ModelInfo) -> Iterator[Row]:
    quant = model.quant
    yield Row("Format", quant.label())
    named: Mapping[str, object] = {
        "Bits": quant.bits,
        "Group size": "one per column" if quant.group_size == -1 else quant.group_size,
        "Act-order": quant.desc_act,
        "Symmetric": quant.sym,
        "Packing": quant.checkpoint_format,
        "Output head": "quantized too" if quant.lm_head else None,
        "Per module": "bits or groups differ per module" if quant.dynamic else None,
        "Said by": quant.source or None,
    }
    yield from (Row(label, _value(value)) for label, value in named.items() if value is not None)
    known = {"bits", "group_size", "desc_act", "sym", "checkpoint_format", "lm_head", "quant_method", "version"}
    if model.weight_bytes:
        yield Row("Weights", f"{format_bytes(model.weight_bytes)} in {model.container} files{_per_weight(model)}")
    others = [(key, value) for key, value in _flat(quant.raw) if key not in known]
    yield from (Row(shortened(key, 40), _value(value)) for key, value in others[:SHOWN_SETTINGS])


def _flat(settings: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Nested settings one after the other, such as `meta.damp_percent`."""
    for key, value in settings.items():
        if isinstance(value, dict) and value and above.count(".") < 3:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _per_weight(model: ModelInfo) -> str:
    if not model.parameters:
        return ""
    return f", {8 * model.weight_bytes / model.parameters:.2f} bits per weight in all"


def _network(model: ModelInfo) -> Iterator[Row]:
    shape = model.shape
    named: Mapping[str, object] = {
        "Architecture": model.architecture,
        "Model type": model.model_type,
        "Weights": f"{model.parameters:,}" if model.parameters else None,
        "Context": f"{model.context_window:,} tokens" if model.context_window else None,
        "Layers": shape.layers or None,
        "Hidden size": shape.hidden_size or None,
        "Heads": _heads(model),
        "Attention": _attention(model.attention),
        "Vocabulary": f"{shape.vocabulary:,} tokens" if shape.vocabulary else None,
        "Embeddings": "shared with the output head" if model.tied else None,
    }
    yield from (Row(label, _value(value)) for label, value in named.items() if value is not None)


def _attention(spec: AttentionSpec) -> str | None:
    """Say what a conversation keeps, unless every layer keeps every token."""
    kept = [f"{spec.full} layers keep every token"] if spec.full else []
    kept += [f"{spec.sliding} {'' if spec.full else 'layers keep '}the last {spec.window:,}"] if spec.sliding else []
    state = ["others a state of fixed size" if kept else "a state of fixed size"] if spec.state_values else []
    compressed = ["keys and values compressed (MLA)"] if spec.expanded_values else []
    if not (spec.sliding or state or compressed):
        return None
    return "; ".join(filter(None, (", ".join(kept), *state, *compressed)))


def _heads(model: ModelInfo) -> str | None:
    shape = model.shape
    if not shape.attention_heads:
        return None
    return f"{shape.attention_heads} of {shape.head_size} values, {shape.kv_heads} for keys and values"


def _template(model: ModelInfo, looked: Looked | None) -> Section:
    title = "Chat template"
    if looked is None:
        return Section(title=title, rows=(Row("", "looking …"),))
    sample = looked.sample
    if sample is None:
        words = "none; quantchat takes its own plain one (ChatML)"
        return Section(title=title, rows=(Row("", words),) if model.kind == "chat" else ())
    rows = [Row("Stands in", f"{sample.file}" + (f" as {sample.name}" if sample.others else ""))]
    rows += [Row("Others", ", ".join(sample.others))] if sample.others else []
    rows += [Row("Error", f"It cannot be rendered: {sample.problem}", "error")] if sample.problem else []
    rows += [Row("Note", note, "warning") for note in sample.notes]
    return Section(title=title, rows=tuple(rows), pieces=sample.pieces)


def _snippet(snippet: Snippet) -> Section:
    title = f"With {snippet.title}"
    if snippet.reason:
        return Section(title=title, rows=(Row("", _line(snippet.reason, 400)),))
    return Section(title=title, copy=snippet.text)


def _files(model: ModelInfo, looked: Looked | None) -> Iterator[Row]:
    yield Row("In all", format_bytes(model.disk_bytes))
    files = looked.files if looked is not None else ()
    for file in files[:SHOWN_FILES]:
        yield Row(format_bytes(file.size), _line(file.name) + (f" ({file.note})" if file.note else ""))
    if len(files) > SHOWN_FILES:
        rest = files[SHOWN_FILES:]
        yield Row(format_bytes(sum(file.size for file in rest)), f"in {len(rest):,} further files")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _line("none" if value is None else str(value))


def _line(text: str, limit: int = SHOWN_VALUE) -> str:
    return shortened(text, limit)
