"""Variables of the environment that mislead the libraries, as a table."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from quantchat.services.doctor.findings import Finding, Level
from quantchat.services.doctor.machine import Machine

TRUE = ("1", "on", "yes", "true")
FALSE = ("0", "off", "no", "false")
FEWEST_WORKERS = 2

Values = Mapping[str, str]


class Rule(NamedTuple):
    """When a variable misleads, and what it does then; `unset` is the command unless another is given."""

    name: str
    wrong: Callable[[str], bool]
    meaning: str
    level: Level = "yellow"
    fix: str = ""


def _on(value: str) -> bool:
    return value.lower() in TRUE


def _off(value: str) -> bool:
    return value.lower() in FALSE


def _any(value: str) -> bool:
    return True


def _empty(value: str) -> bool:
    return not value


def _no_folder(value: str) -> bool:
    return bool(value) and not os.path.isdir(os.path.expanduser(value))


def _no_link(value: str) -> bool:
    return not value.startswith(("http://", "https://"))


def _unclean(value: str) -> bool:
    # The hub's library takes an empty one for none.
    return value != value.strip(" \t\r\n'\"")


def _few(value: str) -> bool:
    return not value.isdigit() or int(value) < FEWEST_WORKERS


_RENAMED = "export HF_HUB_CACHE={value}\nunset {name}"
_NO_TENSORFLOW = "transformers 5 has only torch; libraries that still read it leave torch out."
RULES = (
    Rule("HF_HUB_OFFLINE", _on, "nothing is fetched from the model hub: `quantchat pull` cannot work."),
    Rule("TRANSFORMERS_OFFLINE", _on, "nothing is fetched from the model hub: `quantchat pull` cannot work."),
    Rule("HF_ENDPOINT", _no_link, "is no http address; nothing can be fetched.", "red"),
    Rule("HF_TOKEN", _unclean, "has spaces or quotes around it; the hub refuses it.", "red"),
    Rule("HF_HOME", _no_folder, "is no folder: the hub cache, with the models in it, is looked for there."),
    Rule("HF_HUB_CACHE", _no_folder, "is no folder: the models of the hub cache are looked for there."),
    Rule("HUGGINGFACE_HUB_CACHE", _any, "is the old name of HF_HUB_CACHE.", fix=_RENAMED),
    Rule("TRANSFORMERS_CACHE", _any, "is no longer read; HF_HUB_CACHE is.", fix=_RENAMED),
    Rule("PYTORCH_TRANSFORMERS_CACHE", _any, "is no longer read; HF_HUB_CACHE is.", fix=_RENAMED),
    Rule("HF_HUB_ENABLE_HF_TRANSFER", _on, "is no longer read: the hub's library downloads with xet."),
    Rule("USE_TF", _on, _NO_TENSORFLOW),
    Rule("USE_TORCH", _off, "keeps transformers from torch.", "red"),
    Rule("TORCH_LOGS", _empty, "is set and empty: importing torch fails.", "red"),
    Rule("TORCH_CUDA_ARCH_LIST", _any, "decides for which cards kernels are compiled; they may lack yours."),
    Rule("TORCH_DEVICE_BACKEND_AUTOLOAD", _any, "changes which devices torch finds."),
    Rule("CUDA_VISIBLE_DEVICES", lambda value: value.strip() in ("", "-1"), "hides all GPUs.", "red"),
    Rule("CUDA_LAUNCH_BLOCKING", _on, "makes every CUDA call wait: for debugging only, and slow."),
    Rule("CUDA_HOME", _no_folder, "is no folder: nvcc is looked for there and nowhere else.", "red"),
    Rule("PYTORCH_NO_CUDA_MEMORY_CACHING", _any, "makes torch ask the driver for every tensor: very slow."),
    Rule("GPTQMODEL_CPU_WORKERS", _few, "must be 2 or more: GPTQModel's loader fails.", "red", "export {name}=2"),
    Rule("GPTQMODEL_KERNEL_REBUILD", _on, "compiles every kernel again at every load."),
    Rule("GPTQMODEL_CUTLASS_DIR", _no_folder, "is no folder: Machete and Swordfish cannot be compiled."),
    Rule("PYTHONPATH", bool, "puts other packages before those of this environment."),
    Rule("PYTHONHOME", bool, "makes Python look for its own library elsewhere."),
    Rule("LD_PRELOAD", bool, "puts libraries into every process, the engine's too."),
)  # fmt: skip
ENDPOINT = "HF_ENDPOINT"
_USER = re.compile(r"(^|//)[^/\s]*@")
HARMLESS_PRELOADS = ("jemalloc", "tcmalloc", "mimalloc")


def look_at_environment(machine: Machine) -> Iterator[Finding]:
    """Apply the rules, and name what is set on purpose."""
    wrong = [rule for rule in RULES if rule.name in machine.env and rule.wrong(machine.env[rule.name])]
    if any(known in machine.env.get("LD_PRELOAD", "") for known in HARMLESS_PRELOADS):
        wrong = [rule for rule in wrong if rule.name != "LD_PRELOAD"]
    found = [*(_finding(rule, machine.env[rule.name]) for rule in wrong), *_home(), *_cuda_libraries(machine.env)]
    yield from found
    if endpoint := _good_endpoint(machine.env):
        yield Finding(id="environment.HF_ENDPOINT", title="Model hub", found=f"{endpoint} instead of the usual one")
    if not found:
        yield Finding(id="environment", title="Environment", found="no variable is set that misleads the libraries")


def _finding(rule: Rule, value: str) -> Finding:
    shown = "" if "TOKEN" in rule.name else f"={_without_password(value) if rule.name == ENDPOINT else value}"
    return Finding(
        id=f"environment.{rule.name}",
        title="Environment",
        level=rule.level,
        found=f"{rule.name}{shown} {rule.meaning}",
        fix=(rule.fix or "unset {name}").replace("{name}", rule.name).replace("{value}", shlex.quote(value)),
    )


def _without_password(address: str) -> str:
    return _USER.sub(r"\1", address)


def _home() -> Iterator[Finding]:
    try:
        Path.home()
    except RuntimeError:
        words = "HOME is not set, and nothing else tells this user's home folder: nothing can be kept or cached."
        fix = "export HOME=/tmp/home-$(id -u) && mkdir -p $HOME"
        yield Finding(id="environment.HOME", title="Environment", level="red", found=words, fix=fix)


def _good_endpoint(env: Values) -> str:
    endpoint = env.get(ENDPOINT, "")
    return "" if _no_link(endpoint) else _without_password(endpoint)


def _cuda_libraries(env: Values) -> Iterator[Finding]:
    """torch brings its own CUDA libraries; those of a toolkit that are found first may be of another version."""
    folders = [folder for folder in env.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    guilty = [folder for folder in folders if _holds_cuda(folder)]
    if guilty:
        words = f"LD_LIBRARY_PATH names {guilty[0]}, whose CUDA libraries are taken before those that torch brings."
        kept = os.pathsep.join(folder for folder in folders if folder not in guilty)
        fix = f"export LD_LIBRARY_PATH={shlex.quote(kept)}" if kept else "unset LD_LIBRARY_PATH"
        yield Finding(id="environment.LD_LIBRARY_PATH", title="Environment", level="yellow", found=words, fix=fix)


def _holds_cuda(folder: str) -> bool:
    try:
        return any(name.startswith(("libcublas.so", "libcudart.so", "libcudnn.so")) for name in os.listdir(folder))
    except OSError:
        return False
