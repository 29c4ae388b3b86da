"""A model that is not here yet, read as if it were: its small configs, and of its weights only the headers.

The files are laid out in a scratch folder, weights as files without content behind their headers (holes take no
space), and the catalog reads it like any other model folder: the same recognition, triage and sizes before and after.
"""

from __future__ import annotations

import json
import os
import re
import struct
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from quantchat.catalog.formats import CONFIG_FILES
from quantchat.catalog.gguf_model import gguf_sets
from quantchat.catalog.reader import read_model
from quantchat.catalog.safetensors import HEADER_LIMIT, LENGTH_BYTES
from quantchat.domain.models import ModelInfo
from quantchat.services.pull import hub
from quantchat.services.pull.files import RemoteFile
from quantchat.services.pull.names import Wanted
from quantchat.services.pull.patience import Patience

READ_WHOLE = (
    *CONFIG_FILES,
    "adapter_config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
INDEX_SUFFIX = ".safetensors.index.json"
SMALL = 32 * 1024**2
FIRST_GUESS = 100_000
"""Most safetensors headers are shorter, so that one request is enough."""
GGUF_HEADER, GGUF_PART = 16 * 1024**2, 1024**2
"""A GGUF header ends behind the vocabulary, which the further files of a split set do not have."""
PARALLEL = 8
_FURTHER = re.compile(r"-(?!00001-)\d{5}-of-\d{5}\.gguf$")


class Source(msgspec.Struct):
    """One commit of a repository on the hub."""

    wanted: Wanted
    commit: str
    patience: Patience

    def read(self, path: str, begin: int, end: int) -> bytes:
        """Return some bytes of a file.

        Raises:
            FetchError: see `hub.open_range`.
        """
        url = hub.file_url(self.wanted, self.commit, path)
        return self.patience.ask(lambda: hub.read_range(self.wanted, url, begin, end), path)


def indexed_files(source: Source, files: Sequence[RemoteFile]) -> frozenset[str]:
    """Return the weight files that the repository's index names; none if it has no sound one."""
    found = {file.path: file for file in files}
    index = found.get("model" + INDEX_SUFFIX)
    if index is None or not 0 < index.size <= SMALL or "model.safetensors" in found:
        return frozenset()
    try:
        placed = json.loads(source.read(index.path, 0, index.size)).get("weight_map", {})
        return frozenset(str(name) for name in placed.values())
    except (ValueError, AttributeError, RecursionError):
        return frozenset()


def preview_model(source: Source, files: Sequence[RemoteFile], folder: Path) -> ModelInfo | None:
    """Describe the model that these files would make in `folder`; None if they make none.

    Raises:
        FetchError: if the hub refuses or fails.
        OSError: if there is no place for the scratch folder.
    """
    if not files:
        return None
    with tempfile.TemporaryDirectory(prefix="quantchat-preview-") as scratch:
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda file: _lay_out(source, file, Path(scratch)), files))
        # The catalog takes a folder that was written to just now for one that is being copied.
        os.utime(scratch, (0, 0))
        read_from = _gguf(files, Path(scratch)) or Path(scratch)
        model = read_model(read_from, name=source.wanted.repository, revision=source.commit)
    if any(problem.code == "not-a-model" for problem in model.problems):
        return None
    place = folder / read_from.name if read_from.is_file() else folder
    return msgspec.structs.replace(model, path=str(place))


def _gguf(files: Sequence[RemoteFile], scratch: Path) -> Path | None:
    """The GGUF file that is the model when there is nothing else."""
    if any(file.path.endswith(".safetensors") for file in files):
        return None
    return next((scratch / name for name in gguf_sets(file.path for file in files)), None)


def _lay_out(source: Source, file: RemoteFile, scratch: Path) -> None:
    place = scratch.joinpath(*file.path.split("/"))
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place, "wb") as written:
        written.write(_beginning(source, file))
        written.truncate(file.size)
    os.utime(place, (0, 0))


def _beginning(source: Source, file: RemoteFile) -> bytes:
    if file.path.endswith(".safetensors"):
        return _safetensors_header(source, file)
    if file.path.endswith(".gguf"):
        first = not _FURTHER.search(file.path)
        return source.read(file.path, 0, min(file.size, GGUF_HEADER if first else GGUF_PART))
    if file.path in READ_WHOLE or file.path.endswith(INDEX_SUFFIX):
        return source.read(file.path, 0, min(file.size, SMALL)) if file.size else b""
    return b""


def _safetensors_header(source: Source, file: RemoteFile) -> bytes:
    found = source.read(file.path, 0, min(file.size, FIRST_GUESS)) if file.size else b""
    if len(found) < LENGTH_BYTES:
        return found
    end = LENGTH_BYTES + struct.unpack("<Q", found[:LENGTH_BYTES])[0]
    if end <= len(found) or end > min(file.size, HEADER_LIMIT):
        return found[:end]
    return found + source.read(file.path, len(found), end)
