"""Which engine process runs a model: the library that it loads it with, and the interpreter that it is started with."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from quantchat.domain.models import ModelInfo

Backend = Literal["torch", "llama", "server", "retired"]
"""`torch`: transformers and GPTQModel. `llama`: llama-cpp-python. `server`: an OpenAI-compatible server. `retired`:
auto-gptq or autoawq, in an interpreter of their own."""


Interpreter = Annotated[
    str, msgspec.Meta(pattern=r"^([~/].*|[^/]*)$", examples=["/opt/old/bin/python", "~/old/bin/python"])
]
"""An absolute path, one from `~`, or a command on PATH: a folder to begin at is nowhere the same twice."""


class Interpreters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Other Python interpreters for engine processes, as `[engine]` in the settings names them.

    Attributes:
        python: For all models in folders; empty takes quantchat's own.
        gptq_python: For GPTQ folders; wins over `python`.
        awq_python: For AWQ folders; wins over `python`.
    """

    python: Interpreter = ""
    gptq_python: Interpreter = ""
    awq_python: Interpreter = ""

    def of(self, model: ModelInfo) -> str:
        """Return the interpreter for a model folder; empty for quantchat's own."""
        own = {"gptq": self.gptq_python, "awq": self.awq_python}.get(model.quant.method, "")
        return own or self.python


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine process is.

    Attributes:
        python: Its interpreter; empty for quantchat's own.
    """

    backend: Backend = "torch"
    python: str = ""


OWN = EngineSpec()
"""Transformers and GPTQModel in quantchat's own interpreter; also for every job."""


def engine_spec(model: ModelInfo, interpreters: Interpreters) -> EngineSpec:
    """Return the engine process that a model needs."""
    if model.container == "server":
        return EngineSpec(backend="server")
    if model.container == "gguf":
        return EngineSpec(backend="llama")
    python = interpreters.of(model)
    return EngineSpec(backend="retired", python=python) if python else OWN
