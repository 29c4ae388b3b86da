"""Whatever a GGUF file holds, reading it returns a `ModelInfo`, in little memory and time."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantchat.domain.models import ModelInfo
from unit.catalog.corpus import write_gguf
from unit.catalog.fuzzing import cases, figures, judged

__all__ = ["figures"]

KINDS = st.integers(0, 12) | st.integers(0, 2**32 - 1)
LENGTHS = st.integers(0, 40) | st.integers(0, 2**64 - 1)
KEYS = st.sampled_from(
    ["general.architecture", "general.alignment", "general.file_type", "general.type", "llama.block_count",
     "llama.context_length", "llama.attention.head_count_kv", "split.count", "tokenizer.ggml.tokens"]
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf") / "m.gguf"


def read(path: Path, content: bytes) -> ModelInfo:
    path.write_bytes(content)
    model = judged(path)
    assert model.loadable or model.errors
    return model


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
    values=st.lists(gguf_values(), max_size=4),
    tensors=st.lists(gguf_tensors(), max_size=2),
    counts=st.none() | st.tuples(LENGTHS, LENGTHS),
    version=st.sampled_from([2, 3, 3, 3, 1, 0, 0x03000000]) | st.integers(0, 2**32 - 1),
    data=st.binary(max_size=200),
)
@cases("gguf headers")
def test_gguf_headers_of_any_shape(
    place: Path, values: list[bytes], tensors: list[bytes], counts: tuple[int, int] | None, version: int, data: bytes
) -> None:
    tensor_count, value_count = counts or (len(tensors), len(values))
    start = struct.pack("<4sIQQ", b"GGUF", version, tensor_count, value_count)
    read(place, start + b"".join(values) + b"".join(tensors) + data)


@given(content=st.binary(max_size=300))
@example(content=b"GGUF")
@example(content=b"")
@example(content=b"version https://git-lfs.github.com/spec/v1\noid sha256:46\nsize 1\n")
@cases("gguf bytes")
def test_gguf_files_of_any_bytes(place: Path, content: bytes) -> None:
    read(place, content)


@pytest.fixture(scope="module")
def sound_gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    keys = ["general.architecture str llama", "llama.block_count u32 2", "tokenizer.ggml.tokens texts 50"]
    write_gguf(path, [*(f"key {key}" for key in keys), "token_embd.weight Q4_K 256x8", "blk.{0..1}.x.weight F32 4"])
    return path.read_bytes()


@given(at=st.integers(0, 900), flipped=st.binary(min_size=1, max_size=8), cut=st.none() | st.integers(0, 2000))
@cases("gguf changed")
def test_gguf_files_with_wrong_bytes(place: Path, sound_gguf: bytes, at: int, flipped: bytes, cut: int | None) -> None:
    read(place, (sound_gguf[:at] + flipped + sound_gguf[at + len(flipped) :])[:cut])


def test_gguf_claims_cost_nothing(tmp_path: Path) -> None:
    """A small file that claims a vocabulary of billions is refused for what it claims."""
    for kind in (4, 8, 9):
        key = struct.pack("<Q1sIIQ", 1, b"a", 9, kind, 2**40)
        model = read(tmp_path / "m.gguf", struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + key)
        assert model.errors[0].code == "gguf-damaged"
