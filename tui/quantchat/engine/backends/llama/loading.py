"""Loads a GGUF file: layers to GPUs, cells for conversations, one pass that must give sound logits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantchat.domain import offload
from quantchat.domain.memory import GIB
from quantchat.domain.models import ModelInfo
from quantchat.engine import pace, prompt
from quantchat.engine.backends.llama.cells import Cells, Held
from quantchat.engine.backends.llama.faults import load_error
from quantchat.engine.backends.llama.forward import Forward, Row
from quantchat.engine.backends.llama.layout import CUDA_BUILD, Layout, lay_out
from quantchat.engine.backends.llama.library import Words, api
from quantchat.engine.backends.llama.tokenizer import LlamaTokenizer
from quantchat.engine.host import available_bytes, resident_bytes
from quantchat.engine.progress import Stages
from quantchat.engine.protocol import Load, LoadProgress, LoadReport
from quantchat.engine.voice import Voice
from quantchat.errors import LoadError

KERNEL = "llama.cpp"
NVIDIA = Path("/dev/nvidiactl")
"""There where NVIDIA's driver runs."""
WARM_UP = "The capital of France is"
DAMAGED = "Download the file again, or take another version of the model."
HOST_SHARE, HOST_CAP = 0.15, 16 * GIB
"""Of the available memory, for sessions that wait outside the cells."""
SLOW_STEP = 0.25
"""Seconds of a decode step from which one look at each count must do: more would take longer than the load."""


@dataclass(kw_only=True)
class LlamaModel(Voice):
    """A GGUF model that passed its check."""

    model: Any
    context: Any
    cells: Cells
    forward: Forward
    layout: Layout
    report: LoadReport

    def close(self) -> None:
        """Give everything back."""
        self.forward.close()
        api.llama_free(self.context)
        api.llama_model_free(self.model)


def load(command: Load, words: Words, emit: Callable[[LoadProgress], None]) -> LlamaModel:
    """Load a file and warm it up.

    Raises:
        LoadError: for everything that is wrong with it or with this machine.
    """
    stages, idle = Stages(command.request, emit), resident_bytes()
    words.clear()
    layout = lay_out(command)
    stages.enter("reading weights", note=layout.describe())
    model = _read(command.model, layout, words, stages)
    try:
        return _serve(command, layout, model, words, stages, idle)
    except Exception:
        api.llama_model_free(model)
        raise


def _read(info: ModelInfo, layout: Layout, words: Words, stages: Stages) -> Any:
    parameters = api.llama_model_default_params()
    parameters.n_gpu_layers = layout.layers
    if layout.only is not None:
        parameters.split_mode, parameters.main_gpu = api.LLAMA_SPLIT_MODE_NONE, layout.only

    def progress(share: float, _: Any) -> bool:
        stages.step(int(share * info.weight_bytes), info.weight_bytes, "bytes")
        return True

    parameters.progress_callback = callback = api.llama_progress_callback(progress)
    model = api.llama_model_load_from_file(info.path.encode(), parameters)
    del callback
    if not model:
        raise load_error(info, words.text)
    return model


def _serve(command: Load, layout: Layout, model: Any, words: Words, stages: Stages, idle: int) -> LlamaModel:
    info = command.model
    stages.enter("making room for conversations")
    context = _new_context(model, layout, words, info)
    try:
        tokenizer = LlamaTokenizer(model)
        cells = Cells(
            context,
            size=int(api.llama_n_ctx(context)),
            token_bytes=layout.token_bytes,
            sequences=offload.SEQUENCES,
            host_budget=_host_budget(command),
        )
        size = layout.chunk + offload.SEQUENCES
        threads = pace.ThreadChoice(pace.DecodeThreads())
        forward = Forward(context, cells, words, size=size, vocabulary=tokenizer.size, threads=threads)
        stages.enter("warming up")
        _warm_up(forward, tokenizer)
        if not layout.layers:
            forward.threads = pace.ThreadChoice(_calibrated(forward))
        stages.leave()
    except Exception:
        api.llama_free(context)
        raise
    window = min(int(api.llama_model_n_ctx_train(model)) or cells.size, cells.size)
    template = prompt.template_name(tokenizer)
    return LlamaModel(
        model=model,
        context=context,
        cells=cells,
        forward=forward,
        layout=layout,
        report=_report(command, layout, stages, idle, window, template),
        tokenizer=tokenizer,
        device=layout.device,
        window=window,
        eos_ids=tokenizer.ends,
        stop_strings=(prompt.CHATML_END,) if template == prompt.FALLBACK else (),
    )


def _new_context(model: Any, layout: Layout, words: Words, info: ModelInfo) -> Any:
    parameters = api.llama_context_default_params()
    parameters.n_ctx = layout.cells
    parameters.n_seq_max = offload.SEQUENCES
    # All sessions share the cells, so that a single one can have them all.
    parameters.kv_unified = True
    # Without this a sliding window's layers forget what a session's next turn wants to go on from.
    parameters.swa_full = True
    parameters.n_batch = parameters.n_ubatch = layout.chunk + offload.SEQUENCES
    parameters.n_threads = parameters.n_threads_batch = pace.cores()
    parameters.offload_kqv = parameters.op_offload = bool(layout.layers)
    if hasattr(parameters, "n_outputs_max"):
        # Else there is room for logits of every token of a batch: half a gigabyte with a large vocabulary.
        parameters.n_outputs_max = offload.SEQUENCES
    context = api.llama_init_from_model(model, parameters)
    if not context:
        raise load_error(info, words.text)
    return context


def _warm_up(forward: Forward, tokenizer: LlamaTokenizer) -> None:
    """Compute a text and judge the logits behind it.

    Raises:
        LoadError: if they are not numbers, or the same for every token.
    """
    ids = tokenizer.encode(WARM_UP)[: forward.size] or [0, 1]
    with forward.trying() as held:
        (logits,) = forward([Row(held, ids, wanted=True)])
        assert logits is not None
        if not np.isfinite(logits).all():
            raise LoadError("The model computes no numbers", "The warm-up gave NaN or infinite logits.", DAMAGED)
        if logits.max() == logits.min():
            raise LoadError("The model says the same of every word", "The warm-up gave equal logits.", DAMAGED)


def _calibrated(forward: Forward) -> pace.DecodeThreads:
    """Find the thread count that decodes fastest, the counts taking turns."""
    counts = pace.candidates(pace.cores())
    if len(counts) == 1:
        return pace.DecodeThreads()
    with forward.trying() as held:
        first = {count: _step_seconds(forward, held, count) for count in (counts[0], counts[-1])}
        if min(first.values()) > SLOW_STEP:
            return pace.fastest(first)
        taken: dict[int, list[float]] = {count: [] for count in counts}
        for _ in range(pace.ROUNDS):
            for count in counts:
                # The first wakes the threads.
                _step_seconds(forward, held, count)
                taken[count] += [_step_seconds(forward, held, count) for _ in range(pace.STEPS)]
    return pace.fastest({count: statistics.median(times) for count, times in taken.items()})


def _step_seconds(forward: Forward, held: Held, count: int) -> float:
    forward.threads = pace.ThreadChoice(pace.DecodeThreads(count))
    begun = time.perf_counter()
    forward([Row(held, [0], wanted=True)])
    return time.perf_counter() - begun


def _host_budget(command: Load) -> int:
    if command.host_kv_budget is not None:
        return command.host_kv_budget
    return min(int(HOST_SHARE * available_bytes()), HOST_CAP)


def _warnings(info: ModelInfo, layout: Layout, window: int) -> Iterator[str]:
    if info.context_window and window < info.context_window:
        yield (
            f"The KV cache holds {window:,} of the {info.context_window:,} tokens of the model's window. "
            "Set `kv_cache_gib` to the GiB that it may take, for longer conversations."
        )
    if layout.gpus and layout.layers < layout.of:
        yield (
            f"The GPU holds {layout.layers} of {layout.of} layers, and the CPU computes the rest: that is several "
            "times as slow. A smaller quantization, or a smaller `kv_cache_gib`, fits whole."
        )
    if not api.llama_supports_gpu_offload() and NVIDIA.exists():
        yield f"There is an NVIDIA GPU, and this llama.cpp was built for the CPU alone. Build it anew: {CUDA_BUILD}"


def _report(command: Load, layout: Layout, stages: Stages, idle: int, window: int, template: str) -> LoadReport:
    info = command.model
    return LoadReport(
        path=info.path,
        name=info.name,
        architecture=info.architecture or "",
        device=layout.device,
        dtype=(info.quant.checkpoint_format or "").upper(),
        kernel=KERNEL,
        placement=layout.describe(),
        weight_bytes=info.weight_bytes,
        device_bytes=layout.taken() if layout.layers else resident_bytes(),
        idle_bytes=idle,
        context_window=window,
        template=template,
        kv_token_bytes=layout.token_bytes,
        kv_budget=layout.cells * layout.token_bytes,
        seconds=stages.seconds,
        warnings=tuple(_warnings(info, layout, window)),
    )
