"""What is heard of GPTQModel while it quantizes, and how it is stopped: hooks that last for one job."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantchat.engine.protocol import JobModule, Log
from quantchat.errors import JobError
from quantchat.quantize import clip

if TYPE_CHECKING:
    from quantchat.quantize.watch import Watch

LAYERS = "quantizing layers"
STEPS = 100
"""Steps of progress per layer."""
SHARES = {"forward_start": 0.0, "forward_end": 0.4, "quant_start": 0.4, "quant_complete": 1.0}
"""How much of the work on modules with a common input is done at GPTQModel's events."""
GPTQ_SHARE = 0.9
"""The rest of a layer is the pass that computes the next one's inputs."""
AWQ_SHARE = 0.15
"""AWQ searches once per layer, after all its forward passes."""
AWQ_SEARCHES = 16
"""About as many scales and clips are searched in a layer."""

logger = logging.getLogger(__name__)
Replacement = Callable[[Any], Any]


class Progress:
    """Counts what is done of the layers, and tells the error of each module.

    Args:
        watch: Hears of it.
        layers: How many are quantized, the output head counted as one.
        method: `gptq` or `awq`.
    """

    def __init__(self, watch: Watch, layers: int, method: str) -> None:
        self._watch = watch
        self._layers = layers
        self._gptq = method == "gptq"
        self._layer = 0
        self._searches = 0
        self.uncalibrated: list[str] = []

    def subset_event(self, *, stage: str, layer_idx: int, subset_index: int, subset_total: int, **_: object) -> None:
        """GPTQModel's callback; raises `Cancelled` into it."""
        self._watch.check()
        if layer_idx != self._layer:
            self._layer, self._searches = layer_idx, 0
        share = GPTQ_SHARE if self._gptq else AWQ_SHARE
        self._move(share * (subset_index + SHARES.get(stage, 0.0)) / max(subset_total, 1))

    def layer_complete(self, *, layer_idx: int, submodule_finalized: bool) -> None:
        """GPTQModel's other callback."""
        self._layer = layer_idx
        self._move(1.0 if submodule_finalized else 0.98)

    def searched(self) -> None:
        """Count a scale or a clip that AWQ has found."""
        self._watch.check()
        self._searches += 1
        self._move(AWQ_SHARE + (0.95 - AWQ_SHARE) * min(self._searches / AWQ_SEARCHES, 1.0))

    def _move(self, share: float) -> None:
        self._watch.report(LAYERS, int((self._layer + share) * STEPS), self._layers * STEPS)

    def module_done(self, row: Mapping[str, Any]) -> None:
        """Tell of a row of GPTQModel's table.

        Raises:
            JobError: if the error is no number.
        """
        error, module = _number(row.get("loss")), str(row.get("module"))
        if error is not None and not math.isfinite(error):
            raise not_finite(f"{row.get('layer')}.{module}")
        if str(row.get("loss", "")).endswith("fallback"):
            self.uncalibrated.append(f"{row.get('layer')}.{module}")
        layer = int(_number(row.get("layer")) or 0)
        told = JobModule(
            job=self._watch.job,
            layer=layer if layer < self._layers and module != "lm_head" else -1,
            layers=self._layers,
            module=module,
            error=error,
            samples=int(_number(row.get("samples")) or 0),
            seconds=_number(row.get("time")) or 0.0,
        )
        self._watch.emit(told)

    def tell_uncalibrated(self) -> None:
        """Name the modules that saw too little text to be calibrated, which GPTQModel only rounds."""
        if names := self.uncalibrated:
            text = f"{len(names)} modules saw too little of the calibration text and were only rounded: {names[0]} …"
            self._watch.emit(Log(level="warning", text=text))


def not_finite(module: str) -> JobError:
    """Return the error of a module whose numbers are lost."""
    detail = f"{module} gives no finite numbers on the calibration text"
    remedy = "Check the source's weights, or take other calibration text and a higher damping"
    return JobError("The error of a module is not a number", detail, remedy, code="not-finite")


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


@contextmanager
def hooked(watch: Watch, progress: Progress, scratch: Path) -> Iterator[None]:
    """Hear of each module and obey a stop within a moment, wherever GPTQModel is; undone at the end.

    Args:
        watch: Says whether a stop is asked for.
        progress: Hears of what is done.
        scratch: Existing folder for what GPTQModel would write beside the program.
    """
    from gptqmodel import DEVICE_THREAD_POOL
    from gptqmodel.looper import loop_processor
    from gptqmodel.looper.awq_processor import AWQProcessor
    from gptqmodel.quantization.gptq import GPTQ
    from gptqmodel.quantization.quantizer import Quantizer
    from gptqmodel.utils import threadx
    from torch.nn.modules.module import register_module_forward_pre_hook

    with ExitStack() as stack:
        replace: Callable[[Any, str, Replacement], None] = lambda *what: stack.enter_context(_replaced(*what))  # noqa: E731
        replace(getattr(threadx, "_DeviceWorker", object), "_abort_process", lambda _: _go_on)
        replace(loop_processor, "_PROJECT_LOG_DIR", lambda _: scratch / "logs")
        replace(
            loop_processor.LoopProcessor, "log_new_row", lambda _: lambda _self, row: progress.module_done(_named(row))
        )
        replace(GPTQ, "mock_hessian_inverse", lambda _: _refuse_mock)
        replace(Quantizer, "find_params", lambda original: _before(watch.check, _unless_wide(original)))
        replace(AWQProcessor, "_pseudo_quantize_tensor_into", lambda original: _before(watch.check, original))
        replace(AWQProcessor, "_search_best_scale", lambda original: _after(progress.searched, original))
        replace(AWQProcessor, "_compute_best_clip", lambda original: _after(progress.searched, _faster(original)))
        stack.callback(register_module_forward_pre_hook(lambda *_: watch.check()).remove)
        # First of all at the end: workers without these hooks would hear no stop, and end the process at an error.
        stack.callback(DEVICE_THREAD_POOL.wait)
        yield


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    from gptqmodel.models import writer as keys

    names = {
        "layer": keys.PROCESS_LOG_LAYER,
        "module": keys.PROCESS_LOG_MODULE,
        "loss": keys.QUANT_LOG_LOSS,
        "samples": keys.QUANT_LOG_NSAMPLES,
        "time": keys.PROCESS_LOG_TIME,
    }
    return {name: row.get(key) for name, key in names.items()}


@contextmanager
def _replaced(holder: Any, name: str, make: Replacement) -> Iterator[None]:
    """Put another attribute in the place of one; where that is gone, another version is installed and keeps its own."""
    original = vars(holder).get(name)
    if original is None:
        logger.warning("GPTQModel has no %s.%s: it is left as it is", holder.__name__, name)
        yield
        return
    setattr(holder, name, make(original))
    try:
        yield
    finally:
        setattr(holder, name, original)


def _before(check: Callable[[], None], original: Callable[..., Any]) -> Callable[..., Any]:
    def method(*args: Any, **kwargs: Any) -> Any:
        check()
        return original(*args, **kwargs)

    return method


def _after(done: Callable[[], None], original: Callable[..., Any]) -> Callable[..., Any]:
    def method(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        done()
        return result

    return method


def _unless_wide(original: Callable[..., Any]) -> Callable[..., Any]:
    """Skip the search over a whole matrix whose scales are searched per group again: a third of GPTQ's time here."""

    def find_params(self: Any, x: Any, weight: bool = False) -> None:
        if not (weight and 0 < self.qcfg.group_size < x.shape[1]):
            with _half_the_threads():
                original(self, x, weight)

    return find_params


@contextmanager
def _half_the_threads() -> Iterator[None]:
    """GPTQModel searches the scales of two modules at once: with all cores for both they wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _faster(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return quantchat's clip search where GPTQModel's is the one that it was written for."""
    return clip.compute_best_clip if tuple(inspect.signature(original).parameters) == clip.SIGNATURE else original


def _go_on(_worker: object, error: BaseException) -> None:
    """Leave the process alive: whoever waits for the work gets the error."""
    logger.info("a worker of GPTQModel failed: %s", type(error).__name__)


def _refuse_mock(task: Any, _hessian: object) -> None:
    """GPTQModel would go on as if nothing had happened, with weights that are only rounded."""
    raise not_finite(str(getattr(task, "name", "a module")))
