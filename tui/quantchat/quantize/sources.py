"""From what is named as the source of a quantization to an ordinary model folder whose weights are sound."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantchat.domain.matrices import Matrix, quantizable
from quantchat.errors import JobError

if TYPE_CHECKING:
    from quantchat.quantize.watch import Watch

SCRATCH = ".work"
"""Folder within a half-made one for what is needed only on the way."""
CHECKING = "checking weights"


def prepared(source: Path, adapter: Path | None, scratch: Path, watch: Watch) -> Path:
    """Return an ordinary model folder: the source itself, or one in `scratch`.

    Raises:
        Cancelled: if the user said stop.
        JobError: if the source is not there, cannot be read, or is quantized already.
    """
    with reading(source):
        if not source.exists():
            raise JobError(f"{source} is not there", remedy="Check the path", code="source-missing")
        if source.is_file():
            source = _dequantized(source, scratch / "unpacked", watch)
    require_unquantized(config_of(source))
    if adapter is None:
        return source
    from quantchat.quantize import lora

    with reading(adapter):
        return lora.merge(source, adapter, scratch / "merged", watch)


def _dequantized(source: Path, folder: Path, watch: Watch) -> Path:
    from quantchat.quantize import dequantize

    folder.mkdir(parents=True)
    dequantize.convert(source, folder, watch)
    return folder


def config_of(folder: Path) -> dict[str, Any]:
    """Read a model's `config.json`.

    Raises:
        JobError: if it is not there or not in order.
    """
    with reading(folder):
        text = (folder / "config.json").read_bytes()
    try:
        config = json.loads(text)
    except ValueError as error:
        raise JobError("The model's config.json is not in order", str(error)) from error
    return config if isinstance(config, dict) else {}


def require_unquantized(config: dict[str, Any]) -> None:
    """Raise `JobError` for a model whose weights are integers already."""
    if config.get("quantization_config"):
        raise JobError("This model is quantized already", remedy="Start from the unquantized folder", code="quantized")


@contextmanager
def reading(source: Path) -> Iterator[None]:
    """Tell a source that cannot be read from a disk that cannot be written."""
    try:
        yield
    except OSError as error:
        gone = not source.exists()
        title = f"{source} is gone" if gone else f"{source} cannot be read"
        detail = error.strerror or str(error)
        remedy = "It was there when the job began: leave it in place until the end" if gone else "Check its permissions"
        raise JobError(title, detail, remedy, code="source-gone" if gone else "source-unreadable") from error


def matrices(folder: Path, lm_head: bool) -> list[Matrix]:
    """Return the matrices that are to be quantized, from the headers of the weight files; none without those."""
    from safetensors import SafetensorError, safe_open

    shapes = []
    try:
        for path in sorted(folder.glob("*.safetensors")):
            with reading(path), safe_open(path, framework="pt") as file:
                shapes += [(name, file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118
    except SafetensorError as error:
        raise JobError("The weights cannot be read", str(error), "Download the model again") from error
    return list(quantizable(shapes, lm_head))


def require_finite(model: Any, watch: Watch) -> None:
    """Look at each number of a model, which calibration would spread all over it.

    Raises:
        Cancelled: if the user said stop.
        JobError: if one is NaN or infinite.
    """
    import torch

    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in watch.each(tensors, CHECKING, len(tensors)):
        # The sum is lost if any number is, and costs no second tensor; it may overflow by itself.
        if not tensor.is_floating_point() or tensor.sum(dtype=torch.float32).isfinite():
            continue
        if lost := int((~tensor.float().isfinite()).sum()):
            detail = f"{name} holds {lost:,} values that are NaN or infinite, of {tensor.numel():,}"
            remedy = "Take the model from another checkpoint: what is made of this one would answer nonsense"
            raise JobError("The weights of the source are damaged", detail, remedy, code="not-finite")
