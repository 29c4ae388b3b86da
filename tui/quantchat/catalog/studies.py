"""What config and tensors of a model tell, found once for all models that differ in nothing but their weights."""

from __future__ import annotations

import hashlib

import msgspec

from quantchat.catalog.attention import complete, read_attention
from quantchat.catalog.contradictions import judge_tensors
from quantchat.catalog.files import JsonObject
from quantchat.catalog.groups import group
from quantchat.catalog.recognition import Recognition, look_again
from quantchat.catalog.shape import read_context_window, read_shape
from quantchat.catalog.sizes import is_tied, weigh
from quantchat.catalog.weights import WeightFiles, count_parameters, read_weights
from quantchat.domain.models import AttentionSpec, Problem, Shape, WeightSizes

MOST = 256
"""Studies that are kept; each is small, as the tensors are not among it."""


class Study(msgspec.Struct, frozen=True):
    """What headers and config say together; its problems are in the order in which they were found."""

    recognition: Recognition
    weight_bytes: int
    written_by: str
    parameters: int | None
    sizes: WeightSizes
    tied: bool
    shape: Shape
    attention: AttentionSpec
    context_window: int | None
    problems: tuple[Problem, ...]


def study(files: WeightFiles, config: JsonObject, recognition: Recognition) -> Study:
    """Study the tensors of a model; the same headers and config are studied once."""
    key = _digest(files, config, recognition)
    if (known := _known.get(key)) is None:
        known = _known[key] = _study(files, config, recognition)
        if len(_known) > MOST:
            del _known[next(iter(_known))]
    return known


def _study(files: WeightFiles, config: JsonObject, recognition: Recognition) -> Study:
    weights = read_weights(files)
    groups = group(weights.tensors)
    recognition = look_again(recognition, groups)
    return Study(
        recognition,
        weights.weight_bytes,
        weights.written_by,
        count_parameters(groups, recognition),
        weigh(groups, recognition.spec, config),
        is_tied(config, groups),
        read_shape(complete(config)),
        read_attention(config),
        read_context_window(config),
        (*weights.problems, *judge_tensors(groups, config, recognition.spec)),
    )


def _digest(files: WeightFiles, config: JsonObject, recognition: Recognition) -> bytes:
    """Digest all that a study depends on; the names of files stand in its problems."""
    whole = hashlib.blake2b(digest_size=20)
    for header in files.headers:
        whole.update(repr((header.name, header.file_size, len(header.text))).encode("utf-8", "surrogateescape"))
        whole.update(header.text)
    told = files.whole, hash(files.indexed), config, recognition.spec, recognition.verdict, recognition.problem
    whole.update(repr(told).encode("utf-8", "surrogatepass"))
    return whole.digest()


_known: dict[bytes, Study] = {}
