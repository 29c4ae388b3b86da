"""Models and cards for the tests of serving, of the sizes that real ones have."""

from __future__ import annotations

import msgspec

from quantchat.domain.memory import GIB
from quantchat.domain.models import AttentionSpec, ModelInfo, QuantSpec, Shape, WeightSizes
from quantchat.hardware.gpu import GpuDevice, GpuSnapshot, NotAvailable
from quantchat.hardware.host import HostMemory
from quantchat.services.memory import MemoryView

GPTQ = QuantSpec(
    method="gptq", bits=4, group_size=128, desc_act=False, sym=True, checkpoint_format="gptq", source="config.json"
)
AWQ = QuantSpec(method="awq", bits=4, group_size=128, checkpoint_format="gemm", source="config.json")
PLAIN = QuantSpec(method="none")
HOST = HostMemory(total=64 * GIB, used=8 * GIB, available=56 * GIB)


def network(
    *,
    heads: int = 32,
    kv_heads: int = 8,
    hidden: int = 4096,
    inner: int = 14336,
    layers: int = 32,
    weights: int = 6 * GIB,
    window: int | None = 131072,
    quant: QuantSpec = GPTQ,
    **more: object,
) -> ModelInfo:
    """Llama 3 8B in 4 bits, or something like it."""
    size = hidden // heads
    matrices = ((hidden, hidden), (hidden, kv_heads * size), (hidden, inner), (inner, hidden))
    return msgspec.structs.replace(
        ModelInfo(
            path="/models/llama 8b",
            name="org/llama-8b",
            architecture="LlamaForCausalLM",
            model_type="llama",
            quant=quant,
            shape=Shape(
                layers=layers,
                hidden_size=hidden,
                attention_heads=heads,
                kv_heads=kv_heads,
                head_size=size,
                vocabulary=128256,
            ),
            attention=AttentionSpec(full=layers, token_values=2 * kv_heads * size),
            weights=WeightSizes(matrices=matrices if quant is not PLAIN else (), widest=inner),
            weight_bytes=weights,
            context_window=window,
            has_chat_template=True,
        ),
        **more,
    )


def card(
    index: int = 0, *, total: float = 24, free: float | None = None, capability: tuple[int, int] = (8, 6)
) -> GpuDevice:
    """A card, with its memory in GiB."""
    left = total - 0.5 if free is None else free
    return GpuDevice(
        index=index,
        name="card",
        total=int(total * GIB),
        free=int(left * GIB),
        capability=capability,
        uuid=f"GPU-{index}",
    )


def look(*cards: GpuDevice) -> MemoryView:
    """A look at a machine with these cards."""
    return MemoryView(gpus=GpuSnapshot(cards) if cards else NotAvailable("no NVIDIA GPU"), host=HOST)
