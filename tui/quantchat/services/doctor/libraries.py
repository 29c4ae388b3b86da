"""Whether the libraries can be imported, as a process of its own found out."""

from __future__ import annotations

from collections.abc import Iterator

from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.mending import pip_install, reach_gpu
from quantchat.services.doctor.packages import installed
from quantchat.services.doctor.probe import Probe

IMPORTS = {
    "torch": "torch",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "optimum.gptq": "optimum",
    "gptqmodel": "gptqmodel",
}
"""Modules as the engine imports them, and the packages that they belong to."""

GPUS = "cuda"
"""The step of the child that uses the GPUs."""


def look_at_imports(machine: Machine) -> Iterator[Finding]:
    """Say which libraries can be imported, and what the others said."""
    probe = machine.probe()
    for module, package in IMPORTS.items():
        # What is not installed is told by its package, with the command.
        if module in probe.errors and installed(package):
            words = f"It cannot be imported. {probe.errors[module]}"
            yield Finding(
                id=f"import.{package}", title=f"import {module}", level="red", found=words, fix=_again(package)
            )
    if probe.failed:
        yield _broke_off(probe)
    elif not probe.errors:
        known = [f"{name} {version}" for name, version in _imported(probe).items()]
        yield Finding(id="import", title="Imports", found=", ".join(known))
    elif "kernels" in probe.errors and set(probe.errors) == {"kernels"}:
        words = f"GPTQModel does not tell of its kernels. {probe.errors['kernels']}"
        yield Finding(id="import.kernels", title="Kernel library", level="yellow", found=words)


def _broke_off(probe: Probe) -> Finding:
    if probe.failed == GPUS:
        words = f"torch was trying them, and its process broke off: {probe.said}"
        return Finding(id="torch.gpu", title="torch and the GPU", level="red", found=words, fix=reach_gpu())
    package = IMPORTS.get(probe.failed, "")
    return Finding(
        id=f"import.{package or probe.failed}",
        title=f"import {probe.failed}" if package else "Imports",
        level="red",
        found=f"The process that tried it broke off: {probe.said}",
        fix=_again(package) if package else "",
    )


def _imported(probe: Probe) -> dict[str, str]:
    names = {IMPORTS.get(name, name): version for name, version in probe.versions.items()}
    versions = {name: version or installed(name) or "" for name, version in names.items()}
    return {"torch": probe.torch.version, **versions} if probe.torch else versions


def _again(package: str) -> str:
    version = installed(package)
    wanted = f"{package}=={version.partition('+')[0]}" if version else package
    return pip_install([wanted], "--force-reinstall", "--no-deps")
