"""Whether the models of both sides find room at once, beside what the chat's engine holds."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quantchat.catalog.fit import TIGHT_SHARE
from quantchat.domain import kernels
from quantchat.domain.memory import format_bytes
from quantchat.domain.models import ModelInfo
from quantchat.errors import ErrorReport
from quantchat.hardware.gpu import GpuSnapshot
from quantchat.services.experience import Experience
from quantchat.services.fit import Forecast, forecast
from quantchat.services.loads import LoadOptions
from quantchat.services.memory import MemoryView
from quantchat.store.measured import Measured

Wanted = tuple[ModelInfo, LoadOptions]


def beside_the_chat(view: MemoryView) -> MemoryView:
    """A look at the memory in which what the chat's engine holds counts as taken: it stays where it is."""
    gpus = view.gpus
    if isinstance(gpus, GpuSnapshot):
        devices = tuple(msgspec.structs.replace(gpu, engine_bytes=None) for gpu in gpus.devices)
        gpus = msgspec.structs.replace(gpus, devices=devices)
    return msgspec.structs.replace(view, gpus=gpus, engine_pid=None, engine_host_bytes=None)


def fit_at_once(wanted: Sequence[Wanted], view: MemoryView) -> bool:
    """Whether these models fit, with some room to spare, each in an engine of its own; false where nobody can know."""
    found = [forecast(model, view, options) for model, options in wanted if model.container != "server"]
    if any(one.judgement is None or one.judgement.fit != "fits" for one in found):
        return False
    shared = set.intersection(*(_devices(one) for one in found)) if len(found) > 1 else set()
    if not shared:
        return True
    judged = [one.judgement for one in found if one.judgement is not None]
    return sum(one.needed for one in judged) <= TIGHT_SHARE * min(one.free for one in judged)


def _devices(found: Forecast) -> set[str]:
    return {block.device for block in found.placement} or {device.device for device in found.devices}


def too_big(wanted: Wanted, view: MemoryView, chat: str) -> ErrorReport | None:
    """Explain why a model cannot be loaded beside the chat's; None if it can, or nobody knows.

    Args:
        wanted: The model, with all other engines of the comparison gone.
        view: As `beside_the_chat` gives it.
        chat: Name of the model that the chat's engine holds; empty for none.
    """
    judged = forecast(wanted[0], view, wanted[1]).judgement
    if judged is None or judged.fit != "too big":
        return None
    detail = f"It needs {format_bytes(judged.needed)}, and {format_bytes(judged.free)} are free"
    remedy = f"Unload {chat} from the chat first: F7" if chat else "Take a smaller model, or end what holds the memory"
    return ErrorReport(code="too-big", title=f"{wanted[0].name} finds no room", detail=detail, remedy=remedy)


def kernels_for(model: ModelInfo, view: MemoryView, options: LoadOptions) -> tuple[tuple[str, str], ...]:
    """Return the kernels for a model where it would be loaded, best first, each with why it cannot run it if so."""
    if model.container == "server":
        return ()
    found = forecast(model, view, msgspec.structs.replace(options, kernel=None))
    names = {device.device for device in found.devices}
    seen = view.gpus.devices if isinstance(view.gpus, GpuSnapshot) else ()
    gpus = [gpu for gpu in seen if f"cuda:{gpu.index}" in names]
    experience = view.experience or Experience(Measured())
    planned = kernels.plan(model.quant, experience.host(gpus), model.weights.matrices)
    why = {refusal.kernel: refusal.reason for refusal in planned.refusals}
    return tuple((name, why.get(name, "")) for name in planned.order)
