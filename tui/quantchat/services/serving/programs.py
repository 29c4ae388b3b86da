"""Finding the programs that serve, and saying how to get them."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from quantchat.errors import ServeError, UsageError

Backend = Literal["vllm", "transformers"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

OWN_VLLM = "python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm"
VLLM_REMEDY = (
    f"Install it in an environment of its own, for it brings its own torch ({OWN_VLLM}), and add "
    "--program ~/vllm/bin/vllm. Or serve with what is here, slower and on any machine: add --backend transformers"
)
SERVING_PACKAGES = ("fastapi", "uvicorn", "openai", "pydantic")
"""What `transformers serve` asks for (`is_serve_available`)."""
INSTALL_SERVING = "pip install 'transformers[serving]'"


def find_program(backend: Backend, given: str = "") -> str:
    """Return the program that serves: the given one, or the one on PATH or beside this interpreter.

    Raises:
        UsageError: if the given one cannot be run.
        ServeError: if there is none, or it lacks packages; says how to install it.
    """
    if given:
        return _given(given)
    if backend == "vllm":
        found = shutil.which("vllm") or _beside("vllm")
        if found is None:
            raise ServeError("vLLM is not installed", remedy=VLLM_REMEDY, code="vllm-missing")
        return found
    return _transformers()


def _given(name: str) -> str:
    found = shutil.which(os.path.expanduser(name))
    if found is None:
        raise UsageError(f"There is no program {name}", "It is not on PATH, or it is no executable file")
    return os.path.abspath(found)


def _transformers() -> str:
    """Its own environment is quantchat's, which tells without a start whether all is there."""
    own = _beside("transformers")
    lacking = [name for name in SERVING_PACKAGES if find_spec(name) is None] if own else []
    if lacking:
        detail = f"It needs {', '.join(lacking)}"
        raise ServeError("`transformers serve` lacks packages", detail, f"Run {INSTALL_SERVING}", code="serving-extra")
    found = own or shutil.which("transformers")
    if found is None:
        raise ServeError("There is no program `transformers`", remedy=f"Run {INSTALL_SERVING}", code="serving-extra")
    return found


def _beside(name: str) -> str | None:
    """Environments need not be activated: pip puts programs beside the interpreter."""
    return shutil.which(name, path=str(Path(sys.executable).parent))
