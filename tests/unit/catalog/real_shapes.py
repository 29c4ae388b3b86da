"""Configs of real repositories, as far as memory depends on them, and the tensors of some of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quantchat.catalog import groups, sizes
from quantchat.catalog.safetensors import DTYPE_BITS, TensorInfo
from quantchat.domain.models import QuantSpec, WeightSizes

LLAMA_3_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 8192, "tie_word_embeddings": False,
}  # fmt: skip
QWEN_2_5_7B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
    "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 152064,
    "max_position_embeddings": 32768, "max_window_layers": 28, "sliding_window": 131072, "use_sliding_window": False,
    "tie_word_embeddings": False,
}  # fmt: skip
GEMMA_3_4B: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model", "num_hidden_layers": 27},
}  # fmt: skip
MISTRAL_7B: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 32000,
    "max_position_embeddings": 32768, "sliding_window": 4096, "tie_word_embeddings": False,
}  # fmt: skip
MIXTRAL_8X7B: dict[str, Any] = {
    **MISTRAL_7B, "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_experts_per_tok": 2,
    "num_local_experts": 8, "sliding_window": None,
}  # fmt: skip
DEEPSEEK_V2_LITE: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "hidden_size": 2048,
    "num_attention_heads": 16, "num_hidden_layers": 27, "num_key_value_heads": 16, "kv_lora_rank": 512,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "q_lora_rank": None, "vocab_size": 102400,
    "max_position_embeddings": 163840, "n_routed_experts": 64, "num_experts_per_tok": 6,
}  # fmt: skip
QWEN3_NEXT_80B: dict[str, Any] = {
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "hidden_size": 2048, "head_dim": 256,
    "num_attention_heads": 16, "num_hidden_layers": 48, "num_key_value_heads": 2, "full_attention_interval": 4,
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
    "linear_value_head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 262144, "num_experts": 512,
}  # fmt: skip
PHI_3_MINI_4K: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192,
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "vocab_size": 32064,
    "max_position_embeddings": 4096, "sliding_window": 2047,
}  # fmt: skip
FALCON_7B: dict[str, Any] = {
    "architectures": ["FalconForCausalLM"], "model_type": "falcon", "hidden_size": 4544, "num_attention_heads": 71,
    "num_hidden_layers": 32, "multi_query": True, "new_decoder_architecture": False, "vocab_size": 65024,
}  # fmt: skip


def tensor(name: str, dtype: str, *shape: int) -> TensorInfo:
    """A tensor as a header describes it, anywhere in its file."""
    size = DTYPE_BITS[dtype] // 8
    for length in shape:
        size *= length
    return TensorInfo(name, dtype, shape, (0, size))


def llama_matrices(config: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Name, input and output features of the matrices of one layer."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    for name, rows in (("q_proj", hidden), ("k_proj", keys), ("v_proj", keys), ("o_proj", hidden)):
        yield f"self_attn.{name}", hidden, rows
    yield "mlp.gate_proj", hidden, inner
    yield "mlp.up_proj", hidden, inner
    yield "mlp.down_proj", inner, hidden


def llama_tensors(config: dict[str, Any], *, bits: int = 0, group: int = 128, dtype: str = "F16") -> list[TensorInfo]:
    """All tensors of a Llama; packed as GPTQ packs them with so many bits, 0 for none."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    found = [tensor("model.embed_tokens.weight", dtype, vocabulary, hidden), tensor("model.norm.weight", dtype, hidden)]
    found += [tensor("lm_head.weight", dtype, vocabulary, hidden)]
    for layer in range(config["num_hidden_layers"]):
        root = f"model.layers.{layer}"
        found += [tensor(f"{root}.{name}_layernorm.weight", dtype, hidden) for name in ("input", "post_attention")]
        for name, inputs, outputs in llama_matrices(config):
            if not bits:
                found.append(tensor(f"{root}.{name}.weight", dtype, outputs, inputs))
                continue
            found += [
                tensor(f"{root}.{name}.qweight", "I32", inputs * bits // 32, outputs),
                tensor(f"{root}.{name}.qzeros", "I32", inputs // group, outputs * bits // 32),
                tensor(f"{root}.{name}.scales", "F16", inputs // group, outputs),
                tensor(f"{root}.{name}.g_idx", "I32", inputs),
            ]
    return found


def weighed(tensors: Sequence[TensorInfo], spec: QuantSpec, config: Mapping[str, object]) -> WeightSizes:
    """Weigh tensors as the reader of folders does."""
    return sizes.weigh(groups.group(tensors), spec, config)
