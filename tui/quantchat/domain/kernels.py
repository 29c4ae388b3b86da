"""Which kernel multiplies by packed weights, and why not another. The rows are in `kernel_table`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from quantchat.domain.kernel_table import CPU_EXTENSION, NAMES, TABLE, Capability, DeviceKind, Kernel
from quantchat.domain.loading import KernelRefusal
from quantchat.domain.models import QuantSpec
from quantchat.errors import KernelError

DENSE = "dense"
QUANTIZED_METHODS = ("gptq", "awq")
WORD = 32
"""Bits of the integers that hold packed weights."""
TILE = (64, 128)
PLANAR_BITS = (5, 6, 7)
"""Widths whose bits are stored in planes of whole words."""

BUILD_TOOLS = "Install a C++ compiler (Debian and Ubuntu: apt install g++) and ninja (pip install ninja)."
TRITON_TOOLS = "Install a C compiler (Debian and Ubuntu: apt install gcc)."
CUDA_TOOLS = "Install the CUDA toolkit (12.8 or later, of torch's own version) and put nvcc on PATH, or set CUDA_HOME."
DOWNLOADS = (
    "Let it download them once: start quantchat with GPTQMODEL_OFFLINE=0; "
    "or point GPTQMODEL_CUTLASS_DIR at a checkout of CUTLASS."
)

Matrix = tuple[int, int]
"""Input and output features of a quantized matrix."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernels ask of the machine.

    Attributes:
        device: Kind of the device to load to.
        capability: Compute capability of the GPU, such as (9, 0); of several the lowest.
        avx512_bf16: The CPU has AVX-512 with bf16.
        compiler: A C++ compiler and ninja are there.
        nvcc: The CUDA compiler is there.
        offline: Sources must not be downloaded (`GPTQMODEL_OFFLINE`), and the user gave none.
        built: Extensions that are compiled already.
    """

    device: DeviceKind = "cpu"
    capability: Capability = (0, 0)
    avx512_bf16: bool = False
    compiler: bool = False
    nvcc: bool = False
    offline: bool = True
    built: frozenset[str] = frozenset()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The kernels that can run a model here, best first, and why the others cannot; `order` has the names of all."""

    order: tuple[str, ...] = ()
    candidates: tuple[Kernel, ...] = ()
    refusals: tuple[KernelRefusal, ...] = ()

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
            if name is None or name in (kernel.name, short_name(kernel.name)):
                return kernel
        raise self._refused(name) if name else self._none_left()

    def _refused(self, name: str) -> KernelError:
        said = [refusal for refusal in self.refusals if name in (refusal.kernel, short_name(refusal.kernel))]
        able = ", ".join(kernel.name for kernel in self.candidates) or "none"
        reason = sentence(said[0]) if said else "It is not a kernel of this device and method."
        return KernelError(f"The kernel {name} cannot run this model here", f"{reason} Those that can: {able}.")

    def _none_left(self) -> KernelError:
        remedies = [refusal.remedy for refusal in self.refusals if refusal.remedy]
        return KernelError(
            "No kernel can run this model here",
            " ".join(sentence(refusal) for refusal in self.refusals) or "There is no kernel for this method.",
            " ".join(dict.fromkeys(remedies)) or "Use a GPU, or a 4-bit GPTQ or AWQ (gemm) version of the model.",
        )

    def ahead_of(self, name: str) -> tuple[KernelRefusal, ...]:
        """Return the refusals of kernels that rank before `name`."""
        ahead = self.order[: self.order.index(name)]
        return tuple(refusal for refusal in self.refusals if refusal.kernel in ahead)


def short_name(name: str) -> str:
    """Return a kernel's name without its method, which may be given for models of any method."""
    return name.partition("_")[2]


def wished(name: str | None, method: str) -> str | None:
    """Return a kernel's name if it says something about models of a method; a setting is there for all models."""
    of_another = name in NAMES and not str(name).startswith(f"{method}_")
    return None if of_another else name


def sentence(refusal: KernelRefusal) -> str:
    """Write a refusal as a sentence, without its remedy."""
    return f"{refusal.kernel}: {refusal.reason.rstrip('.')}."


def plan(spec: QuantSpec, host: Host, matrices: Collection[Matrix] = (), failed: Sequence[KernelRefusal] = ()) -> Plan:
    """Go through the table for one model on one machine.

    Args:
        spec: How the weights are packed.
        host: The machine.
        matrices: Sizes of the quantized matrices, as far as they are known.
        failed: Kernels that were tried before, and how they failed.
    """
    rows = [kernel for kernel in TABLE if kernel.device == host.device and kernel.method == spec.method]
    tried = {refusal.kernel: refusal for refusal in failed}
    reasons = {kernel.name: tried.get(kernel.name) or refusal(kernel, spec, host, matrices) for kernel in rows}
    return Plan(
        order=tuple(reasons),
        candidates=tuple(kernel for kernel in rows if reasons[kernel.name] is None),
        refusals=tuple(reason for reason in reasons.values() if reason is not None),
    )


def refusal(kernel: Kernel, spec: QuantSpec, host: Host, matrices: Collection[Matrix] = ()) -> KernelRefusal | None:
    """Say why a kernel of this device and method cannot take a model, or None if it can."""
    return next(_refusals(kernel, spec, host, matrices), None)


def _refusals(kernel: Kernel, spec: QuantSpec, host: Host, matrices: Collection[Matrix]) -> Iterator[KernelRefusal]:
    for reason in (
        *_format_reasons(kernel, spec),
        *_shape_reasons(kernel, spec, matrices),
        *_chip_reasons(kernel, host),
    ):
        yield KernelRefusal(kernel.name, reason)
    for reason, remedy in _tool_reasons(kernel, host):
        yield KernelRefusal(kernel.name, reason, remedy)


def _format_reasons(kernel: Kernel, spec: QuantSpec) -> Iterator[str]:
    if spec.checkpoint_format is not None and spec.checkpoint_format not in kernel.formats:
        yield f"does not read the {spec.checkpoint_format} packing"
    if spec.bits is not None and spec.bits not in kernel.bits:
        yield f"takes {_listed(kernel.bits)} bits, the model has {spec.bits}"
    for bits in sorted(_other_bits(spec).difference(kernel.bits)):
        yield f"takes {_listed(kernel.bits)} bits, some modules of the model have {bits}"
    if spec.group_size is not None and spec.group_size not in kernel.group_sizes:
        yield f"has no groups of {spec.group_size}" if spec.group_size > 0 else "does not take one group per column"
    if spec.method == "gptq" and spec.sym is not None and spec.sym not in kernel.sym:
        yield "takes symmetric quantization only, the model has zero points"
    if spec.desc_act and True not in kernel.desc_act:
        yield "does not take act-order"
    if spec.bits in kernel.plain_bits and (spec.desc_act or spec.sym is False):
        yield f"takes {spec.bits} bits only with symmetric quantization and without act-order"


def _other_bits(spec: QuantSpec) -> frozenset[int]:
    """Return the widths that single modules have by GPTQModel's `dynamic` rules."""
    rules = spec.raw.get("dynamic")
    stated = [rule.get("bits") for rule in rules.values() if isinstance(rule, dict)] if isinstance(rules, dict) else []
    return frozenset(bits for bits in stated if isinstance(bits, int))


def _shape_reasons(kernel: Kernel, spec: QuantSpec, matrices: Collection[Matrix]) -> Iterator[str]:
    for columns, rows in sorted(matrices):
        if columns % kernel.columns or rows % kernel.rows:
            yield (
                f"needs input features in multiples of {kernel.columns} and output features in multiples of "
                f"{kernel.rows}; a matrix has {columns} and {rows}"
            )
        yield from _packing_reasons(kernel, spec, columns, rows)


def _packing_reasons(kernel: Kernel, spec: QuantSpec, columns: int, rows: int) -> Iterator[str]:
    bits, group = spec.bits or 4, spec.group_size or -1
    word = WORD // bits
    if group > 0 and columns % group and not kernel.pads:
        yield f"needs whole groups; a matrix has {columns} input features, groups are of {group}"
    if ("in" in kernel.packs and columns % word) or ("out" in kernel.packs and rows % word):
        yield f"needs features in multiples of {word}; a matrix has {columns} and {rows}"
    if spec.method == "gptq" and bits in PLANAR_BITS and (columns % WORD or rows % WORD):
        yield f"needs features in multiples of {WORD} for {bits} bits; a matrix has {columns} and {rows}"
    in_tiles = (
        bits == 8 if kernel.tiles == "8 bits" else bool(kernel.tiles and spec.desc_act and group not in (-1, columns))
    )
    if in_tiles and not _whole_tiles(columns, rows):
        yield f"takes {kernel.tiles} in whole tiles of 64 by 128 only; a matrix has {columns} and {rows}"


def _whole_tiles(columns: int, rows: int) -> bool:
    small, large = TILE
    return (rows % small == 0 and columns % large == 0) or (rows % large == 0 and columns % small == 0)


def _chip_reasons(kernel: Kernel, host: Host) -> Iterator[str]:
    if host.capability < kernel.capability:
        yield f"needs compute capability {_version(kernel.capability)}, this GPU has {_version(host.capability)}"
    if kernel.only and host.capability not in kernel.only:
        made_for = ", ".join(map(_version, kernel.only))
        yield f"is made for compute capability {made_for} alone, this GPU has {_version(host.capability)}"
    if kernel.extension == CPU_EXTENSION and not host.avx512_bf16:
        yield "needs AVX-512 with bf16, which this CPU lacks"


def _tool_reasons(kernel: Kernel, host: Host) -> Iterator[tuple[str, str]]:
    if kernel.triton and not host.compiler:
        yield "is compiled by Triton, and there is no C compiler", TRITON_TOOLS
    if kernel.extension is None or kernel.extension in host.built:
        return
    if kernel.downloads and host.offline:
        yield "its sources would be downloaded, which GPTQMODEL_OFFLINE forbids", DOWNLOADS
    if not host.compiler:
        yield "is compiled at first use, and there is no C++ compiler with ninja", BUILD_TOOLS
    if host.device == "cuda" and not host.nvcc:
        yield "is compiled at first use, and there is no nvcc", CUDA_TOOLS


def _listed(values: tuple[int, ...]) -> str:
    return " or ".join(str(value) for value in values)


def _version(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"


def slow_warning(kernel: Kernel, refusals: Sequence[KernelRefusal]) -> str:
    """Say that a kernel is slow, why no faster one runs, and what would change that."""
    why = " ".join(sentence(refusal) for refusal in refusals)
    remedies = dict.fromkeys(refusal.remedy for refusal in refusals if refusal.remedy)
    remedy = " ".join(remedies) or "A 4-bit GPTQ or AWQ version of the model with groups of 128 would be fast here."
    return (
        f"The kernel {kernel.name} unpacks the weights for every token and is ten or more times slower than the "
        f"others. {why} {remedy}"
    )


def preferred_dtype(kernel: Kernel | None, host: Host) -> str:
    """Return the dtype to load with.

    On a GPU packed weights get float16: for bfloat16 Marlin is compiled a second time, at the first token. Without
    them it is bfloat16, which GPUs below compute capability 8.0 do not have. On the CPU float16 is ten times slower.
    """
    if host.device == "cuda":
        return "float16" if kernel is not None or host.capability < (8, 0) else "bfloat16"
    return "bfloat16"


def packed_matrices(shapes: Iterable[tuple[int, ...]], spec: QuantSpec) -> frozenset[Matrix]:
    """Return the sizes of quantized matrices from the shapes of their `qweight`; empty for packings that hide them."""
    layout = _LAYOUTS.get(spec.checkpoint_format or "")
    if layout is None or not spec.bits:
        return frozenset()
    return frozenset(layout(shape, spec.bits) for shape in shapes if len(shape) == 2)


def _rows_packed(shape: tuple[int, ...], bits: int) -> Matrix:
    return shape[0] * WORD // bits, shape[1]


def _columns_packed(shape: tuple[int, ...], bits: int) -> Matrix:
    return shape[0], shape[1] * WORD // bits


def _turned(shape: tuple[int, ...], bits: int) -> Matrix:
    return shape[1] * WORD // bits, shape[0]


_LAYOUTS = {"gptq": _rows_packed, "gptq_v2": _rows_packed, "gemm": _columns_packed, "gemv": _turned}
