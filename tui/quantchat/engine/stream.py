"""One turn: prompt in, text out piece by piece, one reason at the end. Runs on the worker thread."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from quantchat.domain.chat import CONTEXT_FULL
from quantchat.domain.generation import FinishReason, SamplingSettings, TurnStatistics
from quantchat.domain.thinking import Piece
from quantchat.engine import prompt as prompts
from quantchat.engine.decode import text_decoder
from quantchat.engine.protocol import Delta, Finished, Generate, Prefill
from quantchat.engine.quiet import no_warnings
from quantchat.engine.thinking import Speech, marker_tokens, opened_by
from quantchat.engine.threads import Pace, cores
from quantchat.errors import GenerationError

if TYPE_CHECKING:
    from quantchat.engine.loader import LoadedModel
    from quantchat.engine.worker import Emit

DRAWN_SEEDS = 2**32
LONG_PROMPT = 128
"""Tokens from which the last core pays; below, waking its threads costs more than the prompt."""


class TurnStopped(Exception):
    """Leaves a forward pass that the user no longer wants."""


def generate_turn(loaded: LoadedModel, command: Generate, cancelled: Callable[[], bool], emit: Emit) -> Finished:
    """Answer a conversation; emits `Prefill` and `Delta`, returns the `Finished` to send.

    Raises:
        GenerationError: if the prompt does not fit the context window or the template refuses it.
    """
    started = time.perf_counter()
    prompt = prompts.render(loaded.tokenizer, command.messages)
    limit = _token_limit(len(prompt.ids), command.sampling, loaded.window)
    seed = _seed(command.sampling)
    opened = opened_by(prompt.text, command.messages)
    speech = Speech(opened, command.sampling.stop, loaded.stop_strings)
    streamer = _Streamer(loaded, command.turn, speech, emit, started)
    emit(Prefill(turn=command.turn, done=0, total=len(prompt.ids)))
    settings = _generation_config(loaded, command.sampling, limit)
    stopped = _run(loaded, prompt.ids, settings, seed, streamer, cancelled)
    streamer.flush()
    reason = _reason(streamer, stopped or cancelled(), loaded.eos_ids, limit < command.sampling.max_new_tokens)
    return Finished(turn=command.turn, reason=reason, statistics=streamer.statistics(len(prompt.ids), seed))


def _run(
    loaded: LoadedModel,
    ids: Sequence[int],
    settings: GenerationConfig,
    seed: int | None,
    streamer: _Streamer,
    cancelled: Callable[[], bool],
) -> bool:
    """Run `generate`; True if it was left inside a forward pass."""
    if seed is not None:
        torch.manual_seed(seed)
    inputs = torch.tensor([list(ids)], device=loaded.device)
    torch.set_num_threads(cores() if len(ids) >= LONG_PROMPT else loaded.decode_threads.count)
    try:
        with _layer_hooks(loaded.model, cancelled) as remove_hooks, no_warnings():
            streamer.after_prefill(remove_hooks)
            loaded.model.generate(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                generation_config=settings,
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([_Ended(streamer, cancelled)]),
            )
    except TurnStopped:
        return True
    return False


def _token_limit(prompt_tokens: int, sampling: SamplingSettings, window: int) -> int:
    if not window:
        return sampling.max_new_tokens
    if prompt_tokens >= window:
        raise GenerationError(
            "The conversation no longer fits the model's context window",
            f"It has {prompt_tokens:,} tokens and the window {window:,}.",
            "Start a new session with Ctrl+N, or load a model with a larger window.",
            code=CONTEXT_FULL,
        )
    return min(sampling.max_new_tokens, window - prompt_tokens)


def _seed(sampling: SamplingSettings) -> int | None:
    if sampling.temperature == 0:
        return None
    return secrets.randbelow(DRAWN_SEEDS) if sampling.seed is None else sampling.seed


def _generation_config(loaded: LoadedModel, sampling: SamplingSettings, limit: int) -> GenerationConfig:
    """Say everything: what is left out would come from the model's own file."""
    sampled = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    return GenerationConfig(
        max_new_tokens=limit,
        do_sample=sampling.temperature > 0,
        repetition_penalty=sampling.repetition_penalty,
        eos_token_id=sorted(loaded.eos_ids) or None,
        pad_token_id=min(loaded.eos_ids, default=0),
        use_cache=True,
        disable_compile=True,
        **(sampled if sampling.temperature > 0 else {}),
    )


def _reason(streamer: _Streamer, stopped: bool, eos_ids: frozenset[int], window_limits: bool) -> FinishReason:
    if streamer.speech.hit or streamer.last in eos_ids:
        return "stop"
    if stopped:
        return "stopped"
    return "context" if window_limits else "length"


class _Ended(StoppingCriteria):  # type: ignore[misc]
    """Ends decoding at a stop string or when the user wants it."""

    def __init__(self, streamer: _Streamer, cancelled: Callable[[], bool]) -> None:
        self._streamer, self._cancelled = streamer, cancelled

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        ended = self._streamer.speech.hit or self._cancelled()
        return torch.full((input_ids.shape[0],), ended, device=input_ids.device, dtype=torch.bool)


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Receives ids from `generate` and sends text; `put` gets the prompt first, then the tokens."""

    def __init__(self, loaded: LoadedModel, turn: str, speech: Speech, emit: Emit, started: float) -> None:
        self.speech = speech
        self.last: int | None = None
        self._decoder = text_decoder(loaded.tokenizer)
        self._markers = marker_tokens(loaded.tokenizer, loaded.eos_ids)
        self._turn, self._emit = turn, emit
        self._prompt_seen = False
        self._tokens = 0
        self._started = started
        self._first = self._latest = 0.0
        self._threads = loaded.decode_threads
        self._pace = Pace(loaded.decode_threads)
        self._remove_hooks: Callable[[], None] = lambda: None

    def after_prefill(self, action: Callable[[], None]) -> None:
        """Say what to do when the first token has come."""
        self._remove_hooks = action

    def _prefilled(self) -> None:
        self._remove_hooks()
        torch.set_num_threads(self._threads.count)

    def put(self, value: Any) -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            self._prompt_tokens = int(value.numel())
            return
        for token in value.flatten().tolist():
            self._take(token)

    def end(self) -> None:
        """`generate` is done; what is held back is sent by `flush`, which also runs when it was stopped."""

    def _take(self, token: int) -> None:
        now = time.perf_counter()
        step, self._latest = now - self._latest, now
        self._tokens += 1
        self.last = token
        if self._tokens == 1:
            self._first = self._latest
            self._emit(Prefill(turn=self._turn, done=self._prompt_tokens, total=self._prompt_tokens))
            self._prefilled()
        elif self._pace.step(step):
            torch.set_num_threads(1)
        marker = self._markers.get(token)
        self._send(self.speech.feed(self._decoder.step(token)) if marker is None else self.speech.mark(marker))

    def flush(self) -> None:
        """Send what was held back as the possible start of a tag or a stop string."""
        self._send(self.speech.flush())

    def _send(self, pieces: list[Piece]) -> None:
        for channel, text in pieces:
            self._emit(Delta(turn=self._turn, text=text, channel=channel, tokens=self._tokens))

    def statistics(self, prompt_tokens: int, seed: int | None) -> TurnStatistics:
        """What the turn cost so far."""
        first = self._first or time.perf_counter()
        return TurnStatistics(
            prompt_tokens=prompt_tokens,
            new_tokens=self._tokens,
            prefill_seconds=first - self._started,
            decode_seconds=self._latest - self._first if self._tokens else 0.0,
            seed=seed,
        )


@contextmanager
def _layer_hooks(model: Any, cancelled: Callable[[], bool]) -> Iterator[Callable[[], None]]:
    """Ask before each decoder layer, so that a long prefill can be left; a criterion is only asked after it.

    Gives a function that takes the hooks off again: while decoding they would cost some percent of each token.
    """

    def check(*_: Any) -> None:
        if cancelled():
            raise TurnStopped

    handles = [layer.register_forward_pre_hook(check) for layer in _decoder_layers(model)]

    def remove() -> None:
        while handles:
            handles.pop().remove()

    try:
        yield remove
    finally:
        remove()


def _decoder_layers(model: Any) -> Sequence[Any]:
    """The longest list of equal modules in a causal language model is its decoder layers."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    return next((layers for layers in lists if len(layers) == count), [model])
