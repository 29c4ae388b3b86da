"""The kernels as a table, best first for each device and method. Imports no torch.

The limits (bits, group sizes, symmetry, packings, dtypes, compute capability, divisors) are those of the kernel classes
of GPTQModel 7.7, and a test compares them with these classes; the order is by measured speed, so on the CPU the int8
kernel, which GPTQModel never picks by itself, comes first for 8 bits.
"""

from __future__ import annotations

from typing import Literal

import msgspec

DeviceKind = Literal["cpu", "cuda"]
Capability = tuple[int, int]

CPU_EXTENSION = "int4_qzero_group_scaled_cpu"
POWERS = (16, 32, 64, 128, 256, 512)
MARLIN_GROUPS = (-1, 32, 64, 128)
SMALL_GROUPS = (-1, 16, 32, 64, 128)
TORCH_GROUPS = (-1, *POWERS, 1024)
GPTQ = ("gptq", "gptq_v2")
GEMM = ("gemm",)
FAST_BITS = (4, 8)
ANY_BITS = (2, 3, 4, 5, 6, 7, 8)
HALF = ("float16", "bfloat16")
VOLTA, TURING, AMPERE = (7, 0), (7, 5), (8, 0)
HOPPER = ((9, 0),)
BLACKWELL = ((10, 0), (10, 3), (11, 0))


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the policy.

    Attributes:
        name: GPTQModel's backend name.
        transformers_name: What transformers' config calls it; None: only `GPTQModel.load` reaches it.
        plain_bits: Bits that it takes only with symmetry and without act-order.
        capability: Lowest compute capability.
        only: The compute capabilities it is made for; empty for all above `capability`.
        dtypes: Of activations, the one to load with first.
        columns: Every quantized matrix must have a multiple of so many input features.
        rows: The same of output features.
        pads: Takes input features that the group size does not divide.
        packs: Input or output features, or both, must fill whole 32-bit words.
        tiles: When matrices must consist of whole 64 by 128 tiles.
        extension: GPTQModel's name for what is compiled at first use; None if nothing is.
        downloads: Sources are downloaded to compile it.
        triton: Triton compiles it, with a C compiler and without nvcc.
        slow: Works, at a tenth of the speed or less.
    """

    name: str
    device: DeviceKind
    method: str
    bits: tuple[int, ...]
    group_sizes: tuple[int, ...]
    formats: tuple[str, ...] = GPTQ
    sym: tuple[bool, ...] = (True, False)
    desc_act: tuple[bool, ...] = (True, False)
    plain_bits: tuple[int, ...] = ()
    transformers_name: str | None = None
    capability: Capability = (0, 0)
    only: tuple[Capability, ...] = ()
    dtypes: tuple[str, ...] = HALF
    columns: int = 1
    rows: int = 1
    pads: bool = False
    packs: tuple[Literal["in", "out"], ...] = ()
    tiles: Literal["", "act-order", "8 bits"] = ""
    extension: str | None = None
    downloads: bool = False
    triton: bool = False
    slow: bool = False


TABLE: tuple[Kernel, ...] = (
    Kernel(name="gptq_torch_cpu_avx512", device="cpu", method="gptq", bits=(4,), group_sizes=POWERS,
           transformers_name="gptq_torch_cpu_avx512", dtypes=("bfloat16",), columns=2, rows=32,
           extension=CPU_EXTENSION),
    Kernel(name="gptq_torch_aten", device="cpu", method="gptq", bits=(4,), group_sizes=(32, 64, 128, 256),
           transformers_name="gptq_torch_aten", pads=True),
    Kernel(name="gptq_torch_int8", device="cpu", method="gptq", bits=(8,), group_sizes=SMALL_GROUPS,
           transformers_name="gptq_torch_int8", dtypes=(*HALF, "float32"), pads=True),
    Kernel(name="gptq_torch", device="cpu", method="gptq", formats=(*GPTQ, "gptq_p"), bits=ANY_BITS,
           group_sizes=TORCH_GROUPS, transformers_name="gptq_torch", pads=True, slow=True),
    Kernel(name="awq_torch_cpu_avx512", device="cpu", method="awq", formats=GEMM, bits=(4,), group_sizes=POWERS,
           transformers_name="auto", dtypes=("bfloat16",), columns=2, rows=32, extension=CPU_EXTENSION),
    Kernel(name="awq_torch_aten", device="cpu", method="awq", formats=GEMM, bits=(4,), group_sizes=(32, 64, 128, 256),
           pads=True),
    Kernel(name="awq_torch", device="cpu", method="awq", formats=GEMM, bits=ANY_BITS, group_sizes=SMALL_GROUPS,
           transformers_name="torch_awq", rows=8, slow=True),
    Kernel(name="gptq_swordfish", device="cuda", method="gptq", formats=("gptq",), bits=FAST_BITS, plain_bits=(8,),
           group_sizes=MARLIN_GROUPS, transformers_name="gptq_swordfish", only=BLACKWELL, columns=64, rows=64,
           extension="swordfish", downloads=True),
    Kernel(name="gptq_machete", device="cuda", method="gptq", formats=("gptq",), bits=FAST_BITS,
           group_sizes=(-1, 64, 128), transformers_name="gptq_machete", only=HOPPER, columns=64, rows=128,
           extension="machete", downloads=True),
    Kernel(name="gptq_marlin", device="cuda", method="gptq", formats=(*GPTQ, "marlin"), bits=FAST_BITS,
           group_sizes=MARLIN_GROUPS, sym=(True,), transformers_name="gptq_marlin", capability=TURING,
           packs=("in", "out"), tiles="act-order", extension="marlin_fp16"),
    Kernel(name="gptq_exllama_v2", device="cuda", method="gptq", bits=(4,), group_sizes=MARLIN_GROUPS,
           transformers_name="gptq_exllama_v2", columns=32, rows=32, extension="exllamav2"),
    Kernel(name="gptq_triton", device="cuda", method="gptq", bits=(2, 4, 8), group_sizes=TORCH_GROUPS,
           transformers_name="gptq_triton", capability=VOLTA, columns=32, rows=32, pads=True, triton=True),
    Kernel(name="gptq_torch", device="cuda", method="gptq", formats=(*GPTQ, "gptq_p"), bits=ANY_BITS,
           group_sizes=TORCH_GROUPS, transformers_name="gptq_torch", pads=True, slow=True),
    Kernel(name="awq_swordfish", device="cuda", method="awq", formats=GEMM, bits=(4,), group_sizes=MARLIN_GROUPS,
           desc_act=(False,), only=BLACKWELL, columns=64, rows=64, extension="swordfish", downloads=True),
    Kernel(name="awq_machete", device="cuda", method="awq", formats=("gemm", "marlin"), bits=FAST_BITS,
           group_sizes=MARLIN_GROUPS, desc_act=(False,), transformers_name="machete", only=HOPPER, columns=64,
           rows=128, extension="machete", downloads=True),
    Kernel(name="awq_marlin", device="cuda", method="awq", formats=("gemm", "marlin"), bits=FAST_BITS,
           group_sizes=MARLIN_GROUPS, transformers_name="marlin", capability=AMPERE, packs=("out",),
           tiles="8 bits", extension="marlin_fp16"),
    Kernel(name="awq_exllama_v2", device="cuda", method="awq", formats=GEMM, bits=(4,), group_sizes=MARLIN_GROUPS,
           transformers_name="exllama_v2", columns=32, rows=32, extension="exllamav2_awq"),
    Kernel(name="awq_gemm", device="cuda", method="awq", formats=GEMM, bits=(4,), group_sizes=SMALL_GROUPS,
           transformers_name="gemm", extension="awq"),
    Kernel(name="awq_gemm_triton", device="cuda", method="awq", formats=GEMM, bits=(4,), group_sizes=MARLIN_GROUPS,
           transformers_name="gemm_triton", capability=VOLTA, dtypes=("float16",), columns=32, rows=8, triton=True),
    Kernel(name="awq_torch", device="cuda", method="awq", formats=GEMM, bits=ANY_BITS, group_sizes=SMALL_GROUPS,
           transformers_name="torch_awq", rows=8, slow=True),
    Kernel(name="awq_gemv", device="cuda", method="awq", formats=("gemv",), bits=(4,), group_sizes=(64, 128),
           transformers_name="gemv", dtypes=("float16",), rows=64, extension="awq"),
    Kernel(name="awq_gemv_fast", device="cuda", method="awq", formats=("gemv_fast", "llm-awq"), bits=(4,),
           group_sizes=SMALL_GROUPS, transformers_name="gemv_fast", dtypes=("float16",), extension="awq"),
)  # fmt: skip

NAMES = tuple(dict.fromkeys(kernel.name for kernel in TABLE))

LEFT_OUT = {
    "gptq_torch_fused": "drops zero points on the CPU, without a word; takes no group that gptq_torch_aten does not",
    "awq_torch_fused": "takes no group on the CPU that awq_torch_aten does not",
    "gptq_bitblas": "needs the package bitblas",
    "awq_bitblas": "needs the package bitblas",
    "gptq_w4afp8": "rounds activations to 8 bits: answers differ from the checkpoint's",
    "gptq_w4a_nvfp4": "rounds activations to 4 bits: answers differ from the checkpoint's",
    "awq_torch_int8": "doubles the weights' bytes; never faster than the 4-bit kernels of the CPU",
}
"""Kernel classes of GPTQModel for these methods that are no row, and why."""
