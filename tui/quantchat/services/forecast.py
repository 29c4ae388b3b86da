"""What a model would need on this machine, and whether that is free."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from quantchat.domain.memory import Fit, format_bytes, kv_bytes_per_token
from quantchat.domain.models import ModelInfo
from quantchat.domain.sections import Row, Tone
from quantchat.hardware.gpu import GpuSnapshot

if TYPE_CHECKING:
    from quantchat.services.memory import MemoryView

TONES: dict[Fit, Tone] = {"fits": "good", "tight": "warning", "too big": "error", "broken": "error"}


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model would be loaded, and the forecast in words.

    Attributes:
        context: Largest context in tokens that fits, if that is known.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    context: int | None = None
    rows: tuple[Row, ...] = ()


def forecast(model: ModelInfo, view: MemoryView | None) -> Forecast:
    """Predict for the memory as it was seen last; None if nobody has looked yet."""
    if view is None:
        return Forecast(rows=(Row("", "looking at the memory …"),))
    device: Literal["cpu", "cuda"] = "cuda" if isinstance(view.gpus, GpuSnapshot) and view.gpus.devices else "cpu"
    return Forecast(device=device, rows=tuple(_rows(model, view)))


def _rows(model: ModelInfo, view: MemoryView) -> Iterator[Row]:
    fit = view.fit(model)
    yield Row("Fit", fit or "unknown", TONES[fit] if fit else "")
    if per_token := kv_bytes_per_token(model):
        yield Row("KV cache", f"{format_bytes(per_token)} per token")
