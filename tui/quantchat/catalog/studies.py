"""What config and tensors of a model tell, found once for all models that differ in nothing but their weights."""

from __future__ import annotations

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


_Key = tuple[tuple[tuple[str, int, int, int], ...], bool, int, int, int]


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
    key = _key(files, config, recognition)
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


def _key(files: WeightFiles, config: JsonObject, recognition: Recognition) -> _Key:
    """Return all that a study depends on, texts by their hash; the names of files stand in its problems.

    Python's own hash has 64 bits under a secret of this process, and takes a quarter of a digest's time.
    """
    headers = tuple((one.name, one.file_size, len(one.text), hash(one.text)) for one in files.headers)
    told = repr((config, recognition.spec, recognition.verdict, recognition.problem))
    return headers, files.whole, hash(files.indexed), len(told), hash(told)


_known: dict[_Key, Study] = {}
