"""Runs the model over the new tokens of one sequence, in passes that can be left between layers."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from quantchat.engine.threads import Threads

if TYPE_CHECKING:
    from quantchat.engine.kvcache import SessionCache
    from quantchat.engine.loader import LoadedModel


LAYERS_AHEAD = 2


class TurnStopped(Exception):
    """Leaves a forward pass that the user no longer wants."""


class Forward:
    """The model as a function from new tokens to logits, the KV cache written as it goes.

    Must be called under `torch.inference_mode`, as all that it makes is.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.model = loaded.model
        self.device = loaded.device
        self.threads = Threads(loaded.decode_threads) if loaded.device == "cpu" else None
        self._layers = decoder_layers(loaded.model)
        self._keeps = "logits_to_keep" in inspect.signature(loaded.model.forward).parameters

    def __call__(self, cache: SessionCache, tokens: Sequence[int], keep: int = 1) -> Any:
        """Compute some tokens that follow what is cached.

        Returns:
            Logits after each of the last `keep` tokens, of shape [keep, vocabulary].
        """
        if self.threads is not None:
            self.threads.use(len(tokens))
        # Without the limit a long prompt would make logits of its whole length: gigabytes.
        options = {"logits_to_keep": keep} if self._keeps else {}
        inputs = torch.tensor([tokens], device=self.device)
        output = self.model(input_ids=inputs, use_cache=True, **cache.arguments, **options)
        cache.append(tokens)
        return output.logits[0, -keep:]

    def together(self, cache: Any, tokens: Any, mask: Any, positions: Any) -> Any:
        """Compute one token of each of several sequences.

        Args:
            cache: A transformers cache whose rows are padded on the left to one length.
            tokens: Token ids, of shape [sequences, 1].
            mask: What of the cached and the new tokens each sequence sees, of shape [sequences, length].
            positions: Position of each token in its own sequence, of shape [sequences, 1].

        Returns:
            Logits of shape [sequences, vocabulary].
        """
        if self.threads is not None:
            self.threads.use(len(tokens))
        options = {"logits_to_keep": 1} if self._keeps else {}
        output = self.model(
            input_ids=tokens,
            attention_mask=mask.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **options,
        )
        return output.logits[:, -1]

    @contextmanager
    def interruptible(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Ask before each decoder layer, and raise `TurnStopped` inside the pass when it is no longer wanted."""
        lead = _Lead(self.device) if self.device.startswith("cuda") else None

        def check(*_: Any) -> None:
            if lead is not None:
                lead.limit()
            if cancelled():
                raise TurnStopped

        handles = [layer.register_forward_pre_hook(check) for layer in self._layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _Lead:
    """How far the host is ahead of a GPU.

    It queues the layers of a chunk in a fraction of the time that they take: without a limit the last question whether
    the pass is still wanted would come long before most of it is computed.
    """

    def __init__(self, device: str) -> None:
        self._stream = torch.cuda.current_stream(device)
        self._queued: deque[torch.cuda.Event] = deque()

    def limit(self) -> None:
        """Wait until all but the last layers that were queued are computed; the GPU never runs dry."""
        event = torch.cuda.Event()
        event.record(self._stream)
        self._queued.append(event)
        if len(self._queued) > LAYERS_AHEAD:
            self._queued.popleft().synchronize()


def decoder_layers(model: Any) -> Sequence[Any]:
    """The longest list of equal modules in a causal language model is its decoder layers."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    return next((layers for layers in lists if len(layers) == count), [model])
