"""The chat template of a model, and what it makes of a sample conversation; found out by a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from quantchat.catalog.problems import clean
from quantchat.catalog.rendering import Request
from quantchat.catalog.sample import Sample
from quantchat.catalog.templates import ChatTemplate

SECONDS = 20.0
"""Real time that it may take; its processor time is limited far below."""


def sample_of(path: Path) -> Sample | None:
    """Render the template of a model folder or GGUF file; None if there is none.

    Takes tenths of a second, and never raises.
    """
    return _ask(Request(path=os.fsencode(path))) if path.exists() else None


def render_sample(template: ChatTemplate, folder: Path | None = None) -> Sample:
    """Render the sample conversation with one template, and the special tokens of a folder."""
    where = None if folder is None else os.fsencode(folder)
    return _ask(Request(template=template, path=where)) or Sample()


def _ask(request: Request) -> Sample | None:
    # -P: what lies in the current folder must not be taken for a library.
    command = [sys.executable, "-P", "-m", "quantchat.catalog.rendering"]
    try:
        done = subprocess.run(command, input=msgspec.json.encode(request), capture_output=True, timeout=SECONDS)
        return msgspec.json.decode(done.stdout, type=Sample | None) if done.returncode == 0 else _died(done.returncode)
    except subprocess.TimeoutExpired:
        return _died(-signal.SIGKILL)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        return Sample(problem=f"it could not be rendered: {clean(error)}")


def _died(code: int) -> Sample:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return Sample(problem="it takes far longer than a template should")
    return Sample(problem="it ends the process that renders it")
