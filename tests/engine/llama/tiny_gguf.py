"""Writes tiny GGUF files: a random Llama with a vocabulary of bytes, in float32, in a tenth of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

WINDOW = 512
HIDDEN, LAYERS, HEADS, KV_HEADS, INNER = 64, 2, 4, 2, 128
HEAD = HIDDEN // HEADS
SPECIALS = ("<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
TAGS = ("<think>", "</think>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTROL, NORMAL, USER_DEFINED = 3, 1, 4


def alphabet() -> list[str]:
    """The characters that stand for the 256 bytes in vocabularies of the GPT-2 kind."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = (byte for byte in range(256) if byte not in shown)
    characters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    return [characters[byte] for byte in range(256)]


def vocabulary() -> tuple[list[str], list[int]]:
    tokens = [*SPECIALS, *TAGS, *alphabet(), "th", "he", "the"]
    kinds = [CONTROL] * len(SPECIALS) + [USER_DEFINED] * len(TAGS)
    return tokens, kinds + [NORMAL] * (len(tokens) - len(kinds))


def write(
    path: Path, *, template: str | None = TEMPLATE, architecture: str = "llama", seed: int = 7, window: int = WINDOW
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    add_keys(writer, template, window)
    for name, tensor in tensors(np.random.default_rng(seed)).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_keys(writer: Any, template: str | None, window: int) -> None:
    tokens, kinds = vocabulary()
    writer.add_context_length(window)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["t h", "h e", "t he"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)


def tensors(random: np.random.Generator) -> dict[str, Any]:
    """Weights larger than usual: logits far enough apart for greedy text that rounding does not change."""

    def weights(rows: int, columns: int) -> Any:
        return random.normal(0, 0.3, (rows, columns)).astype(np.float32)

    tokens = vocabulary()[0]
    head = weights(len(tokens), HIDDEN)
    # It says nothing but letters, one for each token: bytes that make no characters read otherwise the next time.
    head[[not (len(token) == 1 and token.isascii() and token.isalnum()) for token in tokens]] = 0
    made: dict[str, Any] = {"token_embd.weight": weights(len(tokens), HIDDEN), "output.weight": head}
    made["output_norm.weight"] = np.ones(HIDDEN, np.float32)
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        made |= {
            f"{block}attn_norm.weight": np.ones(HIDDEN, np.float32),
            f"{block}ffn_norm.weight": np.ones(HIDDEN, np.float32),
            f"{block}attn_q.weight": weights(HIDDEN, HIDDEN),
            f"{block}attn_k.weight": weights(KV_HEADS * HEAD, HIDDEN),
            f"{block}attn_v.weight": weights(KV_HEADS * HEAD, HIDDEN),
            f"{block}attn_output.weight": weights(HIDDEN, HIDDEN),
            f"{block}ffn_gate.weight": weights(INNER, HIDDEN),
            f"{block}ffn_up.weight": weights(INNER, HIDDEN),
            f"{block}ffn_down.weight": weights(HIDDEN, INNER),
        }
    return made
