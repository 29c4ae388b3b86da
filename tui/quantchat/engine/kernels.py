"""What the kernels ask of this machine, with torch's eyes; imports torch late. The policy is in `domain.kernels`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quantchat import toolchain
from quantchat.domain.kernel_table import TABLE, DeviceKind
from quantchat.domain.kernels import Host


def probe(devices: Sequence[str], built: Callable[[str], bool]) -> Host:
    """Look at this machine. `built` tells whether an extension is compiled already."""
    import torch
    from gptqmodel.utils.cpu_features import has_avx512_bf16

    compiler, nvcc = toolchain.compilers()
    cuda = [torch.device(device) for device in devices if device.startswith("cuda")]
    kind: DeviceKind = "cuda" if cuda else "cpu"
    extensions = {kernel.extension for kernel in TABLE if kernel.extension and kernel.device == kind}
    return Host(
        device=kind,
        capability=min((torch.cuda.get_device_capability(device) for device in cuda), default=(0, 0)),
        avx512_bf16=bool(has_avx512_bf16()),
        compiler=compiler,
        nvcc=nvcc,
        offline=toolchain.offline(),
        built=frozenset(name for name in extensions if built(name)),
    )
