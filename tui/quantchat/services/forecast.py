"""The forecast of a load in words: will it fit, how long may a conversation be, which kernel would run."""

from __future__ import annotations

from collections.abc import Iterator

from quantchat.catalog.fit import Prediction
from quantchat.domain.kernels import DENSE
from quantchat.domain.memory import Fit, format_bytes, kv_bytes_per_token
from quantchat.domain.models import ModelInfo
from quantchat.domain.sections import Row, Tone
from quantchat.hardware.holders import Holder
from quantchat.services.fit import DeviceMemory, Forecast
from quantchat.services.snippets import Device

TONES: dict[Fit, Tone] = {"fits": "good", "tight": "warning", "too big": "error", "broken": "error"}
SHOWN_HOLDERS = 5


def device_of(found: Forecast | None) -> Device:
    """Return the kind of device that a model would go to."""
    return "cuda" if found is not None and any(d.device.startswith("cuda") for d in found.devices) else "cpu"


def context_of(found: Forecast | None) -> int | None:
    """Return the longest context that fits on a GPU, if that is known."""
    if found is None or device_of(found) == "cpu" or not found.contexts:
        return None
    return found.contexts[0].tokens or None


def forecast_rows(model: ModelInfo, found: Forecast | None) -> Iterator[Row]:
    """Say what a load would come to; None while nobody has looked at the memory."""
    if found is None:
        yield Row("", "looking at the memory …")
        return
    if not model.loadable:
        yield Row("", "It cannot be loaded as it is; this is what its files tell.", "warning")
    if found.interpreter:
        words = f"{found.interpreter} loads it, by the settings; what follows is told of quantchat's own"
        yield Row("Interpreter", words, "warning")
    yield from _fit(found)
    yield from _kernel(model, found)
    if found.prediction is not None and model.weight_bytes:
        yield from _memory(found.prediction)
    if per_token := kv_bytes_per_token(model):
        yield Row("KV cache", f"{format_bytes(per_token)} per token in 16 bits")
    for row in found.contexts:
        elsewhere = "" if row.supported else ", in other programs"
        yield Row("Context", f"{row.tokens:,} tokens fit with a cache of {row.kind}{elsewhere}")
    if len(found.placement) > 1:
        yield Row("Placement", ", ".join(block.describe() for block in found.placement))
    for device in found.devices:
        yield from _device(device)


def _fit(found: Forecast) -> Iterator[Row]:
    judged = found.judgement
    if judged is None:
        return
    words = f"{judged.fit}: needs {format_bytes(judged.needed)}, {format_bytes(judged.free)} are free"
    missing = f"; {format_bytes(judged.missing)} missing" if judged.missing else ""
    yield Row("Fit", words + missing, TONES[judged.fit])


def _kernel(model: ModelInfo, found: Forecast) -> Iterator[Row]:
    if found.problem:
        yield Row("Kernel", found.problem, "error")
    elif found.kernel == DENSE and model.loadable:
        yield Row("Kernel", "none needed: the weights are not packed")
    elif found.kernel and found.kernel != DENSE:
        slow = "; a slow one, a tenth of the usual speed or less" if found.slow else ""
        yield Row("Kernel", found.kernel + slow, "warning" if found.slow else "good")
    for refusal in found.refusals:
        yield Row("Not", f"{refusal.kernel}: {refusal.reason.rstrip('.')}. {refusal.remedy}".rstrip())


def _memory(bytes_by: Prediction) -> Iterator[Row]:
    parts = {
        "weights": bytes_by.weights,
        "workspace": bytes_by.workspace + bytes_by.buffers,
        "conversation": bytes_by.cache,
        "prefill": bytes_by.passes,
        "runtime": bytes_by.runtime,
    }
    yield Row("Memory", ", ".join(f"{format_bytes(size)} {name}" for name, size in parts.items() if size))
    if bytes_by.measured is not None:
        said = f"predicted {format_bytes(bytes_by.predicted)}"
        yield Row("Measured", f"{format_bytes(bytes_by.measured)} after an earlier load; {said}")


def _device(device: DeviceMemory) -> Iterator[Row]:
    free = "unknown" if device.free is None else format_bytes(device.free)
    total = f" of {format_bytes(device.total)}" if device.total else ""
    yield Row(device.device, f"{free} free{total}{f', {device.name}' if device.name else ''}")
    for holder in device.holders[:SHOWN_HOLDERS]:
        yield Row("", _held(holder))


def _held(holder: Holder) -> str:
    size = "some" if holder.bytes is None else format_bytes(holder.bytes)
    whose = f" of {holder.owner}" if holder.owner else ""
    return f"{size} held by process {holder.pid}{f' ({holder.command})' if holder.command else ''}{whose}"
