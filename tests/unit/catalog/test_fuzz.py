"""Whatever lies in a folder, reading it returns a `ModelInfo` that can be stored and shown."""

from __future__ import annotations

import json
import re
import struct
import tempfile
from pathlib import Path

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quantchat.catalog.formats import FORMATS
from quantchat.catalog.reader import read_model
from quantchat.domain.models import ModelInfo
from unit.catalog.model_folders import GPTQ_CONFIG, GPTQ_LAYER, LLAMA, make_dense, write_json, write_safetensors

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
CONFIGS = st.dictionaries(
    st.sampled_from([*LLAMA, "text_config", "auto_map", "quantization", "compression_config", "is_encoder_decoder"]),
    VALUES,
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


COMMANDING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys, or what reorders a line."""


def read(files: dict[str, bytes], base: str = "dense") -> ModelInfo:
    with tempfile.TemporaryDirectory() as name:
        folder = make_dense(Path(name) / base)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        model = read_model(folder)
    assert msgspec.json.decode(msgspec.json.encode(model), type=ModelInfo).problems == model.problems
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(model), type=ModelInfo).path == model.path
    shown = [model.name, model.architecture or "", model.quant.label()]
    shown += [text for problem in model.problems for text in (problem.cause, problem.remedy)]
    assert not any(COMMANDING.search(text) for text in shown), shown
    return model


@given(config=CONFIGS, quantization=QUANTIZATION | VALUES)
@settings(max_examples=150, deadline=None)
def test_configs_of_any_shape(config: dict[str, object], quantization: object) -> None:
    read({"config.json": json.dumps(config | {"quantization_config": quantization}).encode()})


@given(quantization=QUANTIZATION | VALUES, file=st.sampled_from(["quantize_config.json", "quant_config.json"]))
@settings(max_examples=100, deadline=None)
def test_old_quantization_files_of_any_shape(quantization: object, file: str) -> None:
    read({file: json.dumps(quantization).encode()})


@given(
    content=st.binary(max_size=200),
    file=st.sampled_from(
        [
            "config.json",
            "quantize_config.json",
            "tokenizer_config.json",
            "model.safetensors",
            "adapter_config.json",
            "model.safetensors.index.json",
        ]
    ),
)
@example(content=b"\xff\xfe{\x00}\x00", file="config.json")
@example(content=b"\x00" * 8, file="model.safetensors")
@settings(max_examples=200, deadline=None)
def test_bytes_of_any_kind(content: bytes, file: str) -> None:
    read({file: content})


@given(header=HEADERS | VALUES, size=st.integers(0, 200), claimed=st.none() | st.integers(0, 2**64 - 1))
@settings(max_examples=200, deadline=None)
def test_headers_of_any_shape(header: object, size: int, claimed: int | None) -> None:
    text = json.dumps(header).encode()
    length = struct.pack("<Q", len(text) if claimed is None else claimed)
    read({"model.safetensors": length + text + bytes(size)})


@given(weight_map=st.dictionaries(st.text(max_size=5), st.text(max_size=8) | VALUES) | VALUES)
@settings(max_examples=100, deadline=None)
def test_indices_of_any_shape(weight_map: object) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = make_dense(Path(name) / "m")
        (folder / "model.safetensors").rename(folder / "x.safetensors")
        write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
        assert not read_model(folder).loadable


@given(cut=st.integers(0, 2000))
@settings(max_examples=60, deadline=None)
def test_weights_cut_anywhere(cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = make_dense(Path(name) / "m")
        write_safetensors(folder / "model.safetensors", GPTQ_LAYER)
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[:cut])
        (problem,) = read_model(folder).errors
        assert problem.code == "weights-truncated"
