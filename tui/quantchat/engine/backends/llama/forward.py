"""Passes through the network: tokens of several sessions in one batch, which Stop can end in the middle."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantchat.engine.backends.llama.cells import Cells, Held
from quantchat.engine.backends.llama.library import Words, api
from quantchat.engine.pace import ThreadChoice
from quantchat.errors import GenerationError

ABORTED, NO_ROOM = 2, 1
Logits = npt.NDArray[np.float32]


class PassStopped(Exception):
    """A turn of the batch is no longer wanted; nothing of the batch was computed."""


class Row(NamedTuple):
    """Tokens of one session that come next; `wanted`: the logits behind the last one."""

    held: Held
    tokens: Sequence[int]
    wanted: bool


class Forward:
    """Computes batches on one context.

    Args:
        size: Most tokens of a batch.
        vocabulary: Number of logits.
        threads: CPU threads of each pass.
    """

    def __init__(
        self, context: Any, cells: Cells, words: Words, *, size: int, vocabulary: int, threads: ThreadChoice
    ) -> None:
        self.size = size
        self.threads = threads
        self._context, self._cells, self._words = context, cells, words
        self._vocabulary = vocabulary
        self._batch = api.llama_batch_init(size, 0, 1)
        self._threads = 0
        self._no_abort = api.ggml_abort_callback()

    def close(self) -> None:
        """Give the batch back."""
        api.llama_batch_free(self._batch)

    @contextmanager
    def trying(self) -> Iterator[Held]:
        """Give a place in the cells for passes that nobody keeps."""
        held = Held()
        self._cells.enter(held, self.size)
        try:
            yield held
        finally:
            self._cells.drop(held)

    def __call__(self, rows: Sequence[Row], cancelled: Callable[[], bool] | None = None) -> list[Logits | None]:
        """Compute rows; return the logits of those that want them. They are valid until the next pass.

        Args:
            cancelled: Asked while it computes, as it costs some microseconds for each operation: for prompts.

        Raises:
            PassStopped: if `cancelled` said so.
            GenerationError: if llama.cpp failed.
        """
        count = self._fill(rows)
        self._use_threads(count)
        begun = time.perf_counter()
        with self._abortable(cancelled):
            code = api.llama_decode(self._context, self._batch)
        if code:
            for row in rows:
                self._cells.cut(row.held, len(row.held.ids))
            raise PassStopped if code == ABORTED else self._failed(code)
        for row in rows:
            row.held.ids.extend(row.tokens)
        found = list(self._logits(rows))
        self.threads.took(count, time.perf_counter() - begun)
        return found

    def _fill(self, rows: Sequence[Row]) -> int:
        batch, place = self._batch, 0
        for held, tokens, wanted in rows:
            start = len(held.ids)
            for offset, token in enumerate(tokens):
                batch.token[place] = token
                batch.pos[place] = start + offset
                batch.n_seq_id[place] = 1
                batch.seq_id[place][0] = held.sequence
                batch.logits[place] = 0
                place += 1
            batch.logits[place - 1] = wanted
        batch.n_tokens = place
        return place

    def _logits(self, rows: Sequence[Row]) -> Iterator[Logits | None]:
        place = 0
        for row in rows:
            place += len(row.tokens)
            if not row.wanted:
                yield None
                continue
            pointer = api.llama_get_logits_ith(self._context, place - 1)
            if not pointer:
                raise self._failed(0)
            yield np.ctypeslib.as_array(pointer, (self._vocabulary,))

    def _use_threads(self, tokens: int) -> None:
        count = self.threads.count(tokens)
        if count != self._threads:
            api.llama_set_n_threads(self._context, count, count)
            self._threads = count

    @contextmanager
    def _abortable(self, cancelled: Callable[[], bool] | None) -> Iterator[None]:
        if cancelled is None:
            yield
            return
        callback = api.ggml_abort_callback(lambda _: cancelled())
        api.llama_set_abort_callback(self._context, callback, ctypes.c_void_p(0))
        try:
            yield
        finally:
            api.llama_set_abort_callback(self._context, self._no_abort, ctypes.c_void_p(0))

    def _failed(self, code: int) -> GenerationError:
        said = self._words.text.rpartition("\n")[2]
        self._words.clear()
        if code == NO_ROOM:
            return GenerationError(
                "The KV cache has no room for this conversation",
                said,
                "Raise `kv_cache_gib` in the settings, or begin a new session.",
                code="out-of-memory",
            )
        return GenerationError(
            "llama.cpp could not compute the answer",
            said or f"It returned {code}.",
            "Send again. If it happens again, load the model anew: the log screen has llama.cpp's words.",
            code="llama",
        )
