"""What each kernel makes of packed weights, by the sources of GPTQModel 7.7 (`nn_modules/qlinear/`)."""

from __future__ import annotations

import msgspec

from quantchat.domain.kernel_table import Kernel
from quantchat.domain.models import Pieces

FLOAT = 2
"""Bytes of a number in the dtype of the activations: bfloat16 or float16."""
EXLLAMA_ROWS = 2048 * 8
"""Longest input times largest batch, for which ExLlama v2 keeps a scratch space."""


class Repacking(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a packed matrix when a kernel has taken it in.

    Attributes:
        weight_bytes: Per weight; None where the packed integers keep their size.
        scale_bytes: Per scale.
        keeps_zeros: The packed zero points stay.
        zero_bytes: Per scale, for zero points in another form.
        orders: Copies of the group index, of the size on disk; with act-order the second number.
        transient_bytes: Per weight of the largest matrix, while it is repacked or unpacked.
        exllama: Keeps ExLlama v2's scratch space beside the weights.
    """

    weight_bytes: float | None = None
    scale_bytes: int = FLOAT
    keeps_zeros: bool = False
    zero_bytes: int = 0
    orders: tuple[int, int] = (1, 1)
    transient_bytes: int = 0
    exllama: bool = False

    def resident(self, pieces: Pieces, *, act_order: bool) -> int:
        """Bytes of a part of a network when the kernel has it."""
        weights = pieces.packed if self.weight_bytes is None else int(self.weight_bytes * pieces.packed_weights)
        zeros = pieces.zeros * self.keeps_zeros + pieces.scales * self.zero_bytes
        return (
            pieces.floats * FLOAT
            + pieces.other
            + weights
            + pieces.scales * self.scale_bytes
            + zeros
            + pieces.order * self.orders[act_order]
        )

    def workspace(self, largest: int, widest: int) -> int:
        """Bytes that the kernel keeps beside the weights: `scratch_space_fixed` in `exllamav2.py`."""
        return largest * FLOAT + widest * EXLLAMA_ROWS * 4 if self.exllama else 0


AS_STORED = Repacking(keeps_zeros=True)
_AVX512 = Repacking(scale_bytes=4, zero_bytes=1, orders=(2, 2), transient_bytes=1)
_ATEN = Repacking(zero_bytes=6, orders=(2, 2), transient_bytes=10)
_TORCH = Repacking(keeps_zeros=True, zero_bytes=1, orders=(3, 3), transient_bytes=8)
_EXLLAMA = Repacking(keeps_zeros=True, exllama=True)
_REPACKINGS = {
    # `transform_cpu`: scales in float32, one byte per zero point, an index beside the group index.
    "gptq_torch_cpu_avx512": _AVX512,
    "awq_torch_cpu_avx512": _AVX512,
    # `transform_cpu`: scales, offsets in place of zero points, and both once more in one tensor; unpacked to int32.
    "gptq_torch_aten": _ATEN,
    "awq_torch_aten": _ATEN,
    # `post_init`: one int8 matrix and a scale per column, made by way of float32; the rest is dropped.
    "gptq_torch_int8": Repacking(weight_bytes=1, scale_bytes=0, orders=(0, 0), transient_bytes=16),
    # `_stream_decode_qzeros` and `_stream_g_idx_long` keep what they unpacked.
    "gptq_torch": _TORCH,
    "awq_torch": Repacking(keeps_zeros=True, transient_bytes=8),
    # `post_init`: symmetric, so no zero points; the group index only with act-order, and then its order too.
    "gptq_marlin": Repacking(orders=(0, 2), transient_bytes=1),
    "awq_marlin": Repacking(keeps_zeros=True, transient_bytes=1),
    "gptq_machete": Repacking(zero_bytes=FLOAT, orders=(1, 2), transient_bytes=8),
    "awq_machete": Repacking(zero_bytes=FLOAT, transient_bytes=8),
    "gptq_swordfish": Repacking(zero_bytes=FLOAT, orders=(1, 2), transient_bytes=8),
    "awq_swordfish": Repacking(zero_bytes=FLOAT, transient_bytes=8),
    "gptq_exllama_v2": _EXLLAMA,
    "awq_exllama_v2": _EXLLAMA,
}
"""The others multiply by what is on disk as it is."""


def repacking(kernel: Kernel | None) -> Repacking:
    """Return what a kernel does; None for weights that are not packed."""
    return AS_STORED if kernel is None else _REPACKINGS.get(kernel.name, AS_STORED)
