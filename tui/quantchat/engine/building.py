"""Compiles a kernel's extension before the weights are read, and says whose fault a failed load is."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gptqmodel import extension

from quantchat.domain.kernel_table import Kernel
from quantchat.domain.kernels import Plan
from quantchat.domain.loading import KernelRefusal
from quantchat.engine import checks, memory
from quantchat.engine.failures import KernelFailed as KernelFailed
from quantchat.engine.failures import first_lines
from quantchat.engine.progress import Stages
from quantchat.engine.tensors import DAMAGED_REMEDY
from quantchat.errors import KernelError, LoadError, ModelError

BUILD_CODE = "kernel-build"
ONCE = "compiled once, then kept; minutes. Esc or F7 breaks it off"
REASON_CHARACTERS = 300

WEIGHT_FAULTS = ("Missing required quantized weights", "set a tensor of shape")
"""In the words of GPTQModel and accelerate: the files are wrong, and no other kernel would help."""


def build(kernel: Kernel, plan: Plan, stages: Stages) -> None:
    """Load a kernel's extension, compiling it if this machine has not yet.

    Raises:
        KernelFailed: if it cannot be compiled.
    """
    if kernel.extension is None:
        return
    compiled = is_built(kernel.extension)
    stages.enter("loading kernel" if compiled else "building kernel", kernel=kernel.name, note="" if compiled else ONCE)
    if extension.load(kernel.extension)[kernel.extension]:
        return
    said = _last_words(extension.error(kernel.extension))
    error = KernelError(f"The kernel {kernel.name} could not be built", said, code=BUILD_CODE)
    failed = KernelRefusal(kernel.name, f"could not be built: {said}", "The engine's log has the compiler's words.")
    raise KernelFailed(error, plan.after(kernel.name), failed)


def is_built(name: str) -> bool:
    """Whether an extension is in the cache: a private corner of GPTQModel, so any surprise means no."""
    try:
        built = extension._extension_for_name(name)
        return any(path.is_file() for path in built._candidate_binary_paths(built.build_root()))
    except Exception:  # noqa: BLE001 - see above
        return False


def _last_words(text: str) -> str:
    """The line of a compiler's output that names the error, else its end."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(fatal )?error\b|Error:|not found", line)]
    return (errors or lines or ["no reason was given"])[-1][:REASON_CHARACTERS]


@contextmanager
def blamed(kernel: Kernel | None, plan: Plan, device: str, model: Any = None) -> Iterator[None]:
    """Tell a failed kernel, which another one may replace, from a damaged model and full memory."""
    started = time.perf_counter()
    try:
        yield
    except ModelError:
        raise
    except LoadError as error:
        if kernel is None or model is None or not checks.all_finite(model):
            raise
        raise _failed(error, kernel, plan, "failed its check") from error
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise memory.out_of_memory(device, LoadError, error) from error
        if kernel is None or any(words in str(error) for words in WEIGHT_FAULTS):
            raise LoadError("The model cannot be loaded", first_lines(error), DAMAGED_REMEDY) from error
        how = f"failed after {time.perf_counter() - started:.0f} s"
        cause = KernelError(f"The kernel {kernel.name} {how}", first_lines(error))
        raise _failed(cause, kernel, plan, how) from error


def _failed(error: LoadError, kernel: Kernel, plan: Plan, how: str) -> KernelFailed:
    said = error.report.detail[:REASON_CHARACTERS]
    error = KernelError(error.report.title, error.report.detail, error.report.remedy)
    return KernelFailed(error, plan.after(kernel.name), KernelRefusal(kernel.name, f"{how}: {said}"))
