"""What is known about a model on disk before it is loaded."""

from __future__ import annotations

from typing import Literal

import msgspec


class QuantSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the weights are quantized, as the model's own config says.

    Attributes:
        method: `gptq`, `awq`, or `none` for unquantized weights; other methods by their `quant_method` name; `served`
            where only a server knows.
        bits: Bits per weight.
        group_size: Weights that share a scale; -1 is one group per column.
        desc_act: GPTQ act-order: columns quantized by falling activation size.
        sym: Symmetric quantization, no stored zero point.
        checkpoint_format: How the integers are packed: `gptq`, `gptq_v2`, `marlin`, `gemm`, `gemv`, ...
        lm_head: The output head is quantized too.
        dynamic: Bits differ per module.
        source: Name of the file that said so.
        raw: The config itself, canonical keys, as transformers' `quantization_config` wants it.
    """

    method: str
    bits: int | None = None
    group_size: int | None = None
    desc_act: bool | None = None
    sym: bool | None = None
    checkpoint_format: str | None = None
    lm_head: bool = False
    dynamic: bool = False
    source: str = ""
    raw: dict[str, object] = {}

    def label(self) -> str:
        """The short form of a model row, such as `GPTQ 4b g128`."""
        if self.method == "none":
            return "unquantized"
        if self.method == "served":
            return "served"
        if self.method == "gguf" and self.checkpoint_format:
            return f"GGUF {self.checkpoint_format.upper()}"
        parts = [self.method.upper()]
        if self.bits is not None:
            parts.append(f"{self.bits}b")
        if self.group_size is not None:
            parts.append(f"g{self.group_size}" if self.group_size > 0 else "column")
        return " ".join(parts)


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether a format can run in this engine; what is wrong with one folder are its `problems`.

    Attributes:
        state: It `runs`, it would run `with` something that can be installed, or it `cannot`.
        reason: One line why, unless it runs.
        install: The exact command, for `with`.
    """

    state: Literal["runs", "with", "cannot"] = "runs"
    reason: str = ""
    install: str = ""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a model folder.

    Attributes:
        severity: An `error` keeps the model from loading; a `warning` does not.
        cause: One line: what is wrong.
        remedy: One line: what to do.
    """

    code: str
    severity: Literal["error", "warning"]
    cause: str
    remedy: str


class Shape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The sizes of the network that memory depends on; 0 where the config does not say."""

    layers: int = 0
    hidden_size: int = 0
    attention_heads: int = 0
    kv_heads: int = 0
    head_size: int = 0
    vocabulary: int = 0


class AttentionSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a conversation keeps in the KV cache; counts of numbers, to be multiplied by the size of one.

    Attributes:
        full: Layers that keep every token.
        sliding: Layers that keep the last `window` tokens.
        window: Tokens.
        token_values: Numbers per token and full layer: keys and values of all KV heads, or MLA's compressed ones.
        sliding_values: Likewise of a sliding layer.
        state_values: What layers without a token list (linear attention, state space, convolution) keep in all.
        state_bytes: What such layers keep besides in a dtype of their own, in bytes.
        expanded_values: Numbers per token that MLA makes of the compressed ones in every pass; 0 for other kinds.
    """

    full: int = 0
    sliding: int = 0
    window: int = 0
    token_values: int = 0
    sliding_values: int = 0
    state_values: int = 0
    state_bytes: int = 0
    expanded_values: int = 0


class Pieces(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The tensors of a part of a network, by what a load makes of them.

    Attributes:
        floats: Floating-point numbers outside packed matrices; loaded in the dtype of the activations.
        packed_weights: Weights of packed matrices, before packing.
        packed: Bytes of the integers that hold those.
        scales: Numbers of their scales.
        zeros: Bytes of their packed zero points.
        order: Bytes of their group indices (`g_idx`).
        other: Bytes of what is loaded as it is stored.
    """

    floats: int = 0
    packed_weights: int = 0
    packed: int = 0
    scales: int = 0
    zeros: int = 0
    order: int = 0
    other: int = 0


class LayerRun(msgspec.Struct, frozen=True):
    """So many neighbouring layers of the same pieces."""

    count: int
    pieces: Pieces


class WeightSizes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the headers say of the weights, enough to predict what any kernel makes of them on any device.

    Attributes:
        prefix: Name of the list of layers, such as `model.layers`.
        layers: The layers in their order.
        inputs: Before the layers: embeddings, image towers.
        outputs: After them: the last norm, the head.
        matrices: Input and output features of the packed matrices, each size once.
        largest: Weights of the largest packed matrix.
        widest: Output features of the widest matrix in a layer.
    """

    prefix: str = ""
    layers: tuple[LayerRun, ...] = ()
    inputs: Pieces = Pieces()
    outputs: Pieces = Pieces()
    matrices: tuple[tuple[int, int], ...] = ()
    largest: int = 0
    widest: int = 0


Kind = Literal["chat", "adapter", "embedding", "vision", "encoder", "draft", "other"]
Container = Literal["safetensors", "gguf", "pickle", "mlx", "server", "none"]


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model folder or GGUF file, read without loading it.

    Attributes:
        path: Absolute path of the folder, or of the GGUF file (the first of a split set), or as `servers.server_path`
            makes it; the model's identity.
        name: What the user calls it: `owner/name` in the hub cache, else the folder's name.
        root: The scan root under which it was found.
        revision: Commit of a hub snapshot.
        architecture: Class name from `config.json`, such as `LlamaForCausalLM`.
        model_type: `model_type` of `config.json`.
        parameters: Number of weights before packing, where headers tell.
        weight_bytes: Sum of the tensors in the safetensors headers, exact.
        disk_bytes: The files of the folder, without pictures and recordings beside the model.
        context_window: Tokens, from the config.
        remote_code: The model wants code of its own to run.
        kind: What it is for; only `chat` models hold conversations.
        container: The file format of the weights; `server` where a server has them.
        verdict: Whether its format can run here at all.
        tied: The output head shares the embedding's weights.
        attention: What a conversation keeps in the KV cache.
        weights: Sizes of the weights by what a load makes of them.
        files: Python files that remote code would run.
        copies: Other paths with the same files.
        modified: Newest modification time of its files, in seconds since the epoch.
        server: Name of the server that has it, as in the settings; empty for models of this machine.
    """

    path: str
    name: str
    root: str = ""
    revision: str | None = None
    architecture: str | None = None
    model_type: str | None = None
    quant: QuantSpec = QuantSpec(method="none")
    shape: Shape = Shape()
    parameters: int | None = None
    weight_bytes: int = 0
    disk_bytes: int = 0
    context_window: int | None = None
    has_chat_template: bool = False
    remote_code: bool = False
    kind: Kind = "chat"
    container: Container = "safetensors"
    verdict: Verdict = Verdict()
    tied: bool = False
    attention: AttentionSpec = AttentionSpec()
    weights: WeightSizes = WeightSizes()
    files: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    modified: float = 0.0
    server: str = ""
    problems: tuple[Problem, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep this model from loading."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def loadable(self) -> bool:
        """Whether a load is worth trying."""
        return not self.errors and self.verdict.state == "runs"

    @property
    def lacks_only_package(self) -> bool:
        """Whether it would run once a package is installed that the verdict names."""
        return self.verdict.state == "with" and all(problem.code == "package-missing" for problem in self.errors)
