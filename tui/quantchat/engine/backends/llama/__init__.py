"""Runs GGUF files with llama-cpp-python."""

from __future__ import annotations

from quantchat.engine.backends import Emit, Opened, versions_of

LIBRARIES = ("llama-cpp-python",)


def open_llama(emit: Emit) -> Opened:
    """Import the libraries, as `open_backend` asks."""
    from quantchat.engine.backends.llama import library, tasks

    words = library.start()
    devices = (*(gpu.device for gpu in library.gpus()), "cpu")
    return Opened(tasks.LlamaTasks(words, emit), versions_of(LIBRARIES), devices)
