"""How many bytes a model needs on a device, and whether they are there: predicted from headers and config alone.

The parts are those that our own engine allocates. Each formula names the code that allocates; what could only be
estimated says so.
"""

from __future__ import annotations

import msgspec

from quantchat.catalog import gguf_fit
from quantchat.catalog.repacking import FLOAT, repacking
from quantchat.domain import offload
from quantchat.domain.kernel_table import DeviceKind, Kernel
from quantchat.domain.memory import MIB, Fit, cache_bytes
from quantchat.domain.models import ModelInfo, Pieces
from quantchat.domain.placement import Parts

CPU_RUNTIME = 800 * MIB
"""An engine process that has imported torch, transformers and GPTQModel and holds no model (796 MiB measured)."""
CUDA_CONTEXT = 600 * MIB
"""The driver's context, the code of the kernels and cuBLAS's workspace, outside torch's allocator (estimate)."""
LOADING = 40 * MIB
"""What a load imports and keeps besides on the CPU: the model's code, the modules as objects (27 to 78 measured)."""
OPTIMUM = 76 * MIB
"""What a GPTQ load through transformers imports too: optimum, and with it datasets and pyarrow (72 to 88 measured)."""
TOKENIZER_ENTRY = 600
"""Host bytes per entry of the vocabulary of a fast tokenizer."""
ALLOCATOR_SHARE = 0.02
"""Blocks of torch's CUDA allocator that nothing fits into (estimate)."""
CPU_CHUNK, CUDA_CHUNK = 256, 2048
"""Prompt tokens of one pass: `engine/turn.py`."""
GROWTH_STEP, GROWTH_SHARE = 256, 4
"""Room that a cache takes ahead when it grows: `engine/kvlayers.py`."""
SHORTEST_GRAPH = 1024
"""Tokens of the shortest buffer with a captured step, made at load: `engine/graphs.py`."""
GRAPH_POOL = 32 * MIB
"""Intermediate results that a captured step keeps (estimate)."""
DRAFTED = 9
"""Rows of logits in a pass of prompt lookup, and the token before: `engine/turn.py`."""
SAMPLING_COPIES = 6
"""Float32 copies of one row while it is sampled: softmax, sorting, their indices (estimate)."""
GRAPHLESS = frozenset({"gptq_exllama_v2", "awq_exllama_v2", "awq_gemv_fast", "gptq_torch", "awq_torch"})
"""Kernels whose step cannot be captured: `engine/graphs.py`."""
PLANNED_CONTEXT = 4096
TIGHT_SHARE = 0.9


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What a prediction is for.

    Attributes:
        device: Kind of the device.
        kernel: What multiplies by packed weights; None for unquantized ones.
        graphs: Decoding by captured CUDA graphs is wanted.
        runtime: Bytes of the process or context before a load, where they were measured.
        loaded: Bytes after a load of this very model with this kernel, where they were measured.
    """

    device: DeviceKind = "cpu"
    kernel: Kernel | None = None
    graphs: bool = True
    runtime: int | None = None
    loaded: int | None = None


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the device, by what holds them.

    Attributes:
        runtime: The process without a model (CPU), or the driver's context (CUDA).
        weights: As the kernel keeps them.
        workspace: The kernel's own buffers, and what a load leaves behind.
        buffers: Fixed buffers of the captured decode step; without room for them decoding is slower.
        cache: Keys and values of the conversation.
        passes: The largest intermediate results, of a prefill chunk or while a matrix is repacked.
        measured: What a load of this model came to before, in place of `loaded`.
        reserved: What a load takes of the cache at once, for any conversation; less where memory is short.
    """

    device: DeviceKind
    runtime: int
    weights: int
    workspace: int
    buffers: int
    cache: int
    passes: int
    measured: int | None = None
    reserved: int = 0

    @property
    def predicted(self) -> int:
        """Bytes after the load by the formulas alone: what `LoadReport.device_bytes` will say."""
        held = self.weights + self.workspace + self.reserved
        return held if self.device == "cuda" else held + self.runtime

    @property
    def loaded(self) -> int:
        """Bytes after the load, corrected by an earlier one."""
        return self.predicted if self.measured is None else self.measured

    @property
    def needed(self) -> int:
        """Bytes without which the model or the conversation does not fit."""
        context = self.runtime if self.device == "cuda" else 0
        return max(self.loaded - self.reserved, 0) + context + self.cache + self.passes

    @property
    def total(self) -> int:
        """Bytes with which everything runs at its best."""
        return self.needed + self.buffers


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a prediction fits: `missing` bytes are more than there are."""

    fit: Fit
    needed: int
    free: int
    missing: int = 0


def predict(model: ModelInfo, setting: Setting, tokens: int | None = None, kv_bytes: float = FLOAT) -> Prediction:
    """Predict the bytes of a model on one device with one conversation.

    Args:
        model: As the catalog read it.
        setting: Device and kernel.
        tokens: Length of the conversation; None takes 4,096, or the window where that is shorter.
        kv_bytes: Bytes of a number in the KV cache.
    """
    tokens = planned(model) if tokens is None else tokens
    if model.container == "gguf":
        return _predict_gguf(model, setting, tokens, kv_bytes)
    cuda = setting.device == "cuda"
    weights = weight_bytes(model, setting)
    first = _buffers(model, setting, 1)
    workspace = repacking(setting.kernel).workspace(model.weights.largest, model.weights.widest)
    workspace += int(weights * ALLOCATOR_SHARE) + first if cuda else _loading_bytes(model, setting)
    runtime = setting.runtime if setting.runtime is not None else CUDA_CONTEXT if cuda else CPU_RUNTIME
    transient = repacking(setting.kernel).transient_bytes * model.weights.largest
    cache, passes = _conversation(model, setting, tokens, kv_bytes)
    return Prediction(
        device=setting.device,
        runtime=runtime,
        weights=weights,
        workspace=workspace,
        buffers=max(_buffers(model, setting, tokens + 1) - first, 0) if tokens >= SHORTEST_GRAPH else 0,
        cache=cache,
        passes=max(passes, transient - cache),
        measured=setting.loaded,
    )


def _predict_gguf(model: ModelInfo, setting: Setting, tokens: int, kv_bytes: float) -> Prediction:
    cuda, reserved = setting.device == "cuda", gguf_fit.cells(model)
    runtime = setting.runtime if setting.runtime is not None else CUDA_CONTEXT if cuda else gguf_fit.RUNTIME
    cache = int(tokens * offload.token_bytes(model) * kv_bytes / FLOAT)
    return Prediction(
        device=setting.device,
        runtime=runtime,
        weights=model.weight_bytes,
        workspace=gguf_fit.beside(model, setting.device),
        buffers=max(reserved - cache, 0),
        cache=cache,
        passes=0,
        measured=setting.loaded,
        reserved=reserved,
    )


def _loading_bytes(model: ModelInfo, setting: Setting) -> int:
    """Host bytes that a load keeps beside the weights; mixtures of experts go without optimum, which is not known here.

    `GPTQMODEL_CASES` in `engine/loader.py` says what GPTQModel loads itself.
    """
    kernel, quant = setting.kernel, model.quant
    by_itself = kernel is None or kernel.transformers_name is None or quant.lm_head or quant.dynamic
    optimum = OPTIMUM if kernel is not None and kernel.method == "gptq" and not by_itself else 0
    return LOADING + optimum + model.shape.vocabulary * TOKENIZER_ENTRY


def planned(model: ModelInfo) -> int:
    """Tokens that a fit is judged for."""
    return min(model.context_window or PLANNED_CONTEXT, PLANNED_CONTEXT)


def weight_bytes(model: ModelInfo, setting: Setting) -> int:
    """Bytes of all weights on the device after the first pass.

    Floating-point tensors are loaded in 16 bits whatever their dtype on disk (`engine/loader.py`), a tied head is the
    embedding itself, packed matrices are what the kernel makes of them (`repacking`). Where the headers were not
    sorted, their plain sum.
    """
    parts = parts_of(model, setting)
    return parts.total or model.weight_bytes


def parts_of(model: ModelInfo, setting: Setting) -> Parts:
    """Return the weights as `domain.placement` divides them over devices, in bytes after the load."""
    sizes = model.weights

    def resident(pieces: Pieces) -> int:
        return repacking(setting.kernel).resident(pieces, act_order=bool(model.quant.desc_act))

    return Parts(
        prefix=sizes.prefix,
        layers=tuple(size for run in sizes.layers for size in [resident(run.pieces)] * run.count),
        inputs={"": resident(sizes.inputs)},
        outputs={"": resident(sizes.outputs)},
    )


def _conversation(model: ModelInfo, setting: Setting, tokens: int, kv_bytes: float) -> tuple[int, int]:
    """Bytes of the cache, and of the largest pass beside it, at the worst moment of a conversation.

    That is either the last chunk of the prompt, whose cache was allocated to measure, or the answer's first token,
    which makes the cache grow by a quarter (`TokenBuffer.append`).
    """
    exact = cache_bytes(model, tokens, kv_bytes)
    grown = cache_bytes(model, tokens + max(GROWTH_STEP, tokens // GROWTH_SHARE), kv_bytes)
    chunk = min(tokens, CUDA_CHUNK if setting.device == "cuda" else CPU_CHUNK)
    prefill, step = pass_bytes(model, setting, chunk, tokens), pass_bytes(model, setting, 1, tokens)
    return (exact, prefill) if exact + prefill > grown + step else (grown, step)


def pass_bytes(model: ModelInfo, setting: Setting, chunk: int, tokens: int) -> int:
    """Bytes of the intermediate results of one pass over `chunk` tokens, the last of `tokens`.

    The residual stream and a norm in float32 live through a layer; beside them either attention or the
    feed-forward block is at work (`LlamaDecoderLayer` and its like). Only the last logits are asked for.
    """
    shape = model.shape
    stream = chunk * shape.hidden_size * (2 * FLOAT + 8)
    block = 3 * chunk * model.weights.widest * FLOAT
    logits = shape.vocabulary * (DRAFTED * FLOAT + SAMPLING_COPIES * 4)
    return stream + max(block, _attention_bytes(model, setting, chunk, tokens)) + logits


def _attention_bytes(model: ModelInfo, setting: Setting, chunk: int, tokens: int) -> int:
    """Queries, keys, values and outputs of the chunk, the mask, and copies of the whole cache of a layer.

    The mask is boolean, and once more in the dtype of the queries (`scaled_dot_product_attention`). With it
    transformers repeats the keys for every head of a group on a GPU (`repeat_kv` in `sdpa_attention.py`); on the CPU
    `engine/attention.py` does not. MLA expands its compressed keys to all heads (`expand_kv`).
    """
    shape = model.shape
    heads = shape.attention_heads * shape.head_size
    own = chunk * (3 * heads + 2 * shape.kv_heads * shape.head_size) * FLOAT
    masked = chunk > 1 and tokens > chunk
    mask = chunk * tokens * (1 + FLOAT) if masked else 0
    repeated = masked and setting.device == "cuda" and shape.kv_heads < shape.attention_heads
    copies = 2 * heads if repeated and not model.attention.expanded_values else model.attention.expanded_values
    return own + mask + tokens * copies * FLOAT


def _buffers(model: ModelInfo, setting: Setting, tokens: int) -> int:
    """Bytes of the fixed buffers that a captured step over so many tokens needs (`Layout.nbytes` in `static.py`).

    Their lengths double from 1,024 to the window (`lengths` in `graphs.py`); sliding layers keep every position there.
    """
    spec = model.attention
    name = setting.kernel.name if setting.kernel else ""
    if setting.device != "cuda" or not setting.graphs or name in GRAPHLESS or spec.state_values or spec.state_bytes:
        return 0
    length = SHORTEST_GRAPH
    while length < tokens:
        length *= 2
    length = min(length, model.context_window or length)
    values = spec.full * spec.token_values + spec.sliding * spec.sliding_values
    return (length * values + model.shape.vocabulary) * FLOAT + GRAPH_POOL


def judge(prediction: Prediction, free: int) -> Judgement:
    """Compare with what is free; `tight` above 90 % of it, or where the captured step's buffers find no room."""
    needed = prediction.needed
    if needed > free:
        return Judgement(fit="too big", needed=needed, free=free, missing=needed - free)
    tight = prediction.total > free or needed > TIGHT_SHARE * free
    return Judgement(fit="tight" if tight else "fits", needed=needed, free=free)


def largest_context(model: ModelInfo, setting: Setting, free: int, kv_bytes: float = FLOAT) -> int:
    """Return the longest conversation that fits, in tokens, at most the model's window; 0 if not even a short one."""
    low, high = 0, model.context_window or LONGEST
    while low < high:
        middle = (low + high + 1) // 2
        fits = predict(model, setting, middle, kv_bytes).needed <= free
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


LONGEST = 2**20
"""Tokens, where a model does not say how long its window is."""
