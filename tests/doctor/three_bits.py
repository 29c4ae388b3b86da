"""Makes the tiny GPTQ model with 3 bits, which only the slow kernel takes. Run as a program, as quantizing prints."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from engine import tiny

BITS = 3


def folder() -> Path:
    """Return the cached model; make it if it is not there."""
    source = tiny.folder()
    target = source.with_name(f"{source.name}-{BITS}bits")
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            partial = target.with_name(f"{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            command = [sys.executable, __file__, str(source / "dense"), str(partial)]
            env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "GPTQMODEL_CPU_WORKERS": "2"}
            made = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            assert made.returncode == 0, made.stderr[-4000:]
            partial.rename(target)
    return target


def quantize(source: str, target: str) -> None:
    from gptqmodel import GPTQModel
    from gptqmodel.quantization.config import GPTQConfig

    model = GPTQModel.load(source, GPTQConfig(bits=BITS, group_size=32, offload_to_disk=False), device="cpu")
    model.quantize(tiny.TEXTS * 4, batch_size=4)
    model.save(target)


if __name__ == "__main__":
    quantize(*sys.argv[1:])
