"""llama.cpp beside the others: the environment that holds it, and the program that runs in it.

`llama-cpp-python` is no dependency of quantchat, nor of its tests: it lives in an environment of its own, which is made
at the first run. Building it takes several minutes and needs cmake and a C++ compiler.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import venv
from pathlib import Path

from bench._peer import Peer, started

REQUIREMENT = "llama-cpp-python==0.3.36"
ENVIRONMENT = Path.home() / ".cache" / "quantchat-tests" / "llama-venv"
CONTEXT = 4096

LLAMA = """
import json, os, sys, time
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
from llama_cpp import Llama
cores = len(os.sched_getaffinity(0))

def load(threads):
    return Llama(sys.argv[1], n_ctx=int(sys.argv[2]), n_threads=threads, n_threads_batch=cores, verbose=False)

def answer(model, ids, limit):
    model.reset()
    begun = time.perf_counter()
    made, first = [], 0.0
    for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
        first = first or time.perf_counter() - begun
        made.append(token)
        if token == model.token_eos() or len(made) == limit:
            break
    return made, first, time.perf_counter() - begun

def pace(model):
    made, first, seconds = answer(model, [1, 2, 3, 4], 16)
    return (seconds - first) / len(made)

models = [load(threads) for threads in sorted({1, cores})]
model = min(models, key=lambda model: pace(model) + pace(model))
for line in sys.stdin:
    wanted = json.loads(line)
    ids = model.tokenize(wanted["prompt"].encode(), add_bos=False, special=True)
    made, first, seconds = answer(model, ids, wanted["limit"])
    text = model.detokenize(made).decode(errors="replace")
    print(json.dumps([text, len(made), first, seconds]), file=answers)
"""


def environment(wanted: Path | None) -> Path | None:
    """Return the interpreter of an environment with llama-cpp-python, made if need be; None if it cannot be made."""
    folder = wanted or ENVIRONMENT
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"Making {folder}")
        venv.create(folder, with_pip=True)
    if importable(python):
        return python
    say(f"Installing {REQUIREMENT} there, once; it is built from source, which takes several minutes")
    install = [str(python), "-m", "pip", "install", "--quiet", REQUIREMENT]
    done = subprocess.run(install, env=os.environ | {"CMAKE_BUILD_PARALLEL_LEVEL": "1"}, stdout=sys.stderr)
    if done.returncode == 0 and importable(python):
        return python
    say("It could not be installed: the figures of llama.cpp are left out")
    return None


def importable(python: Path) -> bool:
    return subprocess.run([str(python), "-c", "import llama_cpp"], capture_output=True).returncode == 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def llama(python: Path, gguf: Path) -> contextlib.AbstractAsyncContextManager[Peer]:
    """llama.cpp with a GGUF file; asked with the rendered prompt, it begins each answer with an empty cache."""
    return started(str(python), "-c", LLAMA, str(gguf), str(CONTEXT))
