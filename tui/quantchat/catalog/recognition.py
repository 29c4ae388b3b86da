"""Say how a model is quantized, from its configs and the definitions in `formats`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from quantchat.catalog.definitions import Format, Path, Setting, Source
from quantchat.catalog.formats import BY_NAME, FORMATS, SOURCES, TRANSFORMERS_SOURCES, UNKNOWN, UNQUANTIZED
from quantchat.catalog.groups import Group
from quantchat.catalog.problems import clean, problem
from quantchat.catalog.verdicts import complaint, judge
from quantchat.domain.models import Problem, QuantSpec, Verdict

Config = Mapping[str, object]


class Recognition(msgspec.Struct, frozen=True):
    """What the configs of a folder say, the definition behind it, whether it can run, and what is wrong with it."""

    spec: QuantSpec
    format: Format
    verdict: Verdict = Verdict()
    problem: Problem | None = None


def recognise(configs: Mapping[str, Config | None]) -> Recognition:
    """Say how a model is quantized, from its parsed configs by file name. The first source that speaks wins."""
    for source, found in _sources(configs):
        method = _method(found, source, configs)
        definition = BY_NAME.get(method)
        if definition is None:
            spec = QuantSpec(method=clean(method, 32) or "unknown", source=source.file)
            return _refused(spec, UNKNOWN, problem("quantization-unknown", method=spec.method))
        return _read(definition, found, source)
    return Recognition(QuantSpec(method="none"), UNQUANTIZED)


def recognise_tensors(names: Collection[str]) -> Recognition | None:
    """Say what the tensors of a model are whose configs call it unquantized; None if they are plain weights."""
    suffixes = {suffix for name in names for suffix in _suffixes(name)}
    for definition in FORMATS:
        if suffixes.intersection(definition.signs):
            return _by_tensors(definition, next(name for name in names if name.endswith(definition.signs)))
    packed = next((name for name in names if name.endswith((".qweight", ".qzeros"))), None)
    if packed is None:
        return None
    spec = QuantSpec(method="unknown", source="tensors")
    return _refused(spec, UNKNOWN, problem("quantization-config-missing", tensor=packed))


def _by_tensors(definition: Format, tensor: str) -> Recognition:
    """Judge a format that no config names: most cannot be read without one."""
    spec = QuantSpec(
        method=definition.method,
        bits=definition.bits({}) if definition.bits else None,
        source="tensors",
        raw={"quant_method": definition.method} if definition.described else {},
    )
    if definition.cannot or definition.described:
        return _judged(spec, definition)
    return _refused(spec, definition, problem("quantization-config-missing", tensor=tensor))


def look_again(recognition: Recognition, groups: Sequence[Group]) -> Recognition:
    """Let the tensors speak where the configs say nothing, or what they hold cannot be read."""
    if recognition.spec.method == "none":
        recognition = recognise_tensors([one.tensors[0].name for one in groups]) or recognition
    misfit = recognition.format.misfit
    why = misfit(groups, recognition.spec) if misfit and recognition.verdict.state != "cannot" else ""
    fault = problem("format-cannot-run", format=recognition.format.title, why=why)
    return _refused(recognition.spec, recognition.format, fault, why) if why else recognition


def _suffixes(name: str) -> Iterator[str]:
    """The ends of a tensor name that a format's signs may be."""
    parts = name.split(".")
    for length in (1, 2, 3):
        yield "." + ".".join(parts[-length:])
    yield "_" + name.rpartition("_")[2]


def _sources(configs: Mapping[str, Config | None]) -> Iterator[tuple[Source, Config]]:
    for source in SOURCES:
        found = _follow(configs.get(source.file), source.key)
        if isinstance(found, dict) and found:
            yield source, found


def _method(found: Config, source: Source, configs: Mapping[str, Config | None]) -> str:
    named = found.get("quant_method") or found.get("method")
    if isinstance(named, str):
        return named.strip().lower()
    if found.get("load_in_4bit") or found.get("load_in_8bit"):
        return "bitsandbytes"
    if source.method:
        return source.method
    return "mlx" if (configs.get(source.file) or {}).get("quantization") else ""


def _read(definition: Format, found: Config, source: Source) -> Recognition:
    values: dict[str, object] = {}
    for field, setting in (definition.settings | definition.extras).items():  # type: ignore[operator]
        value = _look_up(found, setting)
        fault = _fault(field, value, setting)
        if fault and definition.kernels:
            return _senseless(QuantSpec(method=definition.method, source=source.file), definition, fault)
        values[field] = setting.default if value is None or fault else value
    if isinstance(values.get("checkpoint_format"), str):
        values["checkpoint_format"] = clean(_packing(found, values), 32).lower()
    fields = {name: value for name, value in values.items() if name in definition.settings}
    if fields.get("bits") is None and definition.bits is not None:
        fields["bits"] = definition.bits(found)
    spec = QuantSpec(
        method=definition.method,
        source=source.file,
        dynamic=bool(found.get("dynamic")),
        raw=_raw(definition, found, values, source),
        **fields,  # type: ignore[arg-type]
    )
    if not _travels(spec.raw):
        fault = "it holds text or numbers that no program can pass on"
        return _senseless(msgspec.structs.replace(spec, raw={}), definition, fault)
    return _judged(spec, definition)


def _judged(spec: QuantSpec, definition: Format) -> Recognition:
    verdict = judge(definition, spec)
    return Recognition(spec, definition, verdict, complaint(definition, spec, verdict))


def _refused(spec: QuantSpec, definition: Format, fault: Problem, why: str = "") -> Recognition:
    return Recognition(spec, definition, Verdict(state="cannot", reason=why or fault.cause), fault)


def _senseless(spec: QuantSpec, definition: Format, fault: str) -> Recognition:
    return _refused(spec, definition, problem("quantization-invalid", file=spec.source, why=fault))


def _packing(found: Config, values: Config) -> object:
    packed = found.get("is_marlin_format") is True or found.get("quant_method") == "marlin"
    return "marlin" if packed else values["checkpoint_format"]


def _look_up(found: Config, setting: Setting) -> object:
    for place in setting.places:
        value = _follow(found, place)
        if value is not None:
            return value
    return None


def _follow(value: object, path: Path) -> object:
    for key in path:
        if isinstance(value, list):
            value = value[int(key)] if key.isdigit() and int(key) < len(value) else None
        elif not isinstance(value, dict):
            return None
        else:
            value = next(iter(value.values()), None) if key == "*" else value.get(key)
    return value


def _fault(field: str, value: object, setting: Setting) -> str:
    if value is None:
        return f"{field} is missing" if setting.default is ... else ""
    if type(value) is not setting.kind:
        return f"{field} is {value!r}"
    if isinstance(value, bool) or not isinstance(value, int):
        return ""
    sensible = 1 <= value <= 16 if field == "bits" else value == -1 or 0 < value < 2**31
    return "" if sensible else f"{field} is {value!r}"


def _raw(definition: Format, found: Config, values: Config, source: Source) -> dict[str, object]:
    """The config where the loader has to pass it on, because transformers does not find or understand it."""
    if definition.kernels:
        return _canonical(definition, found, values)
    if definition.cannot or source in TRANSFORMERS_SOURCES:
        return {}
    return {**found, "quant_method": definition.method}


def _canonical(definition: Format, found: Config, values: Config) -> dict[str, object]:
    spelled = {path[0] for setting in definition.settings.values() for path in setting.places}
    known = spelled | {"quant_method", "method", "is_marlin_format"}
    raw = {key: value for key, value in found.items() if key not in known}
    named = {definition.raw_names.get(field, field): value for field, value in values.items()}
    return raw | named | {"quant_method": definition.method}


def _travels(raw: dict[str, object]) -> bool:
    try:
        msgspec.msgpack.encode(raw)
    except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError):
        return False
    return True
