"""Which kernel multiplies by packed weights: the policy as a table, best first. Imports no torch.

The limits (bits, group sizes, symmetry, formats, devices) are those of the kernel classes of GPTQModel 7.7; the order
is by measured speed, so on the CPU the int8 kernel, which GPTQModel never picks by itself, comes first for 8 bits.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from quantchat.domain.models import QuantSpec
from quantchat.engine.protocol import KernelRefusal
from quantchat.errors import KernelError

DENSE = "dense"
QUANTIZED_METHODS = ("gptq", "awq")
POWERS = (16, 32, 64, 128, 256, 512)
MARLIN_GROUPS = (-1, 32, 64, 128)
CPU_EXTENSION = "int4_qzero_group_scaled_cpu"


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernels ask of the machine.

    Attributes:
        device: Kind of the device to load to.
        capability: Compute capability of the GPU, such as (9, 0).
        avx512_bf16: The CPU has AVX-512 with bf16.
        compiler: A C++ compiler and ninja are there.
        nvcc: The CUDA compiler is there.
        offline: Sources must not be downloaded (`GPTQMODEL_OFFLINE`).
        built: Extensions that are compiled already.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    capability: tuple[int, int] = (0, 0)
    avx512_bf16: bool = False
    compiler: bool = False
    nvcc: bool = False
    offline: bool = True
    built: frozenset[str] = frozenset()


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the policy.

    Attributes:
        name: GPTQModel's backend name.
        transformers_name: What transformers' config calls it; None: only `GPTQModel.load` reaches it.
        capability: Lowest compute capability.
        only_capability: The kernel exists for this major version alone.
        extension: GPTQModel's name for what is compiled at first use; None if nothing is.
        slow: Works, at a tenth of the speed or less.
    """

    name: str
    device: Literal["cpu", "cuda"]
    method: str
    bits: tuple[int, ...]
    group_sizes: tuple[int, ...]
    formats: tuple[str, ...] = ("gptq", "gptq_v2")
    sym: tuple[bool, ...] = (True, False)
    desc_act: tuple[bool, ...] = (True, False)
    transformers_name: str | None = None
    capability: tuple[int, int] = (0, 0)
    only_capability: int | None = None
    extension: str | None = None
    downloads: bool = False
    triton: bool = False
    slow: bool = False


GEMM = ("gemm",)
FAST_BITS = (4, 8)
ANY_BITS = (2, 3, 4, 5, 6, 7, 8)
TORCH_GROUPS = (-1, *POWERS, 1024)
TURING = (7, 5)

TABLE: tuple[Kernel, ...] = (
    Kernel(name="gptq_torch_cpu_avx512", device="cpu", method="gptq", bits=(4,), group_sizes=POWERS,
           transformers_name="gptq_torch_cpu_avx512", extension=CPU_EXTENSION),
    Kernel(name="gptq_torch_aten", device="cpu", method="gptq", bits=(4,), group_sizes=(32, 64, 128, 256),
           transformers_name="gptq_torch_aten"),
    Kernel(name="gptq_torch_int8", device="cpu", method="gptq", bits=(8,), group_sizes=(-1, 16, 32, 64, 128),
           transformers_name="gptq_torch_int8"),
    Kernel(name="gptq_torch", device="cpu", method="gptq", bits=ANY_BITS, group_sizes=TORCH_GROUPS,
           transformers_name="gptq_torch", slow=True),
    Kernel(name="awq_torch_cpu_avx512", device="cpu", method="awq", formats=GEMM, bits=(4,), group_sizes=POWERS,
           transformers_name="auto", extension=CPU_EXTENSION),
    Kernel(name="awq_torch_aten", device="cpu", method="awq", formats=GEMM, bits=(4,), group_sizes=(32, 64, 128, 256)),
    Kernel(name="awq_torch", device="cpu", method="awq", formats=GEMM, bits=ANY_BITS, group_sizes=TORCH_GROUPS[:-3],
           transformers_name="torch_awq", slow=True),
    Kernel(name="gptq_machete", device="cuda", method="gptq", formats=("gptq",), bits=FAST_BITS,
           group_sizes=(-1, 64, 128), transformers_name="gptq_machete", only_capability=9, extension="machete",
           downloads=True),
    Kernel(name="gptq_marlin", device="cuda", method="gptq", formats=("gptq", "gptq_v2", "marlin"), bits=FAST_BITS,
           group_sizes=MARLIN_GROUPS, sym=(True,), transformers_name="gptq_marlin", capability=TURING,
           extension="marlin_fp16"),
    Kernel(name="gptq_exllama_v2", device="cuda", method="gptq", bits=(4,), group_sizes=MARLIN_GROUPS,
           transformers_name="gptq_exllama_v2", extension="exllamav2"),
    Kernel(name="gptq_triton", device="cuda", method="gptq", bits=(2, 4, 8), group_sizes=TORCH_GROUPS,
           transformers_name="gptq_triton", capability=(7, 0), triton=True),
    Kernel(name="gptq_torch", device="cuda", method="gptq", bits=ANY_BITS, group_sizes=TORCH_GROUPS,
           transformers_name="gptq_torch", slow=True),
    Kernel(name="awq_machete", device="cuda", method="awq", formats=GEMM, bits=FAST_BITS, group_sizes=MARLIN_GROUPS,
           desc_act=(False,), transformers_name="machete", only_capability=9, extension="machete", downloads=True),
    Kernel(name="awq_marlin", device="cuda", method="awq", formats=("gemm", "marlin"), bits=FAST_BITS,
           group_sizes=MARLIN_GROUPS, transformers_name="marlin", capability=TURING, extension="marlin_fp16"),
    Kernel(name="awq_exllama_v2", device="cuda", method="awq", formats=GEMM, bits=(4,), group_sizes=MARLIN_GROUPS,
           transformers_name="exllama_v2", extension="exllamav2_awq"),
    Kernel(name="awq_gemm", device="cuda", method="awq", formats=GEMM, bits=(4,), group_sizes=(-1, 16, 32, 64, 128),
           transformers_name="gemm", extension="awq"),
    Kernel(name="awq_gemm_triton", device="cuda", method="awq", formats=GEMM, bits=(4,), group_sizes=MARLIN_GROUPS,
           transformers_name="gemm_triton", capability=(7, 0), triton=True),
    Kernel(name="awq_torch", device="cuda", method="awq", formats=GEMM, bits=ANY_BITS, group_sizes=TORCH_GROUPS[:-3],
           transformers_name="torch_awq", slow=True),
    Kernel(name="awq_gemv", device="cuda", method="awq", formats=("gemv",), bits=(4,), group_sizes=(-1, 64, 128),
           transformers_name="gemv", extension="awq"),
    Kernel(name="awq_gemv_fast", device="cuda", method="awq", formats=("gemv_fast", "llm-awq"), bits=(4,),
           group_sizes=(-1, 16, 32, 64, 128), transformers_name="gemv_fast", extension="awq"),
)  # fmt: skip


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The kernels that can run a model here, best first, and why the others cannot."""

    candidates: tuple[Kernel, ...]
    refusals: tuple[KernelRefusal, ...]

    def after(self, name: str) -> str | None:
        """Return the candidate that follows `name`; the first one if `name` is no candidate."""
        names = [kernel.name for kernel in self.candidates]
        following = names[names.index(name) + 1 :] if name in names else names
        return following[0] if following else None

    def choose(self, name: str | None) -> Kernel:
        """Return the named candidate, or the first.

        Raises:
            KernelError: if there is none, or the named one cannot run this model here.
        """
        for kernel in self.candidates:
            if name in (None, kernel.name):
                return kernel
        raise KernelError(
            f"The kernel {name} cannot run this model here" if name else "No kernel can run this model here",
            "; ".join(
                f"{refusal.kernel}: {refusal.reason}" for refusal in self.refusals if name in (None, refusal.kernel)
            )
            or "it is not in the table of this device and method",
            "Leave the choice to quantchat"
            if name
            else "Use a GPU, or a 4-bit GPTQ or AWQ (gemm) version of the model",
        )

    def ahead_of(self, name: str) -> tuple[KernelRefusal, ...]:
        """Return the refusals of kernels that rank before `name`."""
        order = list(dict.fromkeys(kernel.name for kernel in TABLE))
        return tuple(refusal for refusal in self.refusals if order.index(refusal.kernel) < order.index(name))


def plan(spec: QuantSpec, host: Host) -> Plan:
    """Go through the table for one model on one machine."""
    rows = [kernel for kernel in TABLE if kernel.device == host.device and kernel.method == spec.method]
    reasons = {kernel.name: refusal(kernel, spec, host) for kernel in rows}
    return Plan(
        candidates=tuple(kernel for kernel in rows if reasons[kernel.name] is None),
        refusals=tuple(KernelRefusal(name, reason) for name, reason in reasons.items() if reason is not None),
    )


def refusal(kernel: Kernel, spec: QuantSpec, host: Host) -> str | None:
    """Say why a kernel of this device and method cannot take a model, or None if it can."""
    return next(_refusals(kernel, spec, host), None)


def _refusals(kernel: Kernel, spec: QuantSpec, host: Host) -> Iterator[str]:
    yield from _format_refusals(kernel, spec)
    if host.capability < kernel.capability:
        yield f"needs compute capability {kernel.capability[0]}.{kernel.capability[1]}"
    if kernel.only_capability is not None and host.capability[0] != kernel.only_capability:
        yield "made for Hopper GPUs alone"
    if kernel.extension == CPU_EXTENSION and not host.avx512_bf16:
        yield "this CPU has no AVX-512 with bf16"
    if kernel.triton and not host.compiler:
        yield "Triton needs a C compiler"
    if kernel.extension is not None and kernel.extension not in host.built:
        yield from _build_refusals(kernel, host)


def _format_refusals(kernel: Kernel, spec: QuantSpec) -> Iterator[str]:
    if spec.bits is not None and spec.bits not in kernel.bits:
        yield f"takes {_listed(kernel.bits)} bits, the model has {spec.bits}"
    if spec.group_size is not None and spec.group_size not in kernel.group_sizes:
        yield f"has no groups of {spec.group_size}"
    if spec.sym is not None and spec.sym not in kernel.sym and spec.method == "gptq":
        yield "takes symmetric quantization only"
    if spec.desc_act and True not in kernel.desc_act:
        yield "does not take act-order"
    if spec.checkpoint_format is not None and spec.checkpoint_format not in kernel.formats:
        yield f"does not read the {spec.checkpoint_format} packing"


def _build_refusals(kernel: Kernel, host: Host) -> Iterator[str]:
    if kernel.downloads and host.offline:
        yield "its sources would be downloaded, and GPTQMODEL_OFFLINE is set"
    if not host.compiler:
        yield "is compiled at first use, and there is no C++ compiler (install g++ and ninja)"
    if host.device == "cuda" and not host.nvcc:
        yield "is compiled at first use, and there is no nvcc (install the CUDA toolkit)"


def _listed(values: tuple[int, ...]) -> str:
    return " or ".join(str(value) for value in values)


def compilers() -> tuple[bool, bool]:
    """Say whether a C++ compiler with ninja, and nvcc, are there."""
    compiler = any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "c++", "clang++"))
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    nvcc = bool(shutil.which("nvcc")) or (Path(home) / "bin" / "nvcc").is_file()
    return compiler and shutil.which("ninja") is not None, nvcc


def probe(device: str, built: Callable[[str], bool]) -> Host:
    """Look at this machine. `built` tells whether an extension is compiled already; imports torch late."""
    import torch
    from gptqmodel.utils.cpu_features import has_avx512_bf16

    compiler, nvcc = compilers()
    cuda = device.startswith("cuda")
    extensions = {
        kernel.extension for kernel in TABLE if kernel.extension and kernel.device == ("cuda" if cuda else "cpu")
    }
    return Host(
        device="cuda" if cuda else "cpu",
        capability=torch.cuda.get_device_capability(torch.device(device)) if cuda else (0, 0),
        avx512_bf16=bool(has_avx512_bf16()),
        compiler=compiler,
        nvcc=nvcc,
        offline=os.environ.get("GPTQMODEL_OFFLINE", "0").lower() not in ("", "0", "false", "no", "off"),
        built=frozenset(name for name in extensions if built(name)),
    )
