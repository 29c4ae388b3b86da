"""Whatever lies in a folder, reading it returns a `ModelInfo` that can be stored and shown, in little memory and time.

`QUANTCHAT_FUZZ=10000` tries so many cases in all, holds each to its time and prints the figures.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import struct
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quantchat.catalog.formats import FORMATS
from quantchat.catalog.reader import read_model
from quantchat.domain.models import ModelInfo
from unit.catalog.corpus import write_gguf
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


CASES = int(os.environ.get("QUANTCHAT_FUZZ", "0"))
SHARES = 1200
"""What the numbers of examples below add up to."""
SELDOM = 5
"""Memory is measured in one of so many cases, if not a great number is asked for: it takes its time."""
MOST_BYTES = 50 * 1024**2
MOST_SECONDS = 0.05

seconds: list[float] = []
peaks: list[int] = []


def few(examples: int) -> settings:
    """So many examples, or their share of the great number that is asked for."""
    return settings(max_examples=max(examples, math.ceil(CASES * examples / SHARES)), deadline=None)


@pytest.fixture(scope="module", autouse=True)
def _figures() -> Iterator[None]:
    seconds.clear()
    peaks.clear()
    yield
    if CASES:
        times, sizes = [one * 1e3 for one in seconds], [one / 1024 for one in peaks]
        print(f"\n{len(times)} cases: CPU median {statistics.median(times):.2f} ms, most {max(times):.2f} ms")
        print(f"memory median {statistics.median(sizes):.0f} KiB, most {max(sizes):.0f} KiB")


def measured(path: Path) -> ModelInfo:
    """Read a model twice: once for its time, once for its memory."""
    started = time.thread_time()
    model = read_model(path)
    seconds.append(time.thread_time() - started)
    if CASES or len(seconds) % SELDOM == 1:
        tracemalloc.start()
        try:
            assert read_model(path).quant == model.quant
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert peaks[-1] <= MOST_BYTES
    if CASES:
        assert seconds[-1] <= MOST_SECONDS
    return model


def judged(path: Path) -> ModelInfo:
    """Read a model, and see that it can be stored and shown."""
    model = measured(path)
    assert msgspec.json.decode(msgspec.json.encode(model), type=ModelInfo).problems == model.problems
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(model), type=ModelInfo).path == model.path
    shown = [model.name, model.architecture or "", model.quant.label(), model.verdict.reason, *model.files]
    shown += [text for problem in model.problems for text in (problem.cause, problem.remedy)]
    assert not any(COMMANDING.search(text) for text in shown), shown
    assert model.loadable or model.errors
    return model


def read(files: dict[str, bytes], base: str = "dense") -> ModelInfo:
    with tempfile.TemporaryDirectory() as name:
        folder = make_dense(Path(name) / base)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return judged(folder)


def read_gguf(content: bytes) -> ModelInfo:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "m.gguf"
        path.write_bytes(content)
        model = judged(path)
        assert model.errors
        return model


@given(config=CONFIGS, quantization=QUANTIZATION | VALUES)
@few(150)
def test_configs_of_any_shape(config: dict[str, object], quantization: object) -> None:
    read({"config.json": json.dumps(config | {"quantization_config": quantization}).encode()})


@given(quantization=QUANTIZATION | VALUES, file=st.sampled_from(["quantize_config.json", "quant_config.json"]))
@few(100)
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
            "hf_quant_config.json",
            "modules.json",
            "model.safetensors.index.json",
        ]
    ),
)
@example(content=b"\xff\xfe{\x00}\x00", file="config.json")
@example(content=b"\x00" * 8, file="model.safetensors")
@few(200)
def test_bytes_of_any_kind(content: bytes, file: str) -> None:
    read({file: content})


@given(header=HEADERS | VALUES, size=st.integers(0, 200), claimed=st.none() | st.integers(0, 2**64 - 1))
@few(200)
def test_headers_of_any_shape(header: object, size: int, claimed: int | None) -> None:
    text = json.dumps(header).encode()
    length = struct.pack("<Q", len(text) if claimed is None else claimed)
    read({"model.safetensors": length + text + bytes(size)})


@given(weight_map=st.dictionaries(st.text(max_size=5), st.text(max_size=8) | VALUES) | VALUES)
@few(100)
def test_indices_of_any_shape(weight_map: object) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = make_dense(Path(name) / "m")
        (folder / "model.safetensors").rename(folder / "x.safetensors")
        write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
        assert not judged(folder).loadable


@given(cut=st.integers(0, 2000))
@few(60)
def test_weights_cut_anywhere(cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = make_dense(Path(name) / "m")
        write_safetensors(folder / "model.safetensors", GPTQ_LAYER)
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[:cut])
        (problem,) = judged(folder).errors
        assert problem.code == "weights-truncated"


KINDS = st.integers(0, 12) | st.integers(0, 2**32 - 1)
LENGTHS = st.integers(0, 40) | st.integers(0, 2**64 - 1)
KEYS = st.sampled_from(
    ["general.architecture", "general.alignment", "general.file_type", "general.type", "llama.block_count",
     "llama.context_length", "llama.attention.head_count_kv", "split.count", "tokenizer.ggml.tokens"]
)  # fmt: skip


@st.composite
def gguf_texts(draw: st.DrawFn) -> bytes:
    text = draw(st.sampled_from([b"llama", b"clip", b"\x1b[2J", b"\xff\xfe"]) | st.binary(max_size=12))
    length = draw(st.just(len(text)) | LENGTHS)
    return struct.pack("<Q", length) + text


@st.composite
def gguf_values(draw: st.DrawFn) -> bytes:
    key = draw(KEYS).encode()
    kind = draw(st.sampled_from([4, 5, 6, 7, 8, 9]) | KINDS)
    name = struct.pack("<Q", len(key)) + key + struct.pack("<I", kind)
    if kind == 8:
        return name + draw(gguf_texts())
    if kind == 9:
        return name + struct.pack("<IQ", draw(KINDS), draw(LENGTHS)) + draw(st.binary(max_size=40))
    return name + draw(st.binary(min_size=4, max_size=8))


@st.composite
def gguf_tensors(draw: st.DrawFn) -> bytes:
    shape = draw(st.lists(st.integers(0, 64) | st.integers(0, 2**64 - 1), max_size=9))
    claimed = draw(st.just(len(shape)) | st.integers(0, 2**32 - 1))
    parts = struct.pack(f"<I{len(shape)}Q", claimed, *shape)
    return draw(gguf_texts()) + parts + struct.pack("<IQ", draw(st.integers(0, 45) | KINDS), draw(LENGTHS))


@given(
    values=st.lists(gguf_values(), max_size=6),
    tensors=st.lists(gguf_tensors(), max_size=4),
    counts=st.none() | st.tuples(LENGTHS, LENGTHS),
    version=st.sampled_from([2, 3, 3, 3, 1, 0, 0x03000000]) | st.integers(0, 2**32 - 1),
    data=st.binary(max_size=200),
)
@few(200)
def test_gguf_headers_of_any_shape(
    values: list[bytes], tensors: list[bytes], counts: tuple[int, int] | None, version: int, data: bytes
) -> None:
    tensor_count, value_count = counts or (len(tensors), len(values))
    start = struct.pack("<4sIQQ", b"GGUF", version, tensor_count, value_count)
    read_gguf(start + b"".join(values) + b"".join(tensors) + data)


@given(content=st.binary(max_size=300))
@example(content=b"GGUF")
@example(content=b"")
@example(content=b"version https://git-lfs.github.com/spec/v1\noid sha256:46\nsize 1\n")
@few(60)
def test_gguf_files_of_any_bytes(content: bytes) -> None:
    read_gguf(content)


@pytest.fixture(scope="module")
def sound_gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    keys = ["general.architecture str llama", "llama.block_count u32 2", "tokenizer.ggml.tokens texts 50"]
    write_gguf(path, [*(f"key {key}" for key in keys), "token_embd.weight Q4_K 256x8", "blk.{0..1}.x.weight F32 4"])
    return path.read_bytes()


@given(at=st.integers(0, 900), flipped=st.binary(min_size=1, max_size=8), cut=st.none() | st.integers(0, 2000))
@few(130)
def test_gguf_files_with_wrong_bytes(sound_gguf: bytes, at: int, flipped: bytes, cut: int | None) -> None:
    read_gguf((sound_gguf[:at] + flipped + sound_gguf[at + len(flipped) :])[:cut])


def test_gguf_claims_cost_nothing(tmp_path: Path) -> None:
    """A small file that claims a vocabulary of billions is refused for what it claims."""
    for kind in (4, 8, 9):
        key = struct.pack("<Q1sIIQ", 1, b"a", 9, kind, 2**40)
        model = read_gguf(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + key)
        assert model.errors[0].code == "gguf-damaged"
