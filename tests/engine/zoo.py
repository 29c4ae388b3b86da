"""Tiny random models of every KV cache kind that transformers builds, fp32 and the same in every process."""

from __future__ import annotations

from typing import Any

import torch

VOCABULARY = 256
WINDOW = 1024
SLIDING = 16
SEED = 11
TIE = 2e-3
"""Logits closer than this are a tie: splitting a prefill changes them by up to 2e-5 in fp32."""

_DENSE = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": WINDOW,
}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_ALTERNATING = {"num_hidden_layers": 3, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _DENSE),
    "qwen2": ("qwen2", _DENSE),
    "qwen3": ("qwen3", _DENSE | {"head_dim": 16}),
    "phi3": ("phi3", _DENSE),
    # Not the mixture of the checkpoint tests: GPTQModel's load changes its class for the rest of the process.
    "olmoe": ("olmoe", _DENSE | {"num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32}),
    "mistral": ("mistral", _DENSE | {"sliding_window": SLIDING}),
    "gemma3": (
        "gemma3_text",
        # Tied embeddings would make random weights repeat the last token for ever.
        _DENSE | _ALTERNATING | {"head_dim": 16, "sliding_window": SLIDING, "tie_word_embeddings": False},
    ),
    "gpt_oss": (
        "gpt_oss",
        _DENSE | {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": SLIDING},
    ),
    "qwen3_next": (
        "qwen3_next",
        _DENSE
        | _MOE
        | {
            "head_dim": 16,
            "layer_types": ["linear_attention", "full_attention"],
            "shared_expert_intermediate_size": 32,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
    ),
    "lfm2": ("lfm2", _DENSE | {"layer_types": ["conv", "full_attention"], "block_multiple_of": 32}),
    "falcon_h1": (
        "falcon_h1",
        _DENSE | {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_state": 16, "mamba_chunk_size": 16},
    ),
    "mamba2": (
        "mamba2",
        {
            "num_hidden_layers": 2,
            "hidden_size": 64,
            "num_heads": 8,
            "head_dim": 16,
            "state_size": 16,
            "n_groups": 2,
            "chunk_size": 16,
        },
    ),
}

KINDS = tuple(RECIPES)
FULL_ATTENTION = ("llama", "qwen2", "qwen3", "phi3", "olmoe")
"""Any suffix of their cache can be dropped at any length."""


def make(kind: str) -> Any:
    """Return the tiny model in eval mode; its greedy text is far from ties."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, arguments = RECIPES[kind]
    config = AutoConfig.for_model(
        model_type,
        vocab_size=VOCABULARY,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
        # Larger than the usual 0.02: logits far enough apart for greedy text that rounding does not change.
        initializer_range=0.2,
        **arguments,
    )
    torch.manual_seed(SEED)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    """Return the greedy tokens by recomputing everything for each of them, without any cache."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(last_logits(model, ids).argmax()))
    return ids[len(prompt) :]


def last_logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids], device=model.device), use_cache=False, logits_to_keep=1).logits[
            0, -1
        ]


def same_text(model: Any, prompt: list[int], first: list[int], second: list[int]) -> bool:
    """Whether two greedy answers are equal, or part where the model's two best logits are tied."""
    for place, (one, other) in enumerate(zip(first, second, strict=True)):
        if one != other:
            logits = last_logits(model, [*prompt, *first[:place]])
            return bool((logits.max() - logits[[one, other]]).abs().max() < TIE)
    return True
