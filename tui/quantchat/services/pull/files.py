"""Which files of a repository are wanted when nobody says: one set of safe weights and what is needed to load them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

import msgspec


class RemoteFile(msgspec.Struct, frozen=True):
    """A file as the hub describes it.

    Attributes:
        path: Within the repository, with slashes.
        size: Bytes.
        blob: Its git object id, a sha1.
        sha256: Of the content, for what the hub keeps outside git (LFS, xet); else empty.
    """

    path: str
    size: int
    blob: str = ""
    sha256: str = ""

    @property
    def etag(self) -> str:
        """Its name in the hub cache: the sha256 where there is one, else the git id."""
        return self.sha256 or self.blob


class Offer(msgspec.Struct, frozen=True):
    """A file, whether it is taken, and why not."""

    file: RemoteFile
    taken: bool
    reason: str = ""


PICKLE = "pickle: can run code when it is loaded"
GGUF = "GGUF: take the one you want"
DUPLICATE = "the same weights in another form"
OTHER = "not needed to run the model"
EXCLUDED = "left out by you"

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npz")
_OTHER_FORMS = (
    ".h5",
    ".msgpack",
    ".onnx",
    ".onnx_data",
    ".ot",
    ".tflite",
    ".mlmodel",
    ".mlpackage",
    ".xml",
    ".pdmodel",
)
_NEEDED = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py", ".yaml", ".yml", ".vocab", ".merges")
_NEEDED_NAMES = re.compile(r"(?i)^(readme|licen[cs]e|notice|copying|use_policy)(\.md|\.txt)?$")
_OTHER_FOLDERS = frozenset({"original", "onnx", "openvino", "coreml", "metal", "flax", "tf", "runs", "logs"})
_TRAINING = re.compile(r"^(optimizer|scheduler|scaler|rng_state|training_args|trainer_state)")
_CONSOLIDATED = re.compile(r"^consolidated[.\-0-9]*\.safetensors$")
_VARIANT = re.compile(r"^(model|pytorch_model)\.(?!safetensors)[A-Za-z0-9_]+(-\d{5}-of-\d{5})?\.safetensors$")
_INDEX = ".safetensors.index.json"


def offer_files(
    files: Sequence[RemoteFile],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    everything: bool = False,
    indexed: Collection[str] = (),
) -> list[Offer]:
    """Say of each file whether it is taken, in the order of their paths.

    Args:
        files: All files of the repository.
        include: Patterns of files that are taken whatever the default says.
        exclude: Patterns of files that are left out, whatever else says otherwise.
        everything: Take all files.
        indexed: Weight files that the repository's own index names, where it is known.
    """
    weights = _weights({file.path for file in files}, indexed)
    offers = []
    for file in sorted(files, key=lambda file: file.path):
        reason = "" if everything or _matches(file.path, include) else _reason(file.path, weights)
        if _matches(file.path, exclude):
            reason = EXCLUDED
        offers.append(Offer(file, not reason, reason))
    return offers


def is_weights(path: str) -> bool:
    """Whether a file holds weights, in whatever form."""
    return path.endswith((".safetensors", ".gguf", *_PICKLES, *_OTHER_FORMS)) and not _TRAINING.match(_name(path))


def _weights(paths: Collection[str], indexed: Collection[str]) -> set[str]:
    """The safetensors files that make up the model."""
    found = {path for path in paths if path.endswith(".safetensors") and "/" not in path}
    found = {path for path in found if not _TRAINING.match(path)}
    if indexed and found.issuperset(indexed):
        return set(indexed)
    for doubles in (_CONSOLIDATED, _VARIANT, re.compile(r"^adapter_")):
        others = {path for path in found if not doubles.match(path)}
        found = others or found
    return found


def _reason(path: str, weights: Collection[str]) -> str:
    folders = PurePosixPath(path).parts[:-1]
    name = _name(path)
    if path in weights:
        return ""
    if name.startswith(".") or _TRAINING.match(name) or any(_is_other(folder) for folder in folders):
        return OTHER
    if name.endswith(".gguf"):
        return GGUF
    if name.endswith(_PICKLES):
        return PICKLE
    if name.endswith((".safetensors", *_OTHER_FORMS)) or (name.endswith(_INDEX) and not _serves(name, weights)):
        return DUPLICATE
    if name.endswith(".bin.index.json"):
        return PICKLE
    return "" if name.endswith(_NEEDED) or _NEEDED_NAMES.match(name) else OTHER


def _serves(index: str, weights: Collection[str]) -> bool:
    """Whether an index is of the weights that are taken, and not of a variant of them."""
    stem = index.removesuffix(_INDEX)
    return any(path.startswith((f"{stem}-", f"{stem}.safetensors")) for path in weights) or not _VARIANT.match(
        f"{stem}.safetensors"
    )


def _is_other(folder: str) -> bool:
    return folder.lower() in _OTHER_FOLDERS or folder.startswith((".", "checkpoint-"))


def _matches(path: str, patterns: Sequence[str]) -> bool:
    # As the hub's own tools do: a folder's name with a slash means all that is in it.
    whole = [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in patterns]
    return any(fnmatchcase(path, pattern) for pattern in whole)


def _name(path: str) -> str:
    return path.rpartition("/")[2]
