"""Random-weight GPTQ and AWQ checkpoints of a given shape, made on the spot, and the dense model they stand for.

No quantizing: integers, zero points and scales are drawn per matrix from a seed, packed as the formats want them, and
multiplied out for the reference. Both are made from the same integers, so a kernel must agree with the reference.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

WORD = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring columns stands at each nibble of an AWQ word, lowest first."""
SPREAD = 2.5 / 16
"""Standard deviation of the integers as a share of their range: few are clamped, as in real checkpoints."""
LOGITS_SPREAD = 3.0
ROUTER_SPREAD = 4.0
"""Experts are chosen clearly: where two are nearly equal, rounding takes another one and the logits jump."""
END_OF_ANSWER = 1
SHARD_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Recipe:
    """Shape and packing of a checkpoint; the defaults are tiny."""

    name: str
    method: str = "gptq"
    bits: int = 4
    group_size: int = 32
    desc_act: bool = False
    sym: bool = True
    experts: int = 0
    layers: int = 2
    hidden: int = 128
    intermediate: int = 256
    heads: int = 4
    kv_heads: int = 2
    window: int = 1024
    vocabulary: int = 384
    seed: int = 5

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    def config(self) -> Any:
        from transformers import AutoConfig

        shape = {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size,
            "max_position_embeddings": self.window,
            "tie_word_embeddings": False,
        }
        if not self.experts:
            return AutoConfig.for_model("llama", **shape)
        mixture = {
            "num_experts": self.experts,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": self.intermediate,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "norm_topk_prob": True,
        }
        return AutoConfig.for_model("qwen3_moe", **shape, **mixture)

    def quantization(self) -> dict[str, Any]:
        """The `quantization_config` of config.json."""
        if self.method == "awq":
            return {
                "quant_method": "awq",
                "bits": self.bits,
                "group_size": self.group_size,
                "version": "gemm",
                "zero_point": True,
                "modules_to_not_convert": None,
            }
        return {
            "quant_method": "gptq",
            "bits": self.bits,
            "group_size": self.group_size,
            "desc_act": self.desc_act,
            "sym": self.sym,
            "lm_head": False,
            "checkpoint_format": "gptq",
            "damp_percent": 0.05,
            "true_sequential": True,
            "meta": {"quantizer": ["gptqmodel:7.7.0"]},
        }

    def matrices(self) -> Iterator[tuple[str, int, int]]:
        """Name, input and output features of every quantized matrix."""
        query, value = self.heads * self.head_size, self.kv_heads * self.head_size
        for layer in range(self.layers):
            attention = f"model.layers.{layer}.self_attn"
            yield f"{attention}.q_proj", self.hidden, query
            yield f"{attention}.k_proj", self.hidden, value
            yield f"{attention}.v_proj", self.hidden, value
            yield f"{attention}.o_proj", query, self.hidden
            mlp = f"model.layers.{layer}.mlp"
            for block in [f"{mlp}.experts.{expert}" for expert in range(self.experts)] or [mlp]:
                yield f"{block}.gate_proj", self.hidden, self.intermediate
                yield f"{block}.up_proj", self.hidden, self.intermediate
                yield f"{block}.down_proj", self.intermediate, self.hidden

    def plain(self, device: str) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors that are not quantized, in float16."""
        for name, shape, spread in self._plain_shapes():
            made = torch.randn(shape, generator=_generator(self, name, device), device=device) * spread
            if name == "lm_head.weight":
                # Never the likeliest token: a greedy answer goes on until it is cut.
                made[END_OF_ANSWER] = 0.0
            yield name, (made + 1 if name.endswith("norm.weight") else made).half()

    def _plain_shapes(self) -> Iterator[tuple[str, tuple[int, ...], float]]:
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden), 1.0
        yield "lm_head.weight", (self.vocabulary, self.hidden), LOGITS_SPREAD / math.sqrt(self.hidden)
        yield "model.norm.weight", (self.hidden,), 0.1
        for layer in range(self.layers):
            root = f"model.layers.{layer}"
            yield f"{root}.input_layernorm.weight", (self.hidden,), 0.1
            yield f"{root}.post_attention_layernorm.weight", (self.hidden,), 0.1
            if self.experts:
                yield f"{root}.self_attn.q_norm.weight", (self.head_size,), 0.1
                yield f"{root}.self_attn.k_norm.weight", (self.head_size,), 0.1
                yield f"{root}.mlp.gate.weight", (self.experts, self.hidden), ROUTER_SPREAD / math.sqrt(self.hidden)


SEVEN_B = Recipe(
    "7b", group_size=128, layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, window=32768,
    vocabulary=32768,
)  # fmt: skip
"""Shape of Mistral 7B and of Llama 3.1 8B but for the vocabulary; 3.6 GiB of packed weights."""


def variants(base: Recipe) -> tuple[Recipe, ...]:
    """One checkpoint of each packing that the suite tries, of a base's shape."""
    return (
        base,
        replace(base, name=f"{base.name}-g64", group_size=64),
        replace(base, name=f"{base.name}-act-order", desc_act=True),
        replace(base, name=f"{base.name}-8bit", bits=8),
        replace(base, name=f"{base.name}-awq", method="awq", sym=False),
        replace(base, name=f"{base.name}-moe", experts=8, intermediate=base.intermediate // 2),
    )


@dataclass(frozen=True)
class Matrix:
    """A quantized matrix before packing: weight[out, in] = (integers[in, out] - zeros[group, out]) * scales.

    Attributes:
        groups: The group of each input feature.
    """

    integers: torch.Tensor
    zeros: torch.Tensor
    scales: torch.Tensor
    groups: torch.Tensor

    def dense(self) -> torch.Tensor:
        """Multiply out, in float32, of shape [out, in]."""
        zeros, scales = self.zeros[self.groups], self.scales.float()[self.groups]
        return ((self.integers - zeros).float() * scales).T


def draw(recipe: Recipe, name: str, columns: int, rows: int, device: str) -> Matrix:
    """Draw one matrix of so many input and output features; the same for the same recipe, name and kind of device."""
    generator = _generator(recipe, name, device)
    top, count = 2**recipe.bits, columns // recipe.group_size
    groups = torch.arange(columns, device=device) // recipe.group_size
    if recipe.desc_act:
        groups = groups[torch.randperm(columns, generator=generator, device=device)]
    zeros = torch.full((count, rows), top // 2, dtype=torch.int32, device=device)
    if not recipe.sym:
        low, high = top // 2 - top // 8, top // 2 + top // 8
        zeros = torch.randint(low, high, (count, rows), generator=generator, device=device, dtype=torch.int32)
    noise = torch.randn((columns, rows), generator=generator, device=device, dtype=torch.float16)
    integers = (zeros[groups] + noise * (SPREAD * top)).round_().clamp_(0, top - 1).int()
    share = 0.75 + 0.5 * torch.rand((count, rows), generator=generator, device=device)
    return Matrix(integers, zeros, (share / (SPREAD * top * math.sqrt(columns))).half(), groups.int())


def _generator(recipe: Recipe, name: str, device: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(zlib.crc32(f"{recipe.seed}:{name}".encode()))


def pack_rows(integers: torch.Tensor, bits: int) -> torch.Tensor:
    """Put neighbours of the first axis into one word, the first one lowest."""
    return pack_columns(integers.T.contiguous(), bits, range(WORD // bits)).T.contiguous()


def pack_columns(integers: torch.Tensor, bits: int, order: Any) -> torch.Tensor:
    """Put neighbours of the second axis into one word, in an order of their positions, lowest bits first."""
    split = integers.reshape(integers.shape[0], -1, WORD // bits)
    words = torch.zeros(split.shape[:2], dtype=torch.int32, device=integers.device)
    for place, index in enumerate(order):
        words |= split[:, :, index] << (bits * place)
    return words


def packed(recipe: Recipe, name: str, matrix: Matrix) -> dict[str, torch.Tensor]:
    """Return a matrix's tensors as the recipe's format stores them."""
    if recipe.method == "awq":
        return {
            f"{name}.qweight": pack_columns(matrix.integers, recipe.bits, AWQ_ORDER),
            f"{name}.qzeros": pack_columns(matrix.zeros, recipe.bits, AWQ_ORDER),
            f"{name}.scales": matrix.scales,
        }
    return {
        f"{name}.qweight": pack_rows(matrix.integers, recipe.bits),
        # The first GPTQ format stores zero points less one.
        f"{name}.qzeros": pack_columns(matrix.zeros - 1, recipe.bits, range(WORD // recipe.bits)),
        f"{name}.scales": matrix.scales,
        f"{name}.g_idx": matrix.groups,
    }


def write(recipe: Recipe, folder: Path, device: str = "cpu") -> Path:
    """Write a checkpoint that transformers and GPTQModel load."""
    folder.mkdir(parents=True)
    _write_tokenizer(folder)
    config = recipe.config()
    config.architectures = ["Qwen3MoeForCausalLM" if recipe.experts else "LlamaForCausalLM"]
    config.dtype = "float16"
    config.bos_token_id, config.eos_token_id = 0, END_OF_ANSWER
    config.quantization_config = recipe.quantization()
    config.save_pretrained(folder)
    index, shard, size, count = {}, {}, 0, 0
    for name, tensor in _tensors(recipe, device):
        shard[name] = tensor.cpu().contiguous()
        size += tensor.numel() * tensor.element_size()
        if size >= SHARD_BYTES:
            index |= _write_shard(folder, shard, count)
            shard, size, count = {}, 0, count + 1
    index |= _write_shard(folder, shard, count)
    description = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def _tensors(recipe: Recipe, device: str) -> Iterator[tuple[str, torch.Tensor]]:
    yield from recipe.plain(device)
    for name, columns, rows in recipe.matrices():
        yield from packed(recipe, name, draw(recipe, name, columns, rows, device)).items()


def _write_shard(folder: Path, shard: dict[str, torch.Tensor], count: int) -> dict[str, str]:
    file = f"model-{count:05}.safetensors"
    save_file(shard, folder / file, metadata={"format": "pt"})
    return dict.fromkeys(shard, file)


def _write_tokenizer(folder: Path) -> None:
    from engine.tiny import make_tokenizer

    make_tokenizer().save_pretrained(folder)


@torch.inference_mode()
def reference(recipe: Recipe, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """Return the dense model that a recipe's checkpoint stands for; draw both on the same kind of device."""
    from transformers import AutoModelForCausalLM

    with torch.device(device):
        model = AutoModelForCausalLM.from_config(recipe.config(), dtype=dtype).eval()
    targets = dict(model.named_parameters())
    for name, tensor in recipe.plain(device):
        targets[name].copy_(tensor)
    for name, columns, rows in recipe.matrices():
        _target(targets, name).copy_(draw(recipe, name, columns, rows, device).dense())
    return model


def _target(targets: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Find where a matrix goes; transformers holds the experts of a layer in two tensors."""
    if f"{name}.weight" in targets:
        return targets[f"{name}.weight"]
    layer, _, rest = name.partition(".experts.")
    expert, kind = rest.split(".")
    if kind == "down_proj":
        return targets[f"{layer}.experts.down_proj"][int(expert)]
    halves = targets[f"{layer}.experts.gate_up_proj"][int(expert)].chunk(2)
    return halves[0] if kind == "gate_proj" else halves[1]


def tokens(recipe: Recipe, count: int, seed: int = 0) -> list[int]:
    """Draw token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, recipe.vocabulary, (count,), generator=generator).tolist()


def agreement(right: torch.Tensor, logits: torch.Tensor, tolerance: float) -> float:
    """Share of positions whose logits, of shape [positions, vocabulary], are within a tolerance of their range."""
    spread = right.max(dim=-1).values - right.min(dim=-1).values
    apart = (right.float() - logits.float()).abs().max(dim=-1).values / spread
    return float((apart <= tolerance).float().mean())


def required_agreement(recipe: Recipe) -> float:
    """A router's near tie falls to another expert now and then."""
    return 0.9 if recipe.experts else 1.0
