"""The fast decode path of a GPU: fixed KV buffers in length buckets, and the captured CUDA graph of one step for each.

An eager step is bound by its launches (over two thousand at thirty layers), a replayed graph by the memory's speed.
Graphs were preferred to `torch.compile`: the operators of GPTQModel have no fake kernels, compiling takes a minute per
model and shape, and what it could fuse is little beside the packed weights, which fill the time of a step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from quantchat.engine import capture, memory, static
from quantchat.engine.static import Bucket, Layout, PlainStep, Refusal

if TYPE_CHECKING:
    from quantchat.engine.kvcache import SessionCache

logger = logging.getLogger(__name__)

SHORTEST = 1024
PROBED = 16
"""Length of the buffers in which a step is watched for waits."""
HEADROOM = 256 * 2**20
"""Bytes left free beside a new bucket: its graph keeps the step's intermediate results, and prefill needs room."""

_DEFAULT_STREAM = "its kernel launches on the default stream, which a capture does not see"
_UNPACKING = "its kernel unpacks whole matrices for every token; launches are not what it waits for"
REASON_CHARACTERS = 200
KERNEL_REFUSALS = {
    "gptq_exllama_v2": _DEFAULT_STREAM,
    "awq_exllama_v2": _DEFAULT_STREAM,
    "awq_gemv_fast": _DEFAULT_STREAM,
    "gptq_torch": _UNPACKING,
    "awq_torch": _UNPACKING,
}
"""By the sources of GPTQModel 7.7; what a replay of the first three would compute is stale."""

StepMaker = Callable[[PlainStep], capture.Step]


class FastPathLost(Exception):
    """The fast path ends in the middle of an answer; the session's cache is whole and the ordinary path goes on."""


class GraphDecoder:
    """Decodes one session at a time over fixed buffers. `create` makes it.

    Usage: `attach` when decoding begins or another session's turn comes, `step` per token, `detach` before anything
    else uses the session's cache. Buffers remember their last session: coming back to it copies only what is new.
    All of it under `torch.inference_mode`, as is the rest of a turn.
    """

    def __init__(
        self, model: Any, layout: Layout, window: int, make_step: StepMaker, free_bytes: Callable[[], int],
        shortest: int = SHORTEST,
    ) -> None:  # fmt: skip
        self._model, self._layout, self._window = model, layout, window
        self._make_step, self._free_bytes, self._shortest = make_step, free_bytes, shortest
        self._buckets: dict[int, tuple[Bucket, capture.Step]] = {}
        self._broken: Refusal | None = None
        self._session: SessionCache | None = None
        self._bucket: Bucket | None = None
        self._start = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(bucket.nbytes for bucket, _ in self._buckets.values())

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of the buckets there are, in tokens."""
        return tuple(sorted(self._buckets))

    def prepare(self) -> Refusal | None:
        """Make the shortest bucket, so that a failure is known when the model is loaded."""
        bucket = self._bucket_for(1)
        return bucket if isinstance(bucket, Refusal) else None

    def attach(self, session: SessionCache) -> Refusal | None:
        """Take over a session's cache, which must not be used until `detach`.

        Returns:
            Why its tokens must be computed the ordinary way; nothing is attached then.
        """
        self.detach()
        bucket = self._bucket_for(len(session.ids) + 1)
        if isinstance(bucket, Refusal):
            return bucket
        bucket.load(session.cache, session.ids, session)
        # Nothing was computed: its cache is still what its ids say.
        session.append(())
        self._session, self._bucket, self._start = session, bucket, len(session.ids)
        return None

    def step(self, token: int) -> Any:
        """Compute the token after those of the session.

        Returns:
            Logits of shape [vocabulary], on the device; the next step writes over them.

        Raises:
            FastPathLost: if a longer bucket is needed and cannot be had. The session is detached, without the token.
        """
        bucket = self._attached()
        if len(bucket.ids) == bucket.length:
            bucket = self._promoted(bucket)
        bucket.token.fill_(token)
        bucket.position.fill_(len(bucket.ids))
        self._buckets[bucket.length][1].run()
        bucket.ids.append(token)
        return bucket.logits

    def detach(self) -> None:
        """Write what was computed into the session's cache, and let go of it."""
        session, bucket = self._session, self._bucket
        self._session = self._bucket = None
        if session is None or bucket is None or len(bucket.ids) == self._start:
            return
        bucket.store(session.cache, self._start)
        session.append(bucket.ids[self._start :])

    def release(self) -> None:
        """Free the graphs and buffers; a captured graph would keep them until the process ends."""
        self.detach()
        self._drop(tuple(self._buckets))

    def _attached(self) -> Bucket:
        if self._bucket is None:
            raise RuntimeError("no session is attached")
        return self._bucket

    def _promoted(self, bucket: Bucket) -> Bucket:
        bigger = self._bucket_for(bucket.length + 1)
        if isinstance(bigger, Refusal):
            self.detach()
            raise FastPathLost(bigger.reason)
        bigger.take_over(bucket)
        bucket.forget()
        self._bucket = bigger
        return bigger

    def _bucket_for(self, tokens: int) -> Bucket | Refusal:
        length = next((length for length in lengths(self._shortest, self._window) if length >= tokens), None)
        if length is None:
            return Refusal(f"the text is longer than the context window of {self._window} tokens")
        if self._broken is not None:
            return self._broken
        if length in self._buckets:
            return self._buckets[length][0]
        return self._room(length) or self._made(length)

    def _room(self, length: int) -> Refusal | None:
        need = self._layout.nbytes(length) + HEADROOM
        if need <= self._free_bytes():
            return None
        self._drop(tuple(known for known, (bucket, _) in self._buckets.items() if bucket is not self._bucket))
        memory.give_back()
        free = self._free_bytes()
        if need <= free:
            return None
        return Refusal(f"a buffer of {length:,} tokens needs {need:,} bytes, and {free:,} are free")

    def _made(self, length: int) -> Bucket | Refusal:
        """Make and check a bucket. A failure other than of memory holds for all lengths: the step is the same."""
        try:
            bucket = Bucket(self._layout, length)
            step = self._make_step(PlainStep(self._model, bucket))
            wrong = capture.difference(self._model, bucket, step)
        except Exception as error:  # noqa: BLE001 - whatever a kernel raises in a capture, the ordinary path works
            return self._failed(error, length)
        if wrong is None:
            self._buckets[length] = (bucket, step)
            return bucket
        step.release()
        self._broken = Refusal(f"the captured step failed its check: {wrong}")
        return self._broken

    def _failed(self, error: Exception, length: int) -> Refusal:
        if memory.is_out_of_memory(error):
            return Refusal(f"a buffer of {length:,} tokens ({self._layout.nbytes(length):,} bytes) did not fit")
        self._broken = Refusal(f"capturing the step failed: {type(error).__name__}: {str(error)[:REASON_CHARACTERS]}")
        return self._broken

    def _drop(self, gone: tuple[int, ...]) -> None:
        for length in gone:
            self._buckets.pop(length)[1].release()


def lengths(shortest: int, window: int) -> Iterator[int]:
    """Give the lengths of buckets: doubling, the last as long as the window; without an end if that is 0."""
    length = shortest
    while not window or length < window:
        yield length
        length *= 2
    yield window


def create(model: Any, window: int, kernel: str) -> GraphDecoder | Refusal:
    """Make the fast decode path of a loaded model, with its first bucket captured and checked.

    Args:
        model: A causal language model on one GPU, in eval mode.
        window: Context window in tokens, 0 if unknown.
        kernel: Name of the kernel of its packed weights, or `dense`.
    """
    device = next(model.parameters()).device
    if device.type != "cuda":
        return Refusal("it needs a CUDA device")
    if kernel in KERNEL_REFUSALS:
        return Refusal(KERNEL_REFUSALS[kernel])
    pool = torch.cuda.graph_pool_handle()
    return build(model, window, lambda step: capture.GraphStep(step, device, pool), lambda: _free_bytes(device))


def _free_bytes(device: torch.device) -> int:
    """What the driver has and what torch holds unused."""
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + cached)


def build(
    model: Any, window: int, make_step: StepMaker, free_bytes: Callable[[], int], shortest: int = SHORTEST
) -> GraphDecoder | Refusal:
    """Make the decode path with a given executor of its step; see `create`."""
    with torch.inference_mode():
        try:
            layout = _probed(model)
        except Exception as error:
            # The model has passed its checks without this path, and its load must not fail for it.
            logger.exception("the decode step cannot be tried")
            return Refusal(f"trying the step failed: {type(error).__name__}: {str(error)[:REASON_CHARACTERS]}")
        if isinstance(layout, Refusal):
            return layout
        decoder = GraphDecoder(model, layout, window, make_step, free_bytes, shortest)
        return decoder.prepare() or decoder


def _probed(model: Any) -> Layout | Refusal:
    layout = static.refusal(model) or static.layout(model)
    if isinstance(layout, Refusal):
        return layout
    waiting = capture.waits(PlainStep(model, Bucket(layout, PROBED)))
    return layout if waiting is None else Refusal(f"its forward pass waits for the device ({waiting})")
