"""Captures a decode step as a CUDA graph, and proves beforehand and afterwards that it may be replayed."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from quantchat.engine.static import Bucket, PlainStep

WARM_UP_STEPS = 3
"""Lets kernels compile, tune and allocate what they keep; a capture allows none of that."""
CHECKED_PROMPT, CHECKED_STEPS = 24, 3
TOLERANCE = {torch.float32: 0.001, torch.float16: 0.02, torch.bfloat16: 0.05}
"""How far logits of two right paths may be apart, as a share of the eager logits' range: attention over a padded
buffer sums in another order. A step that is wrong is off by a third of the range and more."""

WAITING = frozenset(
    {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "bincount"}
)
"""Operators whose result or its size the host must know: they stop the queue of launches, and end a capture."""
READING = frozenset({"item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__"})
"""Tensor methods that read the device, not all by an operator that a mode sees."""


class StepWaits(Exception):
    """The forward pass waits for the device."""


class Step(Protocol):
    """Computes a bucket's token at its position and writes the bucket's logits."""

    def run(self) -> None:
        """Compute."""

    def release(self) -> None:
        """Give back what is held on the device."""


class _ReadWatch(TorchFunctionMode):  # type: ignore[misc]
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in READING:
            raise StepWaits(_described(func.__name__))
        return func(*args, **(kwargs or {}))


class _OperatorWatch(TorchDispatchMode):  # type: ignore[misc]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING or _picks_by_mask(name, args) or _leaves_the_device(name, args, kwargs or {}):
            raise StepWaits(_described(name))
        return func(*args, **(kwargs or {}))


def _picks_by_mask(name: str, args: Sequence[Any]) -> bool:
    """Indexing by a mask counts its ones on the host, and so does repeating by a tensor."""
    if name == "repeat_interleave":
        return isinstance(args[-1], torch.Tensor)
    if name not in ("index", "index_put", "index_put_"):
        return False
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _leaves_the_device(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    target = kwargs.get("device")
    return name == "_to_copy" and target is not None and torch.device(target).type != args[0].device.type


def _described(operator: str) -> str:
    """Name the operator and the line of the model's code that used it."""
    frames = [frame for frame in traceback.extract_stack() if "/models/" in frame.filename.replace("\\", "/")]
    where = f" in {frames[-1].filename.rsplit('/', 1)[-1]}, line {frames[-1].lineno}" if frames else ""
    return f"{operator}{where}"


def waits(step: PlainStep) -> str | None:
    """Run a step and return the operation in it that waits for the device, or None."""
    try:
        with _ReadWatch(), _OperatorWatch():
            step.run()
    except StepWaits as found:
        return str(found)
    return None


class GraphStep:
    """The decode step as one CUDA graph: a single launch instead of some thousand.

    Must be made before anything of value is in the bucket, as warming up writes to it.
    """

    def __init__(self, step: PlainStep, device: torch.device, pool: Any) -> None:
        self._graph: Any = torch.cuda.CUDAGraph()
        current, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_STEPS):
                step.run()
        current.wait_stream(side)
        torch.cuda.synchronize(device)
        try:
            # Only this thread is watched: others may ask the driver for its free memory meanwhile.
            with torch.cuda.graph(self._graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                step.run()
        finally:
            # A capture that fails at its end leaves torch on the side stream.
            torch.cuda.set_stream(current)

    def run(self) -> None:
        """Replay."""
        self._graph.replay()

    def release(self) -> None:
        """Free the graph and its share of the memory pool."""
        self._graph.reset()


def difference(model: Any, bucket: Bucket, step: Step) -> str | None:
    """Compare a step with the model's own eager path on the same tokens.

    Returns:
        What is wrong, or None if the logits agree within `TOLERANCE`.
    """
    cache = DynamicCache(config=model.config)
    length = min(CHECKED_PROMPT, bucket.length - CHECKED_STEPS)
    tokens = [(7 * index + 3) % bucket.logits.shape[0] for index in range(length + CHECKED_STEPS)]
    _eager(model, cache, tokens[:length])
    bucket.load(cache, tokens[:length])
    for position in range(length, length + CHECKED_STEPS):
        expected = _eager(model, cache, tokens[position : position + 1])
        bucket.token.fill_(tokens[position])
        bucket.position.fill_(position)
        step.run()
        apart = deviation(expected, bucket.logits)
        if not apart <= TOLERANCE.get(expected.dtype, 0.0):
            return f"its logits are {apart:.1%} of their range off those of the ordinary path"
    bucket.forget()
    return None


def _eager(model: Any, cache: Any, tokens: Sequence[int]) -> Any:
    inputs = torch.tensor([tokens], device=next(model.parameters()).device)
    return model(input_ids=inputs, past_key_values=cache, use_cache=True).logits[0, -1]


def deviation(expected: Any, logits: Any) -> float:
    """Largest difference of two sets of logits as a share of the first one's range; NaN if any is no number."""
    expected, logits = expected.float(), logits.float()
    return float((expected - logits).abs().max() / (expected.max() - expected.min()))


def is_tie(expected: Any, token: int, other: int) -> bool:
    """Whether two tokens' eager logits are so near that two right paths may rank them differently.

    The rule for greedy decoding: the fast path gives the eager path's tokens up to the first tie, after which two
    texts that are both right may go on differently.
    """
    room = TOLERANCE.get(expected.dtype, 0.0)
    expected = expected.float()
    return bool((expected[token] - expected[other]).abs() <= room * (expected.max() - expected.min()))
