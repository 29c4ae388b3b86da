"""Keeps libraries from writing where the protocol or the screen is. Must run before anything heavy is imported."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # As the driver numbers them, which is what every other program shows; CUDA's own order is by speed.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    # Machete would download sources at first use, on Hopper and without asking.
    "GPTQMODEL_OFFLINE": "1",
    # The torch fallback kernel compiles its dequantization: 30 s at the first tokens, for nothing on the CPU.
    "TORCHDYNAMO_DISABLE": "1",
}
FEWEST_WORKERS = 2
"""GPTQModel's loader asks for two workers and fails where its pool, sized by the cores, has one."""
NOISY_LOGGERS = ("torch", "torch.utils._pytree", "torch.utils.cpp_extension", "torchao", "tokenicer", "accelerate")


def set_environment() -> None:
    """Set what the libraries read at import; the user's own values win. No TORCH_LOGS: an empty one breaks torch."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _find_own_programs()
    if (os.cpu_count() or 1) <= FEWEST_WORKERS:
        os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(FEWEST_WORKERS))


def _find_own_programs() -> None:
    """Let ninja be found, which pip puts beside this interpreter: the environment need not be activated."""
    folder, path = str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)
    if folder not in path.split(os.pathsep):
        os.environ["PATH"] = f"{path}{os.pathsep}{folder}"


def silence() -> None:
    """Lower the loggers of the libraries; call before importing gptqmodel."""
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    # Other interpreters may have no gptqmodel.
    with contextlib.suppress(ImportError):
        from logbar import LogBar

        LogBar.shared().setLevel("ERROR")


@contextmanager
def no_warnings() -> Iterator[None]:
    """Drop the warnings of a library call; inside a test run they would be errors, and the user cannot act on them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def redirect_output(log_path: str | Path) -> int:
    """Point fd 1 and fd 2 at a log file and return a duplicate of the old fd 1, for the protocol.

    Done on descriptors because compilers and CUDA write past Python's streams. The last log is kept as `<name>.1`,
    unless stderr is that very file: then the parent opened it and reads it by its path.
    """
    path = Path(log_path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.is_file() and not os.path.samestat(path.stat(), os.fstat(2)):
        path.replace(path.with_name(path.name + ".1"))
    protocol = os.dup(1)
    os.set_inheritable(protocol, False)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    sys.stdout, sys.stderr = _stream(1), _stream(2)
    return protocol


def _stream(descriptor: int) -> io.TextIOWrapper:
    raw = _Unfailing(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)


class _Unfailing(io.FileIO):
    """Drops what a full disk refuses: a library's progress bar must not end hours of work."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes
