"""What is known of this machine and of earlier loads on it, which forecasts are made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quantchat import __version__
from quantchat.catalog.fit import Prediction, Setting, predict
from quantchat.domain import kernels
from quantchat.domain.kernel_table import TABLE, DeviceKind, Kernel
from quantchat.domain.models import ModelInfo
from quantchat.engine.protocol import LIBRARIES
from quantchat.errors import KernelError
from quantchat.hardware.gpu import GpuDevice
from quantchat.hardware.processor import has_avx512_bf16
from quantchat.store.measured import Load, Measured, load_measured, save_measured
from quantchat.toolchain import built_extensions, compilers, llama_offloads, offline, versions_of

if TYPE_CHECKING:
    from quantchat.domain.loading import KernelRefusal
    from quantchat.engine.protocol import LoadReport

SEVERAL = "several"
LLAMA_CPP = "llama.cpp"
LLAMA_LIBRARIES = ("llama-cpp-python",)
NO_CAPABILITY = (99, 0)
"""Of a GPU whose driver does not tell its compute capability: no kernel is ruled out for it."""


class Experience:
    """What is known of this machine that does not change while the program runs, and what earlier loads came to."""

    def __init__(self, measured: Measured | None = None) -> None:
        self.measured = load_measured() if measured is None else measured
        # Of quantchat and its libraries: what others needed corrects nothing.
        self._versions = {False: label(versions_of(LIBRARIES)), True: label(versions_of(LLAMA_LIBRARIES))}
        self.llama_offloads = llama_offloads()
        self._compiler, self._nvcc = compilers()
        self._avx512_bf16, self._built, self._offline = has_avx512_bf16(), built_extensions(), offline()
        self._judged: dict[tuple[object, ...], Prediction | None] = {}

    @property
    def versions(self) -> str:
        """Of quantchat and the libraries that run model folders, as text."""
        return self._versions[False]

    def host(self, gpus: Sequence[GpuDevice]) -> kernels.Host:
        """Return what the kernels ask of the GPUs of a load, of the CPU without any; `engine.kernels.probe` does."""
        known = [gpu.capability or NO_CAPABILITY for gpu in gpus]
        return kernels.Host(
            device="cuda" if gpus else "cpu",
            capability=min(known, default=(0, 0)),
            avx512_bf16=self._avx512_bf16,
            compiler=self._compiler,
            nvcc=self._nvcc,
            offline=self._offline,
            built=self._built,
        )

    def learn(self, model: ModelInfo, report: LoadReport, versions: Mapping[str, str]) -> Measured:
        """Note what a load came to, beside what the formulas say; `remember` writes it."""
        kind: DeviceKind = "cuda" if report.device.startswith("cuda") else "cpu"
        kernel = next((row for row in TABLE if row.name == report.kernel and row.device == kind), None)
        idle = report.idle_bytes if kind == "cpu" else 0
        setting = Setting(device=kind, kernel=kernel, graphs=report.decoding == "graph", runtime=idle or None)
        if versions:
            self._versions[is_llama(model)] = label(versions)
        load = Load(
            path=model.path,
            weight_bytes=model.weight_bytes,
            kernel=report.kernel,
            device=SEVERAL if report.placement else kind,
            versions=self._versions[is_llama(model)],
            predicted=predict(model, setting).predicted,
            measured=report.device_bytes,
        )
        self._judged.clear()
        self.measured = self.measured.add(load, idle)
        return self.measured

    def remember(self) -> bool:
        """Write what was learnt; false if the disk refused."""
        return save_measured(self.measured)

    def setting(self, model: ModelInfo, kernel: Kernel | None, gpus: int, *, graphs: bool = True) -> Setting:
        """Return what to predict for on so many GPUs, with what was measured before.

        Args:
            model: As the catalog read it.
            kernel: What the policy takes; None for unquantized weights.
            gpus: How many the layers go to; 0 for the CPU.
            graphs: Decoding by captured graphs is wanted; they are for one GPU.
        """
        kind: DeviceKind = "cuda" if gpus else "cpu"
        name = kernel_name(model, kernel)
        where = SEVERAL if gpus > 1 else kind
        versions = self._versions[is_llama(model)]
        known = self.measured.find(model.path, model.weight_bytes, name, where, versions)
        return Setting(
            device=kind,
            kernel=kernel,
            graphs=graphs and gpus == 1,
            runtime=None if gpus else self.measured.idle_bytes(versions),
            loaded=known.measured if known else None,
        )

    def predicted(
        self, model: ModelInfo, gpus: Sequence[GpuDevice], *, wish: str | None = None, graphs: bool = True
    ) -> Prediction | None:
        """Predict for the kernel that the policy takes, once per model; None if none can run it."""
        host = self.host(gpus)
        key = model.path, model.modified, model.weight_bytes, host, len(gpus), wish, graphs
        if key not in self._judged:
            chosen = choose(model, host, wish)
            self._judged[key] = (
                None
                if isinstance(chosen, KernelError)
                else predict(model, self.setting(model, chosen, len(gpus), graphs=graphs))
            )
        return self._judged[key]


def is_llama(model: ModelInfo) -> bool:
    """Whether llama.cpp runs a model."""
    return model.container == "gguf"


def kernel_name(model: ModelInfo, kernel: Kernel | None) -> str:
    """Name what computes a model, as the report of its load will."""
    return LLAMA_CPP if is_llama(model) else kernel.name if kernel else kernels.DENSE


def choose(
    model: ModelInfo, host: kernels.Host, wish: str | None, failed: Sequence[KernelRefusal] = ()
) -> Kernel | KernelError | None:
    """Return the kernel that the engine would take; None for weights that are not packed."""
    if model.quant.method not in kernels.QUANTIZED_METHODS:
        return None
    try:
        plan = kernels.plan(model.quant, host, model.weights.matrices, failed)
        return plan.choose(kernels.wished(wish, model.quant.method))
    except KernelError as error:
        return error


def label(versions: Mapping[str, str]) -> str:
    """Write versions as one text, with quantchat's own: its engine allocates too."""
    named = {"quantchat": __version__, **versions}
    return " ".join(f"{name} {version}" for name, version in sorted(named.items()))
