"""How many bytes llama.cpp needs for a GGUF file: what `engine/backends/llama` allocates.

It takes the cells of the KV cache and the buffers of a pass once, at the load, and nothing more afterwards.
"""

from __future__ import annotations

from quantchat.domain import offload
from quantchat.domain.kernel_table import DeviceKind
from quantchat.domain.memory import MIB
from quantchat.domain.models import ModelInfo

RUNTIME = 58 * MIB
"""An engine process that has imported llama.cpp and numpy, and holds no model (measured)."""
FLOAT = 4
STREAMS = 8
"""Copies of the residual stream's width that live at a time in a pass (estimate)."""
MASK = 6
"""Bytes of the attention mask for each token of a pass and each cell: float32, and 16 bits for flash attention."""
VOCABULARY_ENTRY = 120
"""Host bytes of an entry of the vocabulary (estimate)."""


def cells(model: ModelInfo) -> int:
    """Bytes of the KV cache that a load takes where memory is ample."""
    return offload.planned_cells(model) * offload.token_bytes(model)


def pass_buffers(model: ModelInfo, device: DeviceKind) -> int:
    """Bytes of the intermediate results of the largest pass."""
    rows = (offload.GPU_CHUNK if device == "cuda" else offload.CHUNK) + offload.SEQUENCES
    widths = STREAMS * model.shape.hidden_size + 3 * model.weights.widest
    logits = offload.SEQUENCES * model.shape.vocabulary * FLOAT
    return rows * (widths * FLOAT + offload.planned_cells(model) * MASK) + logits


def beside(model: ModelInfo, device: DeviceKind) -> int:
    """Bytes beside weights and cells."""
    on_host = model.shape.vocabulary * VOCABULARY_ENTRY if device == "cpu" else 0
    return pass_buffers(model, device) + on_host
