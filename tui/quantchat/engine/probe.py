"""A look at the libraries for `quantchat doctor`, in a process of its own: an import may fail, hang or crash.

Prints one line of JSON when a step begins and when it is done, so that a crash tells in which step it was.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from quantchat.engine import quiet
from quantchat.toolchain import built_extensions

IMPORTS = ("transformers", "accelerate", "optimum.gptq", "gptqmodel")
GPUS = "cuda"
SAID = 400

Say = Callable[..., None]


def main() -> None:
    """Go through the steps; no failed one keeps the next from being tried, unless that needs torch."""
    # What libraries and compilers print goes to stderr: only lines of JSON reach the doctor.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    quiet.set_environment()
    warnings.simplefilter("ignore")

    def say(**what: Any) -> None:
        print(json.dumps(what), file=channel, flush=True)

    if step("torch", look_at_torch, say):
        step(GPUS, look_at_gpus, say)
        for name in IMPORTS:
            step(name, partial(look_at_library, name), say)
        step("kernels", look_at_kernels, say)
    say(end=True)
    # Not through the destructors of torch, which may abort.
    channel.flush()
    os._exit(0)


def step(name: str, look: Callable[[Say], None], say: Say) -> bool:
    """Run a step; its exception is said, and then it is false."""
    say(step=name)
    try:
        look(say)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an import raises is what was asked for
        say(error={name: words(error)})
        return False
    return True


def words(error: BaseException) -> str:
    """Name an exception, with the beginning of its message in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:SAID]}"


def look_at_torch(say: Say) -> None:
    """Import torch, and ask what it was built for."""
    import torch

    built, facts = torch.version, {"version": torch.__version__, "archs": archs(torch)}
    say(torch=facts | {"cuda": built.cuda, "hip": built.hip})


def look_at_gpus(say: Say) -> None:
    """Let each GPU add two numbers: apart from the import, as a driver that hangs or crashes is another fault."""
    import torch

    if not (torch.version.cuda or torch.version.hip):
        return
    try:
        torch.cuda.init()
        facts = {"available": True, "devices": [trial(torch, i) for i in range(torch.cuda.device_count())]}
    except Exception as error:  # noqa: BLE001 - the driver's words are what was asked for
        facts = {"said": words(error)}
    say(gpus=facts)


def archs(torch: Any) -> list[str]:
    """Return what torch holds code for; without a GPU only a private function tells."""
    try:
        return (torch._C._cuda_getArchFlags() or "").split()
    except AttributeError:
        return []


def trial(torch: Any, index: int) -> tuple[str, tuple[int, int], str]:
    """Name a GPU and say what went wrong when it computed, if anything did."""
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    try:
        twice = (torch.ones(8, device=f"cuda:{index}") + 1).sum().item()
    except Exception as error:  # noqa: BLE001 - see above
        return name, capability, words(error)
    return name, capability, "" if twice == 16 else f"it added wrongly: {twice}"


def look_at_library(name: str, say: Say) -> None:
    """Import a library as the engine does."""
    if name == "gptqmodel":
        quiet.silence()
    module = importlib.import_module(name)
    whole = sys.modules[name.partition(".")[0]]
    say(version={name: str(getattr(module, "__version__", None) or getattr(whole, "__version__", ""))})


def look_at_kernels(say: Say) -> None:
    """Ask what the kernels need of this machine, and where their builds lie."""
    import msgspec
    import torch

    from quantchat.engine.building import is_built
    from quantchat.engine.kernels import probe

    # Where nothing was ever compiled nothing needs to be asked: GPTQModel would hash its sources, and lock their cache.
    names = built_extensions()
    wanted = sys.argv[1:] or [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    say(host=msgspec.to_builtins(probe(wanted, lambda name: name in names and is_built(name))))
    say(builds={name: folder for name in sorted(names) if (folder := build_folder(name))})


def build_folder(name: str) -> str | None:
    """Return where the build of an extension lies that these versions would use; None of what GPTQModel does not know.

    Machete does not say where without its sources, which are downloaded.
    """
    from gptqmodel import extension

    try:
        return str(extension._extension_for_name(name).build_root())
    except Exception:  # noqa: BLE001 - a private corner of GPTQModel, so any surprise means that
        return None


if __name__ == "__main__":
    main()
