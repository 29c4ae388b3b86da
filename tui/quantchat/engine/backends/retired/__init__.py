"""Runs models with the libraries of another interpreter: auto-gptq, autoawq and the transformers that they need."""

from __future__ import annotations

import sys

from quantchat.domain.stacks import LIBRARIES, is_current, pip_line
from quantchat.engine import quiet
from quantchat.engine.backends import Emit, Opened
from quantchat.errors import EngineError
from quantchat.toolchain import versions_of


def open_retired(emit: Emit) -> Opened:
    """Import the libraries, as `open_backend` asks.

    Raises:
        EngineError: if the interpreter has no PyTorch and transformers that can be imported.
    """
    versions = versions_of(LIBRARIES)
    quiet.silence()
    if is_current(versions):
        from quantchat.engine import tasks

        return Opened(tasks.Tasks(emit), versions, tasks.devices())
    try:
        from quantchat.engine.backends.retired.tasks import RetiredTasks, devices
    except ImportError as error:
        raise EngineError(
            f"{sys.executable} cannot import what models are loaded with",
            f"{type(error).__name__}: {error}",
            f"{pip_line(sys.executable, ['torch', 'transformers'])}, or `quantchat doctor` for more.",
            code="libraries",
        ) from error
    return Opened(RetiredTasks(emit), versions, devices())
