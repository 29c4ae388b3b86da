"""Builds the folders of `tests/data/models`: configs lie there as files, weights as a description of their headers.

`weights.txt` has a line `file NAME [format]` per weight file, followed by its tensors: name, dtype and shape. A range
in braces stands for that many tensors. Weight files get true headers and holes for weights. A line `gguf NAME` is
followed by `key NAME TYPE VALUE` and by tensors whose dtype is a ggml type.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from quantchat.catalog.gguf import TYPES
from quantchat.catalog.safetensors import DTYPE_BITS

CORPUS = Path(__file__).parents[2] / "data" / "models"
CASES = sorted(folder.name for folder in CORPUS.iterdir() if folder.is_dir())
NOT_COPIED = ("weights.txt", "expect.toml")
LONG_AGO = 86_400.0
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
CODES = {block.name: code for code, block in TYPES.items()}
SCALARS = {"u32": (4, "<I"), "i32": (5, "<i"), "f32": (6, "<f"), "bool": (7, "<?"), "u64": (10, "<Q")}

Tensor = tuple[str, str, tuple[int, ...]]


def expectation(case: str) -> dict[str, object]:
    return tomllib.loads((CORPUS / case / "expect.toml").read_text())


def build(case: str, parent: Path) -> Path:
    """Make the folder of a case below `parent`, as old as a model that nobody touches; return what is to be read."""
    expected = expectation(case)
    folder = parent / case
    shutil.copytree(CORPUS / case, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
    described = CORPUS / case / "weights.txt"
    for header, lines in _sections(described.read_text()) if described.exists() else ():
        _write(folder, header, lines)
    _age(folder)
    for step in expected.get("steps", []):
        verb, *arguments = step.split()
        STEPS[verb](folder, *arguments)
    return folder / str(expected.get("file", ""))


def _sections(text: str) -> Iterator[tuple[list[str], list[str]]]:
    header: list[str] = []
    lines: list[str] = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        if line.split()[0] in ("file", "gguf"):
            if header:
                yield header, lines
            header, lines = line.split(), []
        else:
            lines.append(line)
    yield header, lines


def _write(folder: Path, header: list[str], lines: list[str]) -> None:
    if header[0] == "gguf":
        write_gguf(folder / header[1], lines)
    else:
        write_sparse(folder / header[1], [tensor for line in lines for tensor in expand(line)], *header[2:])


def expand(line: str) -> Iterator[Tensor]:
    name, dtype, *shape = line.split()
    sizes = tuple(int(size) for size in shape[0].split("x")) if shape else ()
    if (found := RANGE.search(name)) is None:
        yield name, dtype, sizes
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield from expand(" ".join((name.replace(found[0], str(number), 1), dtype, *shape)))


def write_sparse(path: Path, tensors: list[Tensor], framework: str = "pt") -> None:
    """Write a safetensors file with a true header and holes for weights."""
    header: dict[str, object] = {"__metadata__": {"format": framework}}
    end = 0
    for name, dtype, shape in tensors:
        begin, end = end, end + math.prod(shape) * DTYPE_BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end)


def write_gguf(path: Path, lines: list[str], version: int = 3) -> None:
    """Write a GGUF file with a true header and holes for weights."""
    keys = [line.split(maxsplit=3)[1:] for line in lines if line.startswith("key ")]
    tensors = [tensor for line in lines if not line.startswith("key ") for tensor in expand(line)]
    parts = [struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(keys))]
    parts += [_text(name) + _value(kind, value) for name, kind, value in keys]
    end = 0
    for name, kind, shape in tensors:
        code = CODES[kind] if kind in CODES else int(kind)
        parts.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, code, end))
        block = TYPES.get(code, TYPES[0])
        end += -(-math.prod(shape) // block.weights) * block.size
    text = b"".join(parts)
    path.write_bytes(text)
    os.truncate(path, -(-len(text) // 32) * 32 + end)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: str, value: str) -> bytes:
    if kind == "str":
        return struct.pack("<I", 8) + _text(value)
    if kind == "texts":
        return struct.pack("<IIQ", 9, 8, int(value)) + b"".join(_text(f"t{i}") for i in range(int(value)))
    if kind == "floats":
        return struct.pack("<IIQ", 9, 6, int(value)) + bytes(4 * int(value))
    code, packing = SCALARS[kind]
    return struct.pack("<I", code) + struct.pack(packing, float(value) if kind == "f32" else int(value))


def _age(folder: Path) -> None:
    then = time.time() - LONG_AGO
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def _remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


def _truncate(folder: Path, name: str, size: str) -> None:
    path = folder / name
    modified = path.stat().st_mtime
    os.truncate(path, int(size) if not size.startswith("-") else path.stat().st_size + int(size))
    os.utime(path, (modified, modified))


def _touch(folder: Path, name: str, age: str = "0") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    then = time.time() - float(age)
    os.utime(path, (then, then))


def _link(folder: Path, name: str, target: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _folder(folder: Path, name: str) -> None:
    (folder / name).mkdir()


STEPS: dict[str, Callable[..., None]] = {
    "remove": _remove,
    "truncate": _truncate,
    "touch": _touch,
    "link": _link,
    "folder": _folder,
}
