"""Model folders as real repositories have them, with weights that are small and real."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

from quantchat.catalog.safetensors import DTYPE_BITS

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "vocab_size": 320,
}
EMBEDDING = {"model.embed_tokens.weight": ("F16", (320, 64))}
GPTQ_LAYER = {
    "model.layers.0.mlp.up_proj.qweight": ("I32", (8, 128)),
    "model.layers.0.mlp.up_proj.qzeros": ("I32", (1, 16)),
    "model.layers.0.mlp.up_proj.scales": ("F16", (1, 128)),
    "model.layers.0.mlp.up_proj.g_idx": ("I32", (64,)),
}
AWQ_LAYER = {
    "model.layers.0.mlp.up_proj.qweight": ("I32", (64, 16)),
    "model.layers.0.mlp.up_proj.qzeros": ("I32", (1, 16)),
    "model.layers.0.mlp.up_proj.scales": ("F16", (1, 128)),
}
DENSE_LAYER = {"model.layers.0.mlp.up_proj.weight": ("BF16", (128, 64))}
PARAMETERS = 320 * 64 + 64 * 128

GPTQ_CONFIG = {
    "bits": 4,
    "checkpoint_format": "gptq",
    "desc_act": False,
    "group_size": 128,
    "lm_head": False,
    "meta": {"quantizer": ["gptqmodel:7.7.0"]},
    "pack_dtype": "int32",
    "quant_method": "gptq",
    "sym": True,
}
AUTOGPTQ_CONFIG = {
    "bits": 4,
    "group_size": 128,
    "damp_percent": 0.1,
    "desc_act": True,
    "static_groups": False,
    "sym": True,
    "true_sequential": True,
    "model_name_or_path": None,
    "model_file_base_name": "gptq_model-4bit-128g",
}
AUTOAWQ_CONFIG = {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}
AWQ_CONFIG = {
    "bits": 4,
    "group_size": 128,
    "modules_to_not_convert": None,
    "quant_method": "awq",
    "version": "gemm",
    "zero_point": True,
}


def tensor_bytes(tensors: Tensors) -> int:
    return sum(math.prod(shape) * DTYPE_BITS[dtype] // 8 for dtype, shape in tensors.values())


def write_safetensors(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> int:
    """Write a file with zeros for weights; return the bytes of its tensors."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * DTYPE_BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    write_raw_safetensors(path, header, bytes(end))
    return end


def write_raw_safetensors(path: Path, header: object, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def write_tokenizer(folder: Path, template: object = "{{ messages }}") -> None:
    write_json(folder / "tokenizer.json", {"model": {"type": "BPE"}})
    write_json(folder / "tokenizer_config.json", {"chat_template": template} if template else {})


def make_model(
    folder: Path, *, tensors: Tensors, files: Mapping[str, object], weights: str = "model.safetensors"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_json(folder / name, content)
    write_safetensors(folder / weights, tensors, {"format": "pt"})
    write_tokenizer(folder)
    return folder


def make_gptq(folder: Path, **changes: object) -> Path:
    config = LLAMA | {"quantization_config": GPTQ_CONFIG | changes}
    return make_model(folder, tensors=EMBEDDING | GPTQ_LAYER, files={"config.json": config})


def make_dense(folder: Path, **changes: object) -> Path:
    return make_model(folder, tensors=EMBEDDING | DENSE_LAYER, files={"config.json": LLAMA | changes})


def make_sharded(folder: Path) -> Path:
    """A dense Llama in two shards with an index."""
    make_dense(folder)
    (folder / "model.safetensors").unlink()
    placed = {}
    for number, tensors in enumerate((EMBEDDING, DENSE_LAYER), start=1):
        name = f"model-{number:05d}-of-00002.safetensors"
        write_safetensors(folder / name, tensors)
        placed |= dict.fromkeys(tensors, name)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": placed})
    return folder


def make_hub_repository(cache: Path, name: str, *commits: str, main: str | None = None) -> Path:
    """A hub cache entry whose snapshots link to blobs."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "blobs").mkdir(parents=True)
    for commit in commits:
        snapshot = make_gptq(repository / "snapshots" / commit)
        for file in list(snapshot.iterdir()):
            blob = repository / "blobs" / f"{commit}-{file.name}"
            file.rename(blob)
            file.symlink_to(Path("../../blobs") / blob.name)
    if main is not None:
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(main)
    return repository
