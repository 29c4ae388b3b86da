"""Whatever lies in a folder, reading it returns a `ModelInfo` that can be shown, in little memory and time."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantchat.catalog.formats import FORMATS
from quantchat.domain.models import ModelInfo
from unit.catalog.fuzzing import EXAMPLES, cases, figures, judged
from unit.catalog.model_folders import GPTQ_CONFIG, GPTQ_LAYER, LLAMA, make_dense, write_safetensors

__all__ = ["figures"]
WANTED = 10_000
METHODS = sorted({name for entry in FORMATS for name in (entry.method, *entry.names)})
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
QUANTIZATION = st.dictionaries(
    st.sampled_from([*GPTQ_CONFIG, "w_bit", "version", "dynamic"]), VALUES
) | st.fixed_dictionaries(
    {"quant_method": st.sampled_from(METHODS)},
    optional={name: VALUES for name in (*GPTQ_CONFIG, "config_groups", "quant_config") if name != "quant_method"},
)
PARTS = ("text_config", "auto_map", "quantization", "compression_config", "is_encoder_decoder")
KINDS_OF_LAYERS = (
    "layer_types", "layers_block_type", "hybrid_override_pattern", "full_attention_interval", "full_attn_idxs",
    "attn_layer_indices", "linear_attn_config", "attn_layer_period", "sliding_window_pattern", "num_kv_shared_layers",
)  # fmt: skip
CONFIGS = st.builds(
    lambda config, layers, value: {"num_hidden_layers": 3, layers: value} | config,
    st.dictionaries(st.sampled_from([*LLAMA, *PARTS]), VALUES),
    st.sampled_from(KINDS_OF_LAYERS),
    VALUES | st.text(min_size=1, max_size=8),
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F16", "I32", "F4", "X9"]) | VALUES,
        "shape": st.lists(st.integers(0, 9), max_size=3) | VALUES,
        "data_offsets": st.lists(st.integers(0, 99), min_size=2, max_size=2) | VALUES,
    },
)
HEADERS = st.dictionaries(st.sampled_from(["a.qweight", "a.g_idx", "a.weight", "__metadata__"]), ENTRY | VALUES)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dense(tmp_path_factory.mktemp("fuzz") / "dense")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_dense(tmp_path_factory.mktemp("fuzz") / "indexed")
    return (folder / "model.safetensors").rename(folder / "x.safetensors").parent


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound weight file."""
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    write_safetensors(path, GPTQ_LAYER)
    return path.read_bytes()


def read(folder: Path, file: str, content: bytes) -> ModelInfo:
    """Read a folder in which one file is another."""
    path = folder / file
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(content)
    try:
        return judged(folder)
    finally:
        path.unlink()
        if before is not None:
            path.write_bytes(before)


def test_there_are_enough_cases() -> None:
    assert sum(EXAMPLES.values()) >= WANTED


@given(config=CONFIGS, quantization=QUANTIZATION | VALUES)
@cases("configs")
def test_configs_of_any_shape(sound: Path, config: dict[str, object], quantization: object) -> None:
    read(sound, "config.json", json.dumps(config | {"quantization_config": quantization}).encode())


@given(quantization=QUANTIZATION | VALUES, file=st.sampled_from(["quantize_config.json", "quant_config.json"]))
@cases("old configs")
def test_old_quantization_files_of_any_shape(sound: Path, quantization: object, file: str) -> None:
    read(sound, file, json.dumps(quantization).encode())


FILES = st.sampled_from(
    ["config.json", "quantize_config.json", "tokenizer_config.json", "model.safetensors", "adapter_config.json",
     "hf_quant_config.json", "modules.json", "model.safetensors.index.json"]
)  # fmt: skip


@given(content=st.binary(max_size=200), file=FILES)
@example(content=b"\xff\xfe{\x00}\x00", file="config.json")
@example(content=b"\x00" * 8, file="model.safetensors")
@cases("bytes")
def test_bytes_of_any_kind(sound: Path, content: bytes, file: str) -> None:
    read(sound, file, content)


@given(header=HEADERS | VALUES, size=st.integers(0, 200), claimed=st.none() | st.integers(0, 2**64 - 1))
@cases("headers")
def test_headers_of_any_shape(sound: Path, header: object, size: int, claimed: int | None) -> None:
    text = json.dumps(header).encode()
    length = struct.pack("<Q", len(text) if claimed is None else claimed)
    read(sound, "model.safetensors", length + text + bytes(size))


@given(weight_map=st.dictionaries(st.text(max_size=5), st.text(max_size=8) | VALUES) | VALUES)
@cases("indices")
def test_indices_of_any_shape(indexed: Path, weight_map: object) -> None:
    content = json.dumps({"weight_map": weight_map}).encode()
    assert not read(indexed, "model.safetensors.index.json", content).loadable


@given(cut=st.integers(0, 2000))
@cases("cut weights")
def test_weights_cut_anywhere(sound: Path, packed: bytes, cut: int) -> None:
    (problem,) = read(sound, "model.safetensors", packed[:cut]).errors
    assert problem.code == "weights-truncated"
